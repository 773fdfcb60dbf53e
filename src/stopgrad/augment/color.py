"""Colour augmentation of a whole batch, with parameters of its own for every image.

Each channel of a batch is kept in one piece here (`in_planes`), and most steps work in place: on a CPU the time goes to
passes over memory.
"""

import itertools
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stopgrad.objective.device import sent

Pixels = Float[Tensor, "image 3 height width"]
AnyPixels = Float[Tensor, "image channel height width"]
# ITU-R BT.601 luma in torchvision's digits.
LUMA = (0.2989, 0.587, 0.114)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def empty_planes(num_images: int, height: int, width: int, *, device: torch.device, channels: int = 3) -> AnyPixels:
    """float32 `[image, channels, height, width]` of no particular values, channels one after another in memory."""
    return torch.empty(channels, num_images, height, width, device=device).movedim(0, 1)


def in_planes(images: Tensor) -> AnyPixels:
    """A copy of images `[image, channels, height, width]` in float32, laid out as `empty_planes` does."""
    num, channels, height, width = images.shape
    return empty_planes(num, height, width, device=images.device, channels=channels).copy_(images)


def select(images: AnyPixels, rows: Int[Tensor, "row"]) -> Float[Tensor, "row channel height width"]:
    """A copy of some of the images, laid out as `empty_planes` does."""
    _, channels, height, width = images.shape
    chosen = empty_planes(len(rows), height, width, device=images.device, channels=channels)
    torch.index_select(images.movedim(1, 0), 1, rows, out=chosen.movedim(1, 0))
    return chosen


def grayscale(images: Pixels) -> Float[Tensor, "image 1 height width"]:
    """Luma of each pixel."""
    return _luma(images).unsqueeze(1)


def jitter(
    images: Pixels, factors: Float[Tensor, "image 4"], order: Int[Tensor, "image 4"],
    drawn: Bool[Tensor, "image"] | None = None,
) -> Pixels:  # fmt: skip
    """torchvision's ColorJitter on given parameters: four steps in each image's own order, clamped after each.

    Args:
        images: pixels in 0..1.
        factors: brightness, contrast and saturation factors, and the hue shift in -0.5..0.5.
        order: `order[i, 0]` is the step that comes first for image i: 0 brightness, 1 contrast (about the mean luma
            of the image as it is by then), 2 saturation, 3 hue (through HSV). On the host.
        drawn: which images are jittered, on the host; None: all.

    Returns:
        A copy, laid out in planes.
    """
    # Sorted by the place at which their hue is turned, so that each place's images are a slice; the untouched last.
    place_of_hue = (order == HUE).int().argmax(dim=1)
    if drawn is not None:
        place_of_hue = torch.where(drawn, place_of_hue, 4)
    sorting = place_of_hue.argsort(stable=True)
    ends = torch.bincount(place_of_hue, minlength=5).cumsum(0).tolist()
    rows = sent(sorting, images.device)
    result = select(images, rows)
    jittered, factors, order = result[: ends[3]], factors[rows[: ends[3]]], sent(order, images.device)[rows[: ends[3]]]
    # Brightness, contrast and saturation are one operation: factor x image + (1 - factor) x something, which is
    # nothing, the image's mean luma, or each pixel's luma. Images whose step is another have factor 1.
    factor = factors.gather(1, order).masked_fill_(order == HUE, 1.0)
    of_mean, of_luma = (1 - factor) * (order == CONTRAST), (1 - factor) * (order == SATURATION)
    for place, (start, end) in enumerate(itertools.pairwise([0, *ends[:4]])):
        _blend(jittered, *(x[:, place].view(-1, 1, 1) for x in (factor, of_mean, of_luma)))
        if start < end:
            _turn_hue(jittered[start:end], factors[start:end, HUE].view(-1, 1, 1))
    return select(result, rows.argsort())


