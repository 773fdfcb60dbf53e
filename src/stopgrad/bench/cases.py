"""What is measured: arms, each one measurement in a process of its own, and rows, which are what a user asks for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from stopgrad.errors import ConfigError, did_you_mean

LIGHTLY, TORCHVISION = ("lightly", "torchvision"), ("torchvision",)
_HEADS = {"projector_layers": 2, "projector_width": 2048, "projection_dim": 2048, "predictor_width": 512}
_SMALL = {**_HEADS, "backbone": "resnet10_16"}
_BYOL = {"method": "byol", "ema_momentum": 0.99}
_SOURCE_FIRST = {**_BYOL, "source_first": True}


@dataclass(frozen=True)
class Arm:
    """One thing to time."""

    title: str
    work: str
    """A name in `worker.WORK`."""
    recipe: str | None = None
    """Settings to start from; None: the user's, or chosen by the images."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Changed in the recipe, for our own arms."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else its work needs to know."""
    one_core: bool = False
    on_photos: bool = False
    needs: tuple[str, ...] = ()
    """Packages of the extra `peers`."""
    hint_seconds: int = 7
    """About how long a round takes on two cores."""

    @property
    def is_users(self) -> bool:
        """Whether it runs with the settings of the user's own training."""
        return self.recipe is None and self.work in _USERS


_USERS = ("decode", "cache", "batches", "augmentation", "training", "embedding", "timm_embedding")


def _ours(title: str, hint_seconds: int, **settings: Any) -> Arm:
    return Arm(title, "training", "cifar10", {**_HEADS, **settings}, hint_seconds=hint_seconds)


def _lightly(title: str, hint_seconds: int, *, method: str = "simsiam", backbone: str = "resnet18", layers: int = 2,
             helped: bool = False) -> Arm:  # fmt: skip
    options = {"method": method, "backbone": backbone, "projector_layers": layers, "width": 2048,
               "predictor_width": 512, "size": 32, "helped": helped}  # fmt: skip
    return Arm(title, "lightly_training", options=options, needs=LIGHTLY, hint_seconds=hint_seconds)


