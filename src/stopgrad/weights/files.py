"""Tensors from other programs' files, and nothing else: no code in them is ever run."""

import argparse
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from stopgrad.errors import CheckpointError

# How torch.save writes: a zip file, or before torch 1.6 a pickle.
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80")
MAX_NAMED = 3


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as torch.save's do."""
    with open(path, "rb") as file:
        begin = file.read(9)
    # A safetensors file begins with eight bytes of a length, which may look like anything, and a brace.
    return begin.startswith(_TORCH_MAGIC) and begin[8:] != b"{"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors or torch.save file, by their place in it, joined by dots.

    Raises:
        CheckpointError: no such file, damaged, without tensors, or with Python objects that only unpickling would read.
    """
    return read_weights(path)[0]


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same, and the texts that the file has beside them, such as a name of the network, by their keys."""
    try:
        if not is_torch_file(path):
            tensors = load_file(path)
            with safe_open(path, framework="pt") as file:
                return tensors, dict(file.metadata() or {})
        # argparse's Namespace is a bag of settings that many training scripts save beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # Of pickle protocols that it may not know: then it says so by an error.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_carries_code(path), topic="refused-pickles") from error
    except SafetensorError as error:
        if path.suffix == ".safetensors":
            raise CheckpointError(
                f"{path} is damaged or cut off: {error}. Download or copy it again.", topic="damaged-files"
            ) from error
        raise CheckpointError(
            f"{path} is not a checkpoint: neither a safetensors file ({error}) nor one of torch.save."
        ) from error
    # A damaged zip or pickle ends in errors of many kinds.
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {_first_line(error)}") from error
    tensors = dict(_tensors_in(content, ""))
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors: it is a {type(content).__name__} without weights.")
    texts = content.items() if isinstance(content, dict) else ()
    return tensors, {key: value for key, value in texts if isinstance(key, str) and isinstance(value, str)}


def _tensors_in(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _tensors_in(part, f"{name}.{key}" if name else str(key))


def _carries_code(path: Path) -> str:
    try:
        named = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    # It reads the newer format only, and damaged files end in errors of many kinds.
    except Exception:
        named = []
    what = ", ".join(named[:MAX_NAMED]) + (f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else "")
    # A name may be made to end the quotes: then the command is for the user to fill in.
    given = path if re.fullmatch(r"[\w./ +-]+", str(path)) else Path("FILE.pth")
    kept = given.with_name(f"{given.stem}-weights.pth")
    return (
        f"{path} cannot be read without unpickling ({what or 'a plain pickle'}), which could run any code, so it is "
        'refused. If you trust who made it, keep its weights alone, once, and load those: python -c "import torch; '
        f"torch.save(torch.load('{given}', map_location='cpu', weights_only=False)['state_dict'], '{kept}')\" "
        "(or another key than state_dict)."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