def jitter_single_affine(images: Pixels, factors: Float[Tensor, "image 4"]) -> Pixels:
    """An approximation of `jitter` by one affine map of the colours: one pass, no order, hue as a rotation in YIQ.

    Args:
        images: pixels in 0..1.
        factors: as for `jitter`.
    """
    brightness, contrast, saturation, hue = factors.T
    luma = sent(torch.tensor(LUMA), images.device).expand(3, 3)
    identity = torch.eye(3, device=images.device)
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    # Inverted on the host: a device would be waited for, to learn whether it could.
    to_yiq, from_yiq = (sent(matrix, images.device) for matrix in (yiq, torch.linalg.inv(yiq)))
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, sin, zero, -sin, cos], dim=1).view(-1, 3, 3)
    rotate = from_yiq @ turn @ to_yiq
    saturate = saturation.view(-1, 1, 1) * identity + (1 - saturation).view(-1, 1, 1) * luma
    matrix = (brightness * contrast).view(-1, 1, 1) * (rotate @ saturate)
    mean_luma = (grayscale(images).mean(dim=(1, 2, 3)) * brightness).clamp(0, 1)
    offset = ((1 - contrast) * mean_luma).view(-1, 1, 1)
    return (matrix @ images.flatten(2) + offset).clamp_(0, 1).view_as(images)


def jitter_intensity(images: AnyPixels, gains: Float[Tensor, "image channel 2"]) -> AnyPixels:
    """Brightness and contrast of each channel on its own: what is left of `jitter` where channels are no colours.

    Args:
        images: pixels in 0..1.
        gains: of each image and channel the brightness factor, and the contrast factor about the channel's mean.

    Returns:
        A copy, clamped after each step, laid out in planes.
    """
    brightness, contrast = gains.unsqueeze(-1).unsqueeze(-1).unbind(2)
    result = in_planes(images).mul_(brightness).clamp_(0, 1)
    means = result.mean(dim=(2, 3), keepdim=True)
    return result.mul_(contrast).add_((1 - contrast) * means).clamp_(0, 1)


def _luma(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(1)
    return torch.mul(red, LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _blend(images: Tensor, factor: Tensor, of_mean: Tensor, of_luma: Tensor) -> None:
    """images <- factor x images + of_mean x mean luma + of_luma x luma, clamped."""
    luma = _luma(images)
    mixed_in = torch.addcmul(of_mean * luma.mean(dim=(1, 2), keepdim=True), luma, of_luma)
    torch.addcmul(mixed_in.unsqueeze(1), images, factor.unsqueeze(1), out=images)
    images.clamp_(0, 1)


def _turn_hue(images: Tensor, shift: Tensor) -> None:
    """Turn the hue of HSV, in place.

    Written without `torch.where`, which on a CPU takes as long as twenty additions: which channel is largest enters as
    numbers 0 and 1. The hue is counted in sixths of the circle.
    """
    red, green, blue = images.unbind(1)
    larger, smaller = torch.maximum(green, blue), torch.minimum(green, blue)
    turns = torch.lt(green, blue, out=torch.empty_like(larger)).mul_(-6)
    is_not_red = torch.lt(red, larger, out=torch.empty_like(larger))
    turns.addcmul_(is_not_red, turns.mul(-2).sub_(2))
    middle = torch.minimum(red, larger).sub_(smaller)
    value, least = torch.maximum(red, larger, out=larger), torch.minimum(red, smaller, out=smaller)
    chroma = value - least
    # Without chroma the hue is of no consequence.
    hue = middle.div_(chroma.clamp(min=1e-12)).add_(turns).abs_().add_(6 * shift)
    hue.sub_(torch.floor(hue / 6).mul_(6))
    # Each channel's distance from its extreme is a triangle of the hue, cut off.
    for channel, extreme, sign, centre in ((red, least, 1, 3), (green, value, -1, 2), (blue, value, -1, 4)):
        triangle = torch.sub(hue, centre, out=turns).abs_().sub_(1).clamp_(0, 1)
        torch.addcmul(extreme, chroma, triangle, value=sign, out=channel)
