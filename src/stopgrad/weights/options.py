"""Options for loading a checkpoint: given as keywords, or after a question mark in its path."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from stopgrad.errors import CheckpointError, ConfigError, did_you_mean

TIMM, PACKAGE = "timm:", "package:"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class LoadOptions:
    """What the file itself may not record; None: inferred, or the default."""

    image_size: int | None = None
    """Side of the images in pixels."""
    mean: Triple | None = None
    """Channel means, of pixels in 0..1."""
    std: Triple | None = None
    """Channel standard deviations."""
    backbone: str | None = None
    """A timm name, or one of our small ResNets."""
    stem: str | None = None
    """As the setting `stem`."""
    prefix: str | None = None
    """Prefix of the backbone's weight names, where a file holds several networks."""
    pretrained: bool | None = None
    """`timm:NAME`: with its weights (the default), or as built."""
    partial: bool | None = None
    """Accept weights that fit in part; the rest keeps its random initialisation."""

    def given(self) -> list[str]:
        """The names of the options that are set."""
        return [f.name for f in fields(self) if getattr(self, f.name) is not None]

    def updated(self, later: "LoadOptions") -> "LoadOptions":
        """Both merged; where both set an option, the later one wins."""
        return replace(self, **{name: getattr(later, name) for name in later.given()})


def split_query(text: str) -> tuple[str, LoadOptions]:
    """`simsiam.pth?image_size=96&backbone=resnet50` as the path and its options.

    A file whose own name has a question mark is a plain path.

    Raises:
        ConfigError: an unknown option, or an invalid value.
    """
    path, mark, query = text.partition("?")
    if not mark or _there(text).exists():
        return text, LoadOptions()
    before, _, last = text.rpartition("?")
    if _there(before).exists():
        path, query = before, last
    pairs = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    if not pairs:
        raise ConfigError(f"{text}: no option after the question mark; give one such as image_size=96.")
    return path, parse_options(dict(pairs))


def _there(text: str) -> Path:
    """The path that a text means; of a user who does not exist the text as it is."""
    try:
        return Path(os.path.expanduser(text))
    # A user's name with a zero byte.
    except ValueError:
        return Path(text)


def place_of(text: str) -> str:
    """The path alone, without options."""
    return split_query(text)[0]


def check_there(text: str) -> None:
    """Check that something is at an encoder's path; without torch.

    Raises:
        CheckpointError: no such file or folder, or a name that cannot be fetched.
        ConfigError: an unknown option.
    """
    name = place_of(text)
    if name.startswith((TIMM, PACKAGE)):
        return
    if re.match(r"(torchvision|hub|hf-hub|hf_hub|https?):", name):
        raise CheckpointError(
            f"{name}: only timm's networks are fetched, as timm:NAME; it has torchvision's weights too, such as "
            "timm:resnet50.tv_in1k. Anything else: download it and give its path.",
            topic="no-weights",
        )
    path = _there(name)
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist: give a run folder, a .ckpt, an encoder.safetensors, another program's weights, or "
            "timm:NAME."
        )


def with_query(path: str, options: LoadOptions) -> str:
    """The inverse of `split_query`."""
    given = {name: getattr(options, name) for name in options.given()}
    texts = {n: ",".join(map(repr, v)) if isinstance(v, tuple) else str(v) for n, v in given.items()}
    return f"{path}?{urlencode(texts, safe=',', errors='surrogateescape')}" if texts else path


def add_options(text: str, options: LoadOptions) -> str:
    """A path, with or without options, with more options added; unchanged where none is set."""
    if not options.given():
        return text
    path, before = split_query(text)
    return with_query(path, before.updated(options))


def parse_options(values: Mapping[str, Any]) -> LoadOptions:
    """Options from names and values, as text or typed.

    Raises:
        ConfigError: an unknown option, or an invalid value.
    """
    known = {f.name for f in fields(LoadOptions)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{name} is not an option of a checkpoint: {did_you_mean(name, known)}")
    return LoadOptions(**{name: _value(name, value) for name, value in values.items() if value is not None})


def _value(name: str, value: Any) -> Any:
    try:
        if name == "image_size":
            size = int(value)
            if size < 4:
                raise ValueError
            return size
        if name in ("mean", "std"):
            parts = [float(v) for v in (value.split(",") if isinstance(value, str) else value)]
            numbers = tuple(parts * 3 if len(parts) == 1 else parts)
            if len(numbers) != 3 or (name == "std" and min(numbers) <= 0):
                raise ValueError
            return numbers
        if name in ("pretrained", "partial"):
            return {"true": True, "false": False}[str(value).lower()]
    except (ValueError, TypeError, KeyError) as error:
        rule = {"image_size": "a whole number of at least 4", "mean": "three numbers, as 0.5,0.5,0.5",
                "std": "three numbers above 0, as 0.2,0.2,0.2"}.get(name, "true or false")  # fmt: skip
        raise ConfigError(f"{name} = {value!r}: must be {rule}.") from error
    return str(value)
