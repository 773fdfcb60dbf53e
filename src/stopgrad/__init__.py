"""Self-supervised image representation learning by guided stop-gradient."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded on first use: `import stopgrad` and the command line's help and error messages do without torch.
_HOME = {
    "pretrain": "stopgrad.train.pretrain",
    "Run": "stopgrad.train.pretrain",
    "load_encoder": "stopgrad.encoder.load",
    "Encoder": "stopgrad.encoder.encoder",
    "export": "stopgrad.exports.formats",
    "GuidedStopGradientLoss": "stopgrad.objective.guided",
    "choose_partners": "stopgrad.objective.guided",
    "random_permutation": "stopgrad.objective.guided",
    "negative_cosine": "stopgrad.objective.cosine",
    "evaluate_finetune": "stopgrad.evaluate.finetune",
    "evaluate_knn": "stopgrad.evaluate.knn",
    "PretrainedFeatures": "stopgrad.estimator",
    "embed_to_file": "stopgrad.embeddings.write",
    "read_embeddings": "stopgrad.embeddings.read",
    "search": "stopgrad.retrieval.query",
    "find_duplicates": "stopgrad.retrieval.duplicates",
    "evaluate_linear_augmented": "stopgrad.evaluate.linear_augmented",
    "check": "stopgrad.evaluate.health",
    "evaluate_linear": "stopgrad.evaluate.linear",
    "evaluate_few_label": "stopgrad.evaluate.few_label",
    "knn_predict": "stopgrad.metrics.accuracy",
    "write_report": "stopgrad.report.run",
    "write_encoder_report": "stopgrad.report.encoder",
    "compare": "stopgrad.report.compare",
}

__all__ = [
    "Encoder",
    "GuidedStopGradientLoss",
    "PretrainedFeatures",
    "Run",
    "__version__",
    "check",
    "choose_partners",
    "compare",
    "embed_to_file",
    "evaluate_few_label",
    "evaluate_finetune",
    "evaluate_knn",
    "evaluate_linear",
    "evaluate_linear_augmented",
    "export",
    "find_duplicates",
    "knn_predict",
    "load_encoder",
    "negative_cosine",
    "pretrain",
    "random_permutation",
    "read_embeddings",
    "search",
    "write_encoder_report",
    "write_report",
]

if TYPE_CHECKING:
    from stopgrad.embeddings.read import read_embeddings
    from stopgrad.embeddings.write import embed_to_file
    from stopgrad.encoder.encoder import Encoder
    from stopgrad.encoder.load import load_encoder
    from stopgrad.estimator import PretrainedFeatures
    from stopgrad.evaluate.few_label import evaluate_few_label
    from stopgrad.evaluate.finetune import evaluate_finetune
    from stopgrad.evaluate.health import check
    from stopgrad.evaluate.knn import evaluate_knn
    from stopgrad.evaluate.linear import evaluate_linear
    from stopgrad.evaluate.linear_augmented import evaluate_linear_augmented
    from stopgrad.exports.formats import export
    from stopgrad.metrics.accuracy import knn_predict
    from stopgrad.objective.cosine import negative_cosine
    from stopgrad.objective.guided import GuidedStopGradientLoss, choose_partners, random_permutation
    from stopgrad.report.compare import compare
    from stopgrad.report.encoder import write_encoder_report
    from stopgrad.report.run import write_report
    from stopgrad.retrieval.duplicates import find_duplicates
    from stopgrad.retrieval.query import search
    from stopgrad.train.pretrain import Run, pretrain


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stopgrad' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
