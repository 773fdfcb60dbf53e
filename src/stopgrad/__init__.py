"""Self-supervised image representation learning by guided stop-gradient."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded on first use: `import stopgrad` and the command line's help and error messages do without torch.
_HOME = {
    "pretrain": "stopgrad.train.pretrain",
    "Run": "stopgrad.train.pretrain",
    "load_encoder": "stopgrad.encoder.load",
    "Encoder": "stopgrad.encoder.embed",
    "GuidedStopGradientLoss": "stopgrad.objective.guided",
    "choose_partners": "stopgrad.objective.guided",
    "random_permutation": "stopgrad.objective.guided",
    "negative_cosine": "stopgrad.objective.cosine",
    "check": "stopgrad.evaluate.health",
    "evaluate_knn": "stopgrad.evaluate.knn",
    "evaluate_linear": "stopgrad.evaluate.linear",
    "evaluate_few_label": "stopgrad.evaluate.few_label",
    "knn_predict": "stopgrad.metrics.accuracy",
}

__all__ = [
    "Encoder",
    "GuidedStopGradientLoss",
    "Run",
    "__version__",
    "check",
    "choose_partners",
    "evaluate_few_label",
    "evaluate_knn",
    "evaluate_linear",
    "knn_predict",
    "load_encoder",
    "negative_cosine",
    "pretrain",
    "random_permutation",
]

if TYPE_CHECKING:
    from stopgrad.encoder.embed import Encoder
    from stopgrad.encoder.load import load_encoder
    from stopgrad.evaluate.few_label import evaluate_few_label
    from stopgrad.evaluate.health import check
    from stopgrad.evaluate.knn import evaluate_knn
    from stopgrad.evaluate.linear import evaluate_linear
    from stopgrad.metrics.accuracy import knn_predict
    from stopgrad.objective.cosine import negative_cosine
    from stopgrad.objective.guided import GuidedStopGradientLoss, choose_partners, random_permutation
    from stopgrad.train.pretrain import Run, pretrain


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stopgrad' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
