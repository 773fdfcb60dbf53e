"""Recipes: settings that belong together, each with its claim.

A docstring gives command, hardware, duration and accuracy with seeds and k-NN protocol, or says "not run by us".
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stopgrad.config import Config, check_names, from_toml
from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.presets import preset_of

ADAPT = "adapt"
PRETRAINED = "tf_efficientnet_lite0.in1k"
"""The network that `adapt` starts from where nothing else is said: small, fast on CPUs, its weights 13 MB."""
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def digits() -> Config:
    """scikit-learn's handwritten digits (8x8 pixels), two CPU cores, about a minute.

    stopgrad pretrain --recipe digits --out RUN

    On two cores of an AMD EPYC with AVX-512 BF16, torch 2.15, devices = 2: 55 s of training, 72 to 79 s in all.
    k-NN, k = 20, T = 0.2, 12 x 12 pixels, bank 1,437, queries 360, 3 seeds: 95.3 +- 1.9 % (raw pixels 96.1,
    mean-centred 96.7, untrained 72.4 +- 2.1); with 10 labels a class 86.8 +- 2.3 % (mean-centred pixels 88.6). So
    clean and small an image is its own best feature: this recipe shows that everything works, not what features are
    good for.
    Settings chosen on 360 training images held out.
    """
    return Config(recipe="digits").replace(
        image_size=12, geometry="affine", rotation_degrees=10.0, zoom=0.1, shift=0.05,
        flip_probability=0.0, jitter_probability=0.0, gray_probability=0.0,
        mean=(0.305, 0.305, 0.305), std=(0.376, 0.376, 0.376),
        backbone="resnet10_16", stem="small", projector_width=256, projection_dim=256, predictor_width=64,
        method="byol", guide="nearest_views", source_first=True, ema_momentum=0.99,
        lr=1.0, weight_decay=5e-4, batch_size=128, epochs=120,
        knn_k=20,
    )  # fmt: skip


def scattered_digits() -> Config:
    """Handwritten digits scattered over larger images (16x16 pixels), two CPU cores; the default without data.

    stopgrad pretrain --out RUN (or sklearn:scattered-digits --recipe scattered_digits)

    scikit-learn's digits, each enlarged, turned and put somewhere in its image, so that pixels say little: place,
    angle and size have to be learnt away. On two cores of an Intel Xeon with AMX, torch 2.14, devices = 2: 78 s.
    k-NN, k = 20, T = 0.2, 16 x 16 pixels, bank 1,437, queries 360, 3 seeds: 85.7 +- 1.4 % (raw pixels 46.9,
    mean-centred 52.8, untrained 20.4 +- 1.4); with 10 labels a class 72.0 +- 2.2 % (mean-centred pixels 23.4).
    SimCLR, since on 360 training images held out it was far ahead (one seed): 77.2 %, where BYOL, guided or symmetric,
    reached 29.2 % at a rate of 1 (docs/recipes.md). Settings chosen on those 360 images.
    """
    return Config(recipe="scattered_digits").replace(
        image_size=16, geometry="affine", rotation_degrees=20.0, zoom=0.25, shift=0.3,
        flip_probability=0.0, jitter_probability=0.0, gray_probability=0.0,
        mean=(0.116, 0.116, 0.116), std=(0.247, 0.247, 0.247),
        backbone="resnet10_16", stem="small", projector_width=256, projection_dim=256,
        method="simclr", lr=1.0, weight_decay=5e-4, batch_size=128, epochs=100,
        knn_k=20,
    )  # fmt: skip


def cifar10_small() -> Config:
    """CIFAR-10, or other images of about 32 pixels, in a quarter of an hour on two CPU cores.

    stopgrad pretrain CIFAR10 --recipe cifar10_small --out RUN

    On two cores of an AMD EPYC with AVX-512 BF16, torch 2.15, devices = 2: 15 minutes of training (2,350 views/s).
    k-NN, k = 200, T = 0.2, 32 x 32 pixels, CIFAR-10 (JPEG), bank 50,000, queries 10,000, 2 seeds: 51.9 +- 0.7 %
    (untrained 33.2, raw pixels 30.9, mean-centred 39.7).
    Settings chosen on 5,000 training images held out, with the other 45,000 as bank.
    """
    return Config(recipe="cifar10_small").replace(
        image_size=32, early_size=24, early_share=0.75, mean=CIFAR10_MEAN, std=CIFAR10_STD,
        backbone="resnet10_16", stem="small",
        projector_width=512, projection_dim=512, predictor_width=128,
        method="byol", guide="nearest_views", source_first=True, ema_momentum=0.98,
        lr=0.4, weight_decay=5e-4, batch_size=128, epochs=20,
    )  # fmt: skip


def photos_small() -> Config:
    """A folder of photos on a small machine: views of 64 pixels, a small ResNet.

    stopgrad pretrain PHOTOS --recipe photos_small --out RUN

    flowers12 (720 photos), two cores of an AMD EPYC with AVX-512 BF16, torch 2.15, devices = 2: 4 minutes of training.
    k-NN, k = 20, T = 0.2, bank 720, queries 240, 1 seed: 60.4 % (untrained 42.9, mean-centred pixels 50.4). The epochs
    are for about a thousand photos; fewer do for more.
    Settings chosen on 144 training photos held out.
    """
    return Config(recipe="photos_small").replace(
        image_size=64, early_size=48, early_share=0.75, hue=0.05, gray_probability=0.1, blur_probability=0.5,
        blur_sigma_max=1.0, backbone="resnet10_16", stem="small_stride2",
        projector_width=512, projection_dim=512, predictor_width=128,
        method="byol", guide="nearest_views", source_first=True, ema_momentum=0.98,
        lr=0.4, weight_decay=5e-4, batch_size=128, epochs=300, knn_k=20,
    )  # fmt: skip


def adapt() -> Config:
    """Photos of your own, from ImageNet weights: short training at a low rate, and the better of start and end kept.

    stopgrad pretrain PHOTOS --recipe adapt --out RUN

    VICReg, since it adapts best (docs/adapt.md). 960 photos of flowers, two cores of an Intel Xeon with AMX, torch
    2.14, devices = 2: 3 minutes of training, 5 in all. As it started and adapted, test images, 96 x 96 pixels, devices
    = 1, 5 seeds: steel surface defects k-NN (k = 20, T = 0.2) 91.8 to 96.9 +- 0.5 %, linear 98.6 to 99.0 +- 0.1;
    flowers12 90.0 to 88.9 +- 0.8, linear 94.6 to 95.4 +- 0.3.
    Settings chosen on training images held out.
    """
    return Config(recipe=ADAPT).replace(
        init=f"timm:{PRETRAINED}", backbone=PRETRAINED, norm="frozen",
        image_size=96, hue=0.05, gray_probability=0.1, blur_probability=0.5, blur_sigma_max=1.0,
        method="vicreg", projector_width=1024, projection_dim=1024, projector_norm="hidden",
        lr=0.04, backbone_lr=0.05, head_warmup=0.1, weight_decay=1e-4, batch_size=64, steps=100,
        keep="best", monitor_images=1000, knn_k=20,
    )  # fmt: skip


def cifar10() -> Config:
    """CIFAR-10 at full scale: ResNet-18 with a 3x3 stem, SimSiam with GSG, 200 epochs. Not run by us.

    stopgrad pretrain CIFAR10 --recipe cifar10 --out RUN

    The SimSiam paper's protocol for CIFAR-10 (arXiv 2011.10566, appendix D), on one GPU. Figures from the GSG paper
    (arXiv 2503.09058), as summaries give them: k-NN 77.0 % for SimSiam, 82.2 % with GSG; linear 82.7 and 86.4 %. They
    are of four views an image; this recipe trains on two with mutual partners, at half the cost (views = 4 is the
    authors' form).
    """
    return Config(recipe="cifar10").replace(
        image_size=32, mean=CIFAR10_MEAN, std=CIFAR10_STD, backbone="resnet18", stem="small",
        projector_layers=2, projector_width=2048, projection_dim=2048, predictor_width=512,
        method="simsiam", guide="nearest_views", lr=0.03, weight_decay=5e-4, batch_size=512, epochs=200,
    )  # fmt: skip


def imagenet() -> Config:
    """ImageNet with the authors' exact settings: SimSiam with GSG, four views, ResNet-50, 100 epochs. Not run by us.

    torchrun --nproc-per-node 8 -m stopgrad pretrain IMAGENET --recipe imagenet --out RUN

    Settings from the authors' code (bych-lee/gsg), for 8 GPUs, the predictor's learning rate held as by their
    --fix-pred-lr. Figures from the GSG paper (arXiv 2503.09058), as summaries give them: k-NN with k = 200, T = 0.2,
    51.7 % for SimSiam, 58.4 % with GSG.
    """
    return Config(recipe="imagenet").replace(
        image_size=224, blur_probability=0.5, backbone="resnet50",
        projector_layers=3, projector_width=0, projection_dim=2048, predictor_width=512,
        method="simsiam", guide="nearest_views", views=4, partners="permutation",
        lr=0.05, weight_decay=1e-4, lr_schedule="cosine_per_epoch", predictor_lr_fixed=True,
        batch_size=512, epochs=100,
    )  # fmt: skip


def imagenet_vit() -> Config:
    """ImageNet with a ViT-S/16: BYOL with GSG, AdamW, 300 epochs. Not run by us.

    torchrun --nproc-per-node 8 -m stopgrad pretrain IMAGENET --recipe imagenet_vit --out RUN

    Optimizer, schedule and heads as in MoCo v3 (arXiv 2104.02057, section 4 and appendix A); the patches' projection
    keeps its random weights, as there (freeze_layers = 1). `--method simsiam` takes targets from the online encoder,
    `--guide symmetric` leaves the guide out.
    """
    return Config(recipe="imagenet_vit").replace(
        image_size=224, blur_probability=0.5, backbone="vit_small_patch16_224", freeze_layers=1, drop_path=0.1,
        projector_layers=3, projector_width=4096, projection_dim=256, predictor_width=4096,
        method="byol", guide="nearest_views", source_first=True, ema_momentum=0.99, ema_schedule="cosine",
        optimizer="adamw", lr=1.5e-4, weight_decay=0.1, warmup_epochs=40.0, batch_size=1024, epochs=300,
        crop_scale_min=0.08,
    )  # fmt: skip


RECIPES: Mapping[str, Callable[[], Config]] = MappingProxyType(
    {
        "scattered_digits": scattered_digits,
        "digits": digits,
        "cifar10_small": cifar10_small,
        "photos_small": photos_small,
        "adapt": adapt,
        "cifar10": cifar10,
        "imagenet": imagenet,
        "imagenet_vit": imagenet_vit,
    }
)


def base_config(recipe: str | None) -> Config:
    """A recipe's config; the bare defaults for None.

    Raises:
        ConfigError: no recipe of that name.
    """
    if not recipe:
        return Config()
    if recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r}: {did_you_mean(recipe, RECIPES)}")
    return RECIPES[recipe]()


def resolve(
    recipe: str | None, config: str | Path | None, overrides: Mapping[str, Any], augmentation: str | None = None
) -> tuple[str | None, dict[str, Any]]:
    """Bring together what the user gave: the recipe's name if there is one, and the settings.

    Flags go before the file's settings, and those before the ones of `augmentation`, a preset.

    Raises:
        ConfigError: whatever is wrong with them that can be told without the data.
    """
    check_names(overrides)
    recipe_in_file, in_file = from_toml(config) if config is not None else (None, {})
    preset = preset_of(augmentation)
    if preset and preset.keys() <= in_file.keys():
        raise ConfigError(
            f"augmentation = {augmentation!r} has no effect: config {str(config)!r} gives all settings of it, and goes "
            "before it. Take them out of its [augmentation]."
        )
    given = {**preset, **in_file, **{name: value for name, value in overrides.items() if value is not None}}
    recipe = recipe or recipe_in_file
    base_config(recipe).replace(**given)
    return recipe, given
