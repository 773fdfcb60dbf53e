"""What every export has in common: files written whole, and features compared."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stopgrad.artifacts.checkpoint import write_weights
from stopgrad.artifacts.files import write_atomically
from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import CheckpointError
from stopgrad.loader.preprocess import Preprocess
from stopgrad.weights.spec import EncoderSpec

# Another order of sums changes features by some 1e-6 of their size; a wrong network by all of it.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Written:
    """An export on disk."""

    files: tuple[str, ...]
    load: str
    """Lines of Python."""
    notes: tuple[str, ...] = ()
    max_difference: float | None = None
    feature_scale: float | None = None


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    write_atomically(path, lambda there: there.write_text(text, encoding="utf-8"))


def write_own(encoder: Encoder, path: Path, spec_file: Path | None = None) -> Written:
    """Write our own format: weights, and the spec as JSON beside them."""
    spec_file = spec_file or path.with_suffix(".json")
    write_weights(path, encoder.backbone)
    write_text(spec_file, json.dumps(asdict(spec_of(encoder)), indent=2) + "\n")
    load = f"import stopgrad\nencoder = stopgrad.load_encoder({quoted(path)})\n"
    return Written((path.name, spec_file.name), load)


def quoted(path: Path | str) -> str:
    """A path as Python text."""
    return json.dumps(str(path), ensure_ascii=False)


def spec_of(encoder: Encoder) -> EncoderSpec:
    """The spec of an encoder that has one."""
    assert encoder.spec is not None
    return encoder.spec


def example_images(preprocess: Preprocess, num_images: int) -> Float[Tensor, "image channel size size"]:
    """Normalised noise to compare features on, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_images, len(preprocess.mean), preprocess.size, preprocess.size, generator=generator)


def compare(
    encoder: Encoder, other: Callable[[Tensor], Tensor], path: Path, images: Tensor | None = None
) -> tuple[float, float]:
    """How far features of a loaded export are from the encoder's.

    Args:
        encoder: what was exported.
        other: images to features, as loaded.
        path: the export, for the message.
        images: what to compare on; None: noise.

    Returns:
        Largest absolute difference, and largest absolute feature.

    Raises:
        CheckpointError: they differ by more than rounding.
    """
    images = example_images(encoder.preprocess, 3) if images is None else images
    if isinstance(other, nn.Module):
        other.eval()
    with torch.inference_mode():
        expected = encoder.backbone(images).float()
        found = other(images).float()
    scale = float(expected.abs().max())
    if found.shape != expected.shape or not (found - expected).abs().max() <= TOLERANCE * max(scale, 1e-6):
        raise CheckpointError(
            f"{path} was written, but reloaded it gives other features: shape {tuple(found.shape)} for "
            f"{tuple(expected.shape)}" + (
                f", off by up to {float((found - expected).abs().max()):.2g} where features are up to {scale:.2g}."
                if found.shape == expected.shape else "."
            )
        )  # fmt: skip
    return float((found - expected).abs().max()), scale


def preprocess_words(preprocess: Preprocess) -> str:
    """What an image needs before the backbone, in words."""
    p = preprocess
    numbers: dict[str, Any] = {name: ", ".join(f"{v:g}" for v in getattr(p, name)) for name in ("mean", "std")}
    resize = f"shorter side to {p.resize} pixels (bilinear, antialiased), the centre of {p.size} x {p.size}"
    return f"{p.pixels}, {resize}, pixels in 0..1, minus mean ({numbers['mean']}), divided by std ({numbers['std']})"
