"""Augmentation presets: which views of one image should have the same features, by the kind of images.

Each sets the whole of the augmentation but the colours' mean and deviation and the form of the jitter, which are the
recipe's. A docstring says why. None was chosen by experiments of ours: look at `stopgrad preview DATA --augmentation
NAME`, then compare (docs/augmentation.md).
"""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from stopgrad.errors import ConfigError, did_you_mean

Preset = dict[str, Any]


def photo() -> Preset:
    """Photos of things and scenes: crops, mirroring, strong colours, blur.

    The augmentation of MoCo v2 and SimSiam (arXiv 2003.04297; 2011.10566, appendix A). Without strong changes of colour
    crops of one photo are recognised by their colours (SimCLR, arXiv 2002.05709, section 3.1). The blur is for views of
    about 224 pixels.
    """
    return _settings(saturation=0.4, hue=0.1, gray_probability=0.2, blur_probability=0.5)


def small_image() -> Preset:
    """Photos of 64 pixels and less, such as CIFAR-10's: as `photo` without blur.

    SimSiam on CIFAR-10 (arXiv 2011.10566, appendix D): so few pixels have no detail to spare. Local views are larger
    shares of the image, for the same reason.
    """
    return _settings(saturation=0.4, hue=0.1, gray_probability=0.2, local_scale_min=0.1, local_scale_max=0.3)


def microscopy() -> Preset:
    """Cells and tissue under a microscope: any direction, colours of the stain kept, focus and light varied.

    A slide has no upright: vertical flips as in the pathology benchmark of arXiv 2212.04690, and quarter turns, since
    features should not depend on rotation (arXiv 2311.08359). No hue, no grey: a stain's colour says what is stained.
    Blur stands for focus. Crops are larger than for photos, since magnification is fixed and the size of a cell counts.
    """
    return _settings(
        vertical_flip_probability=0.5, turn_probability=0.75, crop_scale_min=0.25, local_scale_max=0.25,
        blur_probability=0.5,
    )  # fmt: skip


def medical() -> Preset:
    """Radiographs, scans and other clinical images: large crops, mirroring, brightness and contrast, no blur.

    Small crops and blur can remove what makes the diagnosis; MoCo-CXR (arXiv 2010.05352) mirrors and rotates by 10
    degrees alone. Patients are imaged upright; exposure varies between devices. Mirroring loses the side of the body:
    `--flip-probability 0` keeps it.
    """
    return _settings(crop_scale_min=0.5, local_scale_min=0.1, local_scale_max=0.5)


def satellite() -> Preset:
    """Satellite and aerial images, seen from above: any direction, brightness and contrast, no hue.

    North is a convention: vertical flips and quarter turns. Brightness and contrast by 0.4, grey, blur and crops from
    0.2 are those of SSL4EO-S12 (arXiv 2211.07044). The proportions of the bands say what covers the ground: no hue.
    """
    return _settings(
        vertical_flip_probability=0.5, turn_probability=0.75, gray_probability=0.2, blur_probability=0.5,
    )  # fmt: skip


def document() -> Preset:
    """Scanned pages and forms: large crops, no mirroring, a little of the scanner's light, little blur.

    Mirrored writing is none. What a page is shows in its layout: training on patches does poorly on documents (arXiv
    2004.10605). Colour is mostly that of the paper and the scanner, so that a part of the views is grey. Brightness and
    contrast change by 0.2: on paper that is nearly white, 0.4 burns out thin strokes.
    """
    return _settings(
        crop_scale_min=0.5, local_scale_min=0.1, local_scale_max=0.5, flip_probability=0.0, brightness=0.2,
        contrast=0.2, gray_probability=0.2, blur_probability=0.5, blur_sigma_max=1.0,
    )  # fmt: skip


def _settings(**own: Any) -> Preset:
    """All settings of a preset: those given, and for the rest what most of them share."""
    shared = {
        "geometry": "resized_crop", "crop_scale_min": 0.2, "crop_scale_max": 1.0, "local_scale_min": 0.05,
        "local_scale_max": 0.2, "flip_probability": 0.5, "vertical_flip_probability": 0.0, "turn_probability": 0.0,
        "jitter_probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.1, "hue": 0.0,
        "gray_probability": 0.0, "blur_probability": 0.0, "blur_sigma_min": 0.1, "blur_sigma_max": 2.0,
    }  # fmt: skip
    return {**shared, **own}


PRESETS: Mapping[str, Callable[[], Preset]] = MappingProxyType(
    {
        "photo": photo,
        "small_image": small_image,
        "microscopy": microscopy,
        "medical": medical,
        "satellite": satellite,
        "document": document,
    }
)


def preset_of(name: str | None) -> Preset:
    """The settings of a preset; none for None. A hyphen does for an underscore.

    Raises:
        ConfigError: no preset of that name.
    """
    if name is None:
        return {}
    known = name.replace("-", "_")
    if known not in PRESETS:
        raise ConfigError(f"unknown augmentation {name!r}: {did_you_mean(known, PRESETS)}")
    return PRESETS[known]()


def preset_toml(preset: Preset) -> str:
    """A preset as the section of a TOML file of settings."""
    return "[augmentation]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in preset.items())
