"""What a user says of a checkpoint beyond its place: in keywords, or after a question mark."""

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
class Asked:
    """What the file itself may not tell; None: found out, or the usual."""

    image_size: int | None = None
    """Side of the images in pixels."""
    mean: Triple | None = None
    """Channel means, of pixels in 0..1."""
    std: Triple | None = None
    """Channel deviations."""
    backbone: str | None = None
    """A timm name, or one of our small ResNets."""
    stem: str | None = None
    """As the setting `stem`."""
    prefix: str | None = None
    """What the names of the backbone's weights begin with, where a file holds several networks."""
    pretrained: bool | None = None
    """`timm:NAME`: with its weights (the default), or as built."""
    partial: bool | None = None
    """Take weights that fit in part; the rest stays at its random start."""

    def given(self) -> list[str]:
        """The names of those that were said."""
        return [f.name for f in fields(self) if getattr(self, f.name) is not None]

    def and_then(self, later: "Asked") -> "Asked":
        """Both; where both say something, the later one counts."""
        return replace(self, **{name: getattr(later, name) for name in later.given()})


def split_question(text: str) -> tuple[str, Asked]:
    """`simsiam.pth?image_size=96&backbone=resnet50` as the path and what is asked of it.

    A file whose name has a question mark is itself.

    Raises:
        ConfigError: a name that is unknown, or a value that is none.
    """
    path, mark, query = text.partition("?")
    if not mark or Path(text).expanduser().exists():
        return text, Asked()
    before, _, last = text.rpartition("?")
    if Path(before).expanduser().exists():
        path, query = before, last
    pairs = parse_qsl(query, keep_blank_values=True)
    if not pairs:
        raise ConfigError(f"{text}: nothing is said after the question mark, such as image_size=96.")
    return path, asked_of(dict(pairs))


def place_of(text: str) -> str:
    """The place alone, without what is asked of it."""
    return split_question(text)[0]


def check_there(text: str) -> None:
    """Say it where nothing is at an encoder's place; without torch.

    Raises:
        CheckpointError: no such file or folder, or a name that is not fetched.
        ConfigError: something asked of it that is unknown.
    """
    name = place_of(text)
    if name.startswith((TIMM, PACKAGE)):
        return
    if re.match(r"(torchvision|hub|hf-hub|hf_hub|https?):", name):
        raise CheckpointError(
            f"{name}: only timm's networks are fetched, as timm:NAME; it has torchvision's weights too, such as "
            "timm:resnet50.tv_in1k. Anything else: download it and give its path."
        )
    path = Path(name).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"{path} is not there: give a run folder, a .ckpt, an encoder.safetensors, another program's weights, or "
            "timm:NAME."
        )


def with_question(path: str, asked: Asked) -> str:
    """What `split_question` takes apart again."""
    said = {name: getattr(asked, name) for name in asked.given()}
    texts = {n: ",".join(map(repr, v)) if isinstance(v, tuple) else str(v) for n, v in said.items()}
    return f"{path}?{urlencode(texts, safe=',')}" if texts else path


def asking(text: str, asked: Asked) -> str:
    """A path, with a question or without, with more asked of it; the same text where nothing is."""
    if not asked.given():
        return text
    path, said = split_question(text)
    return with_question(path, said.and_then(asked))


def asked_of(values: Mapping[str, Any]) -> Asked:
    """The same from names and values, texts or not.

    Raises:
        ConfigError: a name that is unknown, or a value that is none.
    """
    known = {f.name for f in fields(Asked)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{name} is nothing that can be said of a checkpoint: {did_you_mean(name, known)}")
    return Asked(**{name: _value(name, value) for name, value in values.items() if value is not None})


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
