"""How large a study is: images, network and schedule, the same for every arm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from stopgrad.config import Config
from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.recipes import ADAPT, CIFAR10_MEAN, CIFAR10_STD, PRETRAINED
from stopgrad.recipes import digits as digits_recipe

CORE = "a core of an AMD EPYC with AVX-512"


@dataclass(frozen=True)
class Scale:
    """Images, network and schedule of a study's cells."""

    name: str
    words: str
    base: Config
    """What every arm starts from."""
    epochs: int
    """Of an arm of length 1."""
    num_images: int
    """Training images used, those held out included; 0: all. With `steps` of the base: at most so many."""
    num_held_out: float
    """Of these, how many are kept out of training as queries; below 1: the share of them."""
    pace: float
    """Encoder passes a second of one cell on the machine it was planned on, to foretell how long it takes."""
    overhead: float
    """Seconds a cell takes beside training, there."""
    planned_on: str
    """What that is, for one cell."""
    needs_data: str = ""
    """What DATA has to be; empty: none is needed."""
    data_size: int = 0
    """How many training images that has, to plan without it."""
    of_method: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Settings of one method's arms, where methods need different ones."""
    of_arm: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The same for a single arm, such as widths that suit this network."""

    def for_images(self, there: int) -> "Scale":
        """The scale with its numbers of images, of so many that there are."""
        num = min(self.num_images, there) if self.base.training.steps else self.num_images
        held = self.num_held_out
        return replace(self, num_images=num, num_held_out=round(held * (num or there)) if 0 < held < 1 else held)


def digits() -> Scale:
    """scikit-learn's digits: minutes on two cores. 8 x 8 pixels show what breaks, not what is good."""
    base = digits_recipe().replace(source_first=False, devices=1, report=False)
    return Scale(
        "digits", "scikit-learn's digits, ResNet-10 of 16 channels, 12 x 12 pixels", base, epochs=20, num_images=0,
        num_held_out=360, pace=7600, overhead=9, planned_on=CORE,
        # What is remembered is less than half an epoch, so that images rarely meet themselves.
        of_method={
            "simclr": {"temperature": 0.5}, "moco": {"queue_size": 512},
            # On held-out images and seeds of their own, of 0.005 to 8; of 0.05 to 2; of 1 to 8.
            "barlow_twins": {"lr": 0.02}, "vicreg": {"lr": 0.2},
            "dino": {"lr": 1.0, "ema_momentum": 0.96, "prototypes": 256},
        },
        of_arm={**{name: {"queue_size": 512} for name in ("memory", "memory_skip", "memory_soft", "memory_bare")},
                # Of 1, 4, 8, 16 and 64, on held-out images and seeds of its own.
                "byol_own": {"lr": 8.0}},
    )  # fmt: skip


def small() -> Scale:
    """A part of CIFAR-10 at 24 pixels and a ResNet of 0.3 M weights: about an hour a study on two cores."""
    base = Config().replace(
        image_size=24, mean=CIFAR10_MEAN, std=CIFAR10_STD, backbone="resnet10_16", stem="small",
        projector_width=512, projection_dim=512, predictor_width=128, method="byol", ema_momentum=0.98,
        lr=0.4, weight_decay=5e-4, batch_size=128, devices=1, monitor_images=2000, report=False,
    )  # fmt: skip
    return Scale(
        "small", "15,000 images of CIFAR-10, ResNet-10 of 16 channels, 24 x 24 pixels", base, epochs=8,
        num_images=15_000, num_held_out=5000, pace=5200, overhead=20,
        planned_on=CORE, needs_data="CIFAR-10", data_size=50_000,
        of_method={
            "simclr": {"temperature": 0.5}, "moco": {"queue_size": 2048},
            # Those of digits, as the scale's own rate is to theirs.
            "barlow_twins": {"lr": 0.008}, "vicreg": {"lr": 0.08},
            "dino": {"lr": 0.4, "ema_momentum": 0.96, "prototypes": 1024},
        },
        of_arm={"byol_own": {"lr": 4.0}},  # of 4 and 8, on a seed of its own
    )  # fmt: skip


