"""An encoder as plain data: its spec as a dictionary, its weights as safetensors bytes."""

from dataclasses import asdict
from typing import Any

from safetensors.torch import load, save

from stopgrad.artifacts.checkpoint import weights_of
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.load import assemble
from stopgrad.weights.spec import EncoderSpec


def pack(encoder: Encoder) -> dict[str, Any]:
    """An encoder as text, numbers and bytes, for whatever stores those: no class of torch or timm is in it.

    Raises:
        ValueError: a network of the caller's own, which no spec describes.
    """
    if encoder.spec is None:
        raise ValueError(f"{encoder.name} has no spec: only an encoder of stopgrad's own can be packed.")
    return {"spec": asdict(encoder.spec), "weights": save(weights_of(encoder.backbone)), "name": encoder.name}


def unpack(packed: dict[str, Any]) -> Encoder:
    """The encoder of what `pack` made, in eval mode, on the CPU.

    Raises:
        CheckpointError: the weights do not fit the spec.
    """
    return assemble(EncoderSpec.of(packed["spec"]), load(packed["weights"]), packed["name"])
