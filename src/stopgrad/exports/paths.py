"""Checks of an export's path; without torch, so that a wrong path is reported at once."""

import re
from pathlib import Path

from stopgrad.artifacts.hub_folder import HUB_FILES, HUB_SPEC, is_spec
from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.weights.options import place_of

# What can be exported to, and how such a file's name ends; a folder has no ending.
TARGETS = {"timm": ".safetensors", "torchvision": ".pth", "onnx": ".onnx", "safetensors": ".safetensors",
           "hub-folder": ""}  # fmt: skip
# What an export's name gets where nobody names it: never that of the encoder itself.
DEFAULT_ENDINGS = {"timm": "-timm.safetensors", "torchvision": "-torchvision.pth", "onnx": ".onnx",
                   "safetensors": "-stopgrad.safetensors", "hub-folder": "-hub"}  # fmt: skip


def check_place(to: str, out: str | Path, source: str | Path | None, *, overwrite: bool) -> Path:
    """The place, once it is known that it can be written.

    Args:
        to: one of `TARGETS`.
        out: the file or folder.
        source: what is exported, which is never overwritten; None where it is no file.
        overwrite: whether an earlier export may be replaced.

    Raises:
        ConfigError: an unknown target, a name that does not fit it, or something there already.
    """
    if to not in TARGETS:
        raise ConfigError(f"to = {to!r} is unknown: {did_you_mean(to, TARGETS)}")
    path, suffix = Path(out).expanduser(), TARGETS[to]
    if suffix and (path.suffix != suffix or path.is_dir()):
        raise ConfigError(f"out = {str(out)!r}: {to} is a {suffix} file, such as {path.stem or 'encoder'}{suffix}.")
    if not suffix and path.exists() and not path.is_dir():
        raise ConfigError(f"out = {str(out)!r} is a file: {to} needs a folder.")
    if source is not None and path.exists() and _is_source(path, str(source)):
        raise ConfigError(f"out = {str(out)!r} is what is exported, or lies beside it: name another place.")
    if suffix:
        files = [path, path.with_suffix(".json")] if to == "safetensors" else [path]
    else:
        files = [path / name for name in HUB_FILES]
    taken = [file for file in files if file.exists()]
    if not overwrite and (taken or (path.is_dir() and any(path.iterdir()))):
        what = f"{taken[0]} exists" if taken else f"{path} is not empty"
        raise ConfigError(f"{what}: use --overwrite, or another --out.")
    spec = path / HUB_SPEC if not suffix else path.with_suffix(".json")
    if taken and spec in files and not is_spec(spec):
        # The user's own README.md, say.
        raise ConfigError(f"{taken[0]} is not of an earlier export: --overwrite would replace it. Name another --out.")
    return path


def default_place(to: str, source: str | Path | None) -> Path:
    """Where an export goes that nobody names: beside the encoder, or in this folder where the encoder has no place.

    Args:
        to: as for `check_place`, which refuses what is there already.
        source: a run folder, a file, or a name as timm's; None: a network of the caller's own.
    """
    place, ending = Path(place_of(str(source or "encoder"))).expanduser(), DEFAULT_ENDINGS.get(to, "")
    if place.is_dir():
        return place / f"encoder{ending}"
    if place.is_file():
        return place.with_name(place.stem + ending)
    return Path(re.sub(r"[^\w.-]+", "_", place.name.removeprefix("timm:")) + ending)


def _is_source(path: Path, source: str) -> bool:
    """Whether writing to a path would touch what is exported: the file itself, or a run's own encoder."""
    here = path.resolve()
    for there in (Path(text).expanduser().resolve() for text in (source, source.partition("?")[0])):
        if here == there or (there.is_dir() and here.parent == there and here.name == "encoder.safetensors"):
            return True
    return False
