"""Where an export may be written; without torch, so that a wrong place is said at once."""

from pathlib import Path

from stopgrad.errors import ConfigError, did_you_mean

# What can be exported to, and how such a file's name ends; a folder has no ending.
TARGETS = {"timm": ".safetensors", "torchvision": ".pth", "onnx": ".onnx", "safetensors": ".safetensors",
           "hub-folder": ""}  # fmt: skip


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
    taken = path.exists() and (bool(suffix) or any(path.iterdir()))
    if source is not None and taken and _is_source(path, Path(source).expanduser()):
        raise ConfigError(f"out = {str(out)!r} is what is exported, or lies beside it: name another place.")
    beside = path.with_suffix(".json")
    if to == "safetensors" and beside.exists() and not overwrite:
        raise ConfigError(f"{beside} exists: use overwrite, or another out.")
    if taken and not overwrite:
        raise ConfigError(f"{path} exists{'' if suffix else ' and is not empty'}: use overwrite, or another out.")
    return path


def _is_source(path: Path, source: Path) -> bool:
    """Whether writing to a path would touch what is exported: the file itself, or a run's own encoder."""
    here, there = path.resolve(), source.resolve()
    return here == there or (there.is_dir() and here.parent == there and here.name == "encoder.safetensors")