def long() -> Scale:
    """The network and size of `small` on 45,000 images of CIFAR-10, 52 epochs: 14 million passes of symmetric SimSiam.

    About an hour a cell of length 1 on a core.
    """
    brief = small()
    return replace(
        brief, name="long", words="CIFAR-10, ResNet-10 of 16 channels, 24 x 24 pixels", epochs=52, num_images=0,
        # The monitors' images are a curve's; compiled, a step is a fifth faster.
        base=brief.base.replace(monitor_images=10_000, checkpoint_every_steps=500, compile=True),
        overhead=240,
        # Without a predictor, by claims-rates: better than the scale's by more than two points. Others keep it.
        of_arm={**brief.of_arm, "simsiam_symmetric_2v_bare": {"lr": 0.8}, "simsiam_random_4v_bare": {"lr": 0.8}},
    )  # fmt: skip


def full() -> Scale:
    """CIFAR-10 and ResNet-18, 200 epochs: for a GPU."""
    base = Config().replace(
        image_size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD, backbone="resnet18", stem="small",
        projector_layers=2, projector_width=2048, projection_dim=2048, predictor_width=512,
        lr=0.03, weight_decay=5e-4, batch_size=512, devices=1, report=False,
    )  # fmt: skip
    return Scale(
        "full", "CIFAR-10, ResNet-18 with a 3 x 3 stem, 32 x 32 pixels", base, epochs=200, num_images=0,
        num_held_out=5000, pace=60_000, overhead=60,
        planned_on="a data-centre GPU (a guess: none was available)", needs_data="CIFAR-10", data_size=50_000,
        # Rate and temperature as in Lightly's CIFAR-10 benchmark.
        of_method={
            "simclr": {"lr": 0.12, "projection_dim": 128, "temperature": 0.5},
            "moco": {"lr": 0.12, "projection_dim": 128, "temperature": 0.1},
            "barlow_twins": {"lr": 0.12}, "vicreg": {"lr": 0.12}, "dino": {"lr": 0.12},
        },
        # The authors' for 300 epochs of ImageNet (arXiv 2006.07733, appendix).
        of_arm={"byol_own": {"projector_width": 4096, "projection_dim": 256, "predictor_width": 4096, "lr": 0.3,
                             "ema_momentum": 0.99, "warmup_epochs": 10.0}},
    )  # fmt: skip


def photos() -> Scale:
    """Any labelled photos, up to 5,000, views of 96 pixels, EfficientNet-Lite0 with its ImageNet weights."""
    # Not the recipe's: cells are known by their settings, and the recipe takes what the study finds. The best encoder
    # is not chosen: an arm is judged by where its training ends.
    base = Config(recipe=ADAPT).replace(
        init=f"timm:{PRETRAINED}",
        backbone=PRETRAINED,
        norm="frozen",
        image_size=96,
        hue=0.05,
        gray_probability=0.1,
        blur_probability=0.5,
        blur_sigma_max=1.0,
        projector_width=1024,
        projection_dim=1024,
        predictor_width=256,
        method="byol",
        guide="nearest_views",
        source_first=True,
        ema_momentum=0.99,
        lr=0.2,
        backbone_lr=0.2,
        head_warmup=0.1,
        weight_decay=1e-4,
        batch_size=64,
        monitor_images=1000,
        knn_k=20,
        devices=1,
        keep="last",
        report=False,
        monitor_every_epochs=1000,
        steps=120,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    return Scale(
        "photos", "up to 5,000 labelled photos, EfficientNet-Lite0 from ImageNet, 96 x 96 pixels", base, epochs=0,
        num_images=5000, num_held_out=0.25, pace=250, overhead=60, planned_on=CORE, needs_data="labelled photos",
        data_size=1000, of_method={
            "simclr": {"temperature": 0.5},
            "vicreg": {"lr": 0.04, "projector_norm": "hidden"},
        },
    )  # fmt: skip


SCALES: Mapping[str, Callable[[], Scale]] = MappingProxyType(
    {"digits": digits, "small": small, "long": long, "photos": photos, "full": full}
)


def scale_of(name: str) -> Scale:
    """The scale of a name.

    Raises:
        ConfigError: no scale of that name.
    """
    if name not in SCALES:
        raise ConfigError(f"unknown scale {name!r}: {did_you_mean(name, SCALES)}")
    return SCALES[name]()
