"""Images to views on the device, and images as the evaluation sees them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stopgrad.config import Augmentation
from stopgrad.data import color, geometry
from stopgrad.data.draws import ViewDraws

Views = Float[Tensor, "image 3 size size"]


def to_unit(images: UInt8[Tensor, "*image 3 height width"]) -> Float[Tensor, "*image 3 height width"]:
    """Pixels 0..255 to 0..1, float32."""
    return images.float().div_(255)


def to_uint8(pixels: Float[Tensor, "*image 3 height width"]) -> UInt8[Tensor, "*image 3 height width"]:
    """Pixels 0..1 to 0..255, rounded."""
    return pixels.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def fit(images: UInt8[Tensor, "image 3 _ _"], resize: int, crop: int) -> Float[Tensor, "image 3 crop crop"]:
    """Images without augmentation, in 0..1: shorter side to `resize`, antialiased, and the centre of `crop` pixels."""
    return geometry.centre_crop(geometry.resize_shorter(to_unit(images), resize), crop)


def cut(
    images: UInt8[Tensor, "image 3 height width"], draws: ViewDraws, augmentation: Augmentation, size: int
) -> Views:
    """The geometric part of a view, from images of one size; the result is in 0..1."""
    pixels = to_unit(images)
    if augmentation.geometry == "resized_crop":
        return geometry.crop_and_resize(pixels, _send(draws.box, pixels), size)
    if min(pixels.shape[2:]) > size:
        pixels = geometry.centre_crop(geometry.resize_shorter(pixels, size), size)
    rotation, zoom, shift = (_send(x, pixels) for x in (draws.rotation, draws.zoom, draws.shift))
    return geometry.affine(pixels, rotation, zoom, shift, size)


def recolour(pixels: Views, draws: ViewDraws, augmentation: Augmentation) -> Views:
    """The rest of a view, from pixels 0..1: flip, colour jitter, grey, blur; in the order of the SimSiam paper."""
    pixels = _where(draws.flip, pixels, lambda x, _: x.flip(3))
    if augmentation.jitter_form == "exact":
        jitter = lambda x, rows: color.jitter(x, _send(draws.factors[rows], x), torch.from_numpy(draws.order[rows]))  # noqa: E731
    else:
        jitter = lambda x, rows: color.jitter_single_affine(x, _send(draws.factors[rows], x))  # noqa: E731
    pixels = _where(draws.jitter, pixels, jitter)
    pixels = _where(draws.gray, pixels, lambda x, _: color.grayscale(x).expand_as(x))
    return _where(draws.sigma > 0, pixels, lambda x, rows: geometry.gaussian_blur(x, _send(draws.sigma[rows], x)))


def normalise(pixels: Views, mean: Sequence[float], std: Sequence[float]) -> Views:
    """Subtract the channel means and divide by the deviations."""
    shift = torch.tensor(mean, device=pixels.device).view(3, 1, 1)
    scale = torch.tensor(std, device=pixels.device).view(3, 1, 1)
    return (pixels - shift).div_(scale)


def _send(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device, non_blocking=True)


def _where(mask: np.ndarray, pixels: Tensor, change) -> Tensor:  # type: ignore[no-untyped-def]
    """Change the images where `mask` holds. The mask is on the host: no device has to be waited for."""
    rows = mask.nonzero()[0]
    if len(rows) == 0:
        return pixels
    if len(rows) == len(mask):
        return change(pixels, rows)
    index = torch.from_numpy(rows).to(pixels.device, non_blocking=True)
    return pixels.index_copy(0, index, change(pixels[index], rows))
