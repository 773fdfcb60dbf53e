"""Checkpoints: nested state in one safetensors file, written atomically, verified when read, nothing unpickled.

Tensors keep their place in the nesting as their name; everything else goes as JSON into the header.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor, nn

from stopgrad.artifacts.files import write_atomically
from stopgrad.errors import CheckpointError

FORMAT = "stopgrad-checkpoint-1"


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's weights and buffers on the CPU, in plain memory order."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def write_weights(path: Path, module: nn.Module) -> None:
    """Write them as a .safetensors file."""
    # save_file would make a file that its owner alone may read.
    content = save(weights_of(module), metadata={"format": "pt"})
    write_atomically(path, lambda there: there.write_bytes(content))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers, strings and None.

    Raises:
        CheckpointError: the disk is full or cannot be written; an earlier file of that name is untouched.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _take_tensors(state, "", tensors)
    header = {"format": FORMAT, "state": json.dumps(skeleton), "crc32": _checksum(tensors)}
    try:
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=header))
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(
            f"checkpoint {path} cannot be written: {reason}. Earlier checkpoints are intact.", topic="disk-full"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, tensors on the CPU.

    Raises:
        CheckpointError: not a checkpoint of ours, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}.", topic="damaged-files") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this program (format {header.get('format')!r}).")
    if header.get("crc32") != _checksum(tensors):
        raise CheckpointError(f"{path} is damaged: its checksum does not agree.", topic="damaged-files")
    try:
        state = _put_tensors(json.loads(header["state"]), tensors)
    # Of the header there is no checksum.
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: its header cannot be read ({type(error).__name__}).", topic="damaged-files"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is damaged: its header holds no state.", topic="damaged-files")
    return state


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value with each tensor replaced by a mark, the tensors gathered by their place."""
    if isinstance(value, Tensor):
        # Cloned: shared memory is refused by the format, and a view would drag its whole storage along.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"__tensor__": name}
    if isinstance(value, dict):
        # JSON has no whole-number keys; the optimizer's state has.
        pairs = [[k, _take_tensors(v, f"{name}/{k}" if name else str(k), tensors)] for k, v in value.items()]
        return {"__dict__": pairs}
    if isinstance(value, (list, tuple)):
        return [_take_tensors(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name}: a checkpoint holds no {type(value).__name__}")


def _put_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {k: _put_tensors(v, tensors) for k, v in value["__dict__"]}
    if isinstance(value, list):
        return [_put_tensors(v, tensors) for v in value]
    return value


def _checksum(tensors: dict[str, Tensor]) -> str:
    crc = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode(), crc)
        if tensor.numel():
            crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
