"""Images to views on the device, and images as the evaluation sees them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from torch import Tensor

from stopgrad.augment import color, geometry
from stopgrad.augment.draws import ViewDraws
from stopgrad.objective.device import sent
from stopgrad.settings import Augmentation

Views = Float[Tensor, "image channel size size"]
Images = UInt8[Tensor, "image channel _ _"] | UInt16[Tensor, "image channel _ _"]


def to_unit(images: Images) -> Float[Tensor, "image channel height width"]:
    """Pixels of 8 or 16 bits to 0..1, float32, laid out in planes."""
    return color.in_planes(images).mul_(1 / (255 if images.dtype == torch.uint8 else 65535))


def to_uint8(pixels: Float[Tensor, "*image channel height width"]) -> UInt8[Tensor, "*image channel height width"]:
    """Pixels 0..1 to 0..255, rounded."""
    return pixels.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def to_uint16(pixels: Float[Tensor, "*image channel height width"]) -> UInt16[Tensor, "*image channel height width"]:
    """Pixels 0..1 to 0..65535, rounded."""
    return pixels.mul(65535).round_().clamp_(0, 65535).to(torch.uint16)


def fit(images: Images, resize: int, crop: int) -> Float[Tensor, "image channel crop crop"]:
    """Images without augmentation, in 0..1: shorter side to `resize`, antialiased, and the centre of `crop` pixels."""
    return geometry.centre_crop(geometry.resize_shorter(to_unit(images), resize), crop)


def cut(images: Images, draws: ViewDraws, augmentation: Augmentation, size: int) -> Views:
    """The geometric part of a view, mirrored and turned, from images of one size; the result is in 0..1."""
    pixels = to_unit(images)
    mirrored = _send(draws.flip, pixels)
    upside_down = _send(draws.vertical_flip, pixels) if draws.vertical_flip.any() else None
    if augmentation.geometry == "resized_crop":
        pixels = geometry.crop_and_resize(pixels, _send(draws.box, pixels), size, mirrored, upside_down)
    else:
        if min(pixels.shape[2:]) > size:
            pixels = geometry.centre_crop(geometry.resize_shorter(pixels, size), size)
        rotation, zoom, shift = (_send(x, pixels) for x in (draws.rotation, draws.zoom, draws.shift))
        pixels = geometry.affine(pixels, rotation, zoom, shift, size, mirrored, upside_down)
    for quarters in (1, 2, 3):
        _change(pixels, draws.quarters == quarters, lambda x, _, turns=quarters: torch.rot90(x, turns, (2, 3)))
    return pixels


def recolour(pixels: Views, draws: ViewDraws, augmentation: Augmentation) -> Views:
    """The rest of a view, from pixels 0..1: colour jitter, grey, blur; in the order of the SimSiam paper.

    Of other channels than three, each channel's intensity is jittered on its own, and nothing turns grey. What it is
    given may be overwritten.
    """
    if pixels.shape[1] != 3:
        _change(pixels, draws.jitter, lambda x, rows: color.jitter_intensity(x, _send(draws.gains[rows], x)))
        _change(pixels, draws.sigma > 0, lambda x, rows: geometry.gaussian_blur(x, _send(draws.sigma[rows], x)))
        return pixels
    if augmentation.jitter_form == "exact" and draws.jitter.any():
        order, drawn = torch.from_numpy(draws.order), torch.from_numpy(draws.jitter)
        pixels = color.jitter(pixels, _send(draws.factors, pixels), order, drawn)
    else:
        _change(pixels, draws.jitter, lambda x, rows: color.jitter_single_affine(x, _send(draws.factors[rows], x)))
    _change(pixels, draws.gray, lambda x, _: color.grayscale(x).expand_as(x))
    _change(pixels, draws.sigma > 0, lambda x, rows: geometry.gaussian_blur(x, _send(draws.sigma[rows], x)))
    return pixels


def normalise(pixels: Views, mean: Sequence[float], std: Sequence[float], *, out: Tensor | None = None) -> Views:
    """Subtract the channel means and divide by the deviations, into `out` if that is given."""
    out = torch.empty_like(pixels) if out is None else out
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        torch.add(torch.tensor(-m / s), pixels[:, channel], alpha=1 / s, out=out[:, channel])
    return out


def _send(array: np.ndarray, like: Tensor) -> Tensor:
    return sent(torch.from_numpy(array), like.device)


def _change(pixels: Tensor, mask: np.ndarray, change) -> None:  # type: ignore[no-untyped-def]
    """Change the images where `mask` holds. The mask is on the host: no device has to be waited for."""
    rows = mask.nonzero()[0]
    if len(rows):
        index = _send(rows, pixels)
        pixels.index_copy_(0, index, change(color.select(pixels, index), rows))