def _knn(title: str, form: str, num_classes: int) -> Arm:
    return Arm(title, "knn", options={"form": form, "num_classes": num_classes}, hint_seconds=12)


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "decode": Arm("decoding", "decode"),
        "cache": Arm("cache on disk", "cache"),
        "batches": Arm("loading", "batches"),
        "augmentation": Arm("augmentation", "augmentation"),
        "training": Arm("training", "training", hint_seconds=13),
        "embedding": Arm("embedding", "embedding"),
        "timm_embedding": Arm("embedding by timm's own loop (fp32)", "timm_embedding", hint_seconds=20),
        "knn": _knn("k-NN", "ours", 10),
        "simsiam": _ours("ResNet-18, SimSiam, ours", 45, guide="symmetric", projector_layers=3),
        "lightly_simsiam": _lightly("ResNet-18, SimSiam, Lightly as documented (fp32)", 75, layers=3),
        "lightly_simsiam_helped": _lightly(
            "ResNet-18, SimSiam, Lightly with bf16 and channels_last", 50, layers=3, helped=True
        ),
        "four_views": _ours("ResNet-18, GSG on four views, ours", 80, views=4, partners="permutation"),
        "paper": Arm(
            "ResNet-18, GSG on four views, the paper's protocol plainly (fp32)", "paper_training",
            options={"backbone": "resnet18", "projector_layers": 2, "width": 2048, "predictor_width": 512, "size": 32,
                     "helped": False},
            needs=TORCHVISION, hint_seconds=130,
        ),
        "source_first": _ours("ResNet-18, BYOL with GSG on two mutual views, source-first, ours", 40, **_SOURCE_FIRST),
        "byol": _ours("ResNet-18, symmetric BYOL, ours", 55, guide="symmetric", **_BYOL),
        "small_simsiam": _ours("0.3 M weights, SimSiam, ours", 18, guide="symmetric", **_SMALL),
        "lightly_small_simsiam": _lightly("0.3 M weights, SimSiam, Lightly as documented", 20, backbone="resnet10_16"),
        "small_source_first": _ours(
            "0.3 M weights, BYOL with GSG on two mutual views, source-first, ours", 18, **_SMALL, **_SOURCE_FIRST
        ),
        "lightly_small_byol": _lightly(
            "0.3 M weights, BYOL, Lightly as documented", 20, method="byol", backbone="resnet10_16"
        ),
        "views_32": Arm("views of 32 pixels on one core, ours", "augmentation", "cifar10", one_core=True),
        "lightly_views_32": Arm(
            "views of 32 pixels on one core, Lightly", "lightly_views", options={"size": 32}, one_core=True,
            needs=LIGHTLY,
        ),
        "views_224": Arm(
            "views of 224 pixels from photo files on one core, ours", "photo_views", "imagenet",
            {"views": 2, "partners": "auto", "batch_size": 32}, one_core=True, on_photos=True, hint_seconds=12,
        ),
        "lightly_views_224": Arm(
            "views of 224 pixels from photo files on one core, Lightly", "lightly_photo_views",
            options={"size": 224, "batch_size": 32}, one_core=True, on_photos=True, needs=LIGHTLY, hint_seconds=14,
        ),
        "guide": Arm("guide and loss in a ResNet-18 step", "guide_share", "cifar10", {**_HEADS}, hint_seconds=45),
        "knn_one_hot": _knn("k-NN in the usual one-hot form", "one_hot", 10),
        "knn_1000": _knn("k-NN", "ours", 1000),
        "knn_1000_one_hot": _knn("k-NN in the usual one-hot form", "one_hot", 1000),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Arms that belong together, and which of them are compared."""

    title: str
    arms: tuple[str, ...]
    ratios: tuple[tuple[str, str], ...] = ()
    """Arm over arm, by their first figures."""
    beside: tuple[str, ...] = ()
    """Arms that run only with `peers`, and that the first arm is compared with."""
    by_default: bool = False


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "decode": Row("files to pixels", ("decode",), by_default=True),
        "cache": Row("the cache of decoded images", ("cache",), by_default=True),
        "batches": Row("batches from memory", ("batches",), by_default=True),
        "augmentation": Row("views", ("augmentation",), by_default=True),
        "training": Row("a training step, and an epoch from files", ("training",), by_default=True),
        "embedding": Row("files to features", ("embedding",), beside=("timm_embedding",), by_default=True),
        "knn": Row("k-NN", ("knn",), by_default=True),
        "simsiam": Row(
            "SimSiam, ResNet-18", ("simsiam", "lightly_simsiam", "lightly_simsiam_helped"),
            (("simsiam", "lightly_simsiam"), ("simsiam", "lightly_simsiam_helped")),
        ),
        "four_views": Row("the authors' four views", ("four_views", "paper"), (("four_views", "paper"),)),
        "two_views": Row(
            "two mutual views, source-first, beside the authors' four", ("source_first", "paper"),
            (("source_first", "paper"),),
        ),
        "source_first": Row(
            "source-first beside symmetric BYOL", ("source_first", "byol"), (("source_first", "byol"),)
        ),
        "small": Row(
            "a backbone of 0.3 M weights",
            ("small_simsiam", "lightly_small_simsiam", "small_source_first", "lightly_small_byol"),
            (("small_simsiam", "lightly_small_simsiam"), ("small_source_first", "lightly_small_byol")),
        ),
        "views_32": Row("views of 32 pixels", ("views_32", "lightly_views_32"), (("views_32", "lightly_views_32"),)),
        "views_224": Row(
            "views of 224 pixels", ("views_224", "lightly_views_224"), (("views_224", "lightly_views_224"),)
        ),
        "guide": Row("guide and loss", ("guide",)),
        "knn_10": Row("k-NN at 10 classes", ("knn", "knn_one_hot"), (("knn", "knn_one_hot"),)),
        "knn_1000": Row(
            "k-NN at 1,000 classes", ("knn_1000", "knn_1000_one_hot"), (("knn_1000", "knn_1000_one_hot"),)
        ),
        "outside_network": Row(
            "time outside the network", ("simsiam", "source_first", "small_simsiam", "small_source_first")
        ),
    }
)  # fmt: skip


def choose_rows(only: Iterable[str], *, peers: bool) -> list[str]:
    """The rows to run: those asked for, or the usual ones, or with peers all.

    Raises:
        ConfigError: no such row, one that needs `peers` without it, or a peer that is not installed.
    """
    chosen = list(dict.fromkeys(only))
    for name in chosen:
        if name not in ROWS:
            raise ConfigError(f"--only {name}: no such row; {did_you_mean(name, ROWS)}")
    chosen = chosen or [name for name, row in ROWS.items() if row.by_default or peers]
    for name in chosen:
        for package in sorted({package for arm in ROWS[name].arms for package in ARMS[arm].needs}):
            if not peers:
                raise ConfigError(f"--only {name} compares with {package}: add --peers.")
            if find_spec(package) is None:
                raise ConfigError(f'--peers needs {package}: pip install "stopgrad[peers]"', topic="missing-package")
    return chosen


def arms_of(rows: Iterable[str], *, peers: bool = False) -> list[str]:
    """The arms of some rows, each once; with peers, also those they are compared with."""
    wanted = {arm for row in rows for arm in ROWS[row].arms + (ROWS[row].beside if peers else ())}
    return [arm for arm in ARMS if arm in wanted]
