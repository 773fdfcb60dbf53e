"""Colour augmentation of a whole batch, with parameters of its own for every image."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

Pixels = Float[Tensor, "image 3 height width"]
# ITU-R BT.601 luma in torchvision's digits.
LUMA = (0.2989, 0.587, 0.114)
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def grayscale(images: Pixels) -> Float[Tensor, "image 1 height width"]:
    """Luma of each pixel."""
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue).unsqueeze(1)


def jitter(images: Pixels, factors: Float[Tensor, "image 4"], order: Int[Tensor, "image 4"]) -> Pixels:
    """torchvision's ColorJitter on given parameters: four steps in each image's own order, clamped after each.

    Args:
        images: pixels in 0..1.
        factors: brightness, contrast and saturation factors, and the hue shift in -0.5..0.5.
        order: `order[i, 0]` is the step that comes first for image i: 0 brightness, 1 contrast (about the mean luma
            of the image as it is by then), 2 saturation, 3 hue (through HSV).
    """
    images = images.clone()
    # On the host, so that no device has to be waited for.
    order = order.cpu()
    for place in range(4):
        for step in (BRIGHTNESS, CONTRAST, SATURATION, HUE):
            rows = (order[:, place] == step).nonzero().squeeze(1).to(images.device, non_blocking=True)
            if len(rows):
                images[rows] = _STEPS[step](images[rows], factors[rows, step].view(-1, 1, 1, 1))
    return images


def jitter_single_affine(images: Pixels, factors: Float[Tensor, "image 4"]) -> Pixels:
    """An approximation of `jitter` by one affine map of the colours: one pass, no order, hue as a rotation in YIQ.

    Args:
        images: pixels in 0..1.
        factors: as for `jitter`.
    """
    brightness, contrast, saturation, hue = factors.T
    luma = torch.tensor(LUMA, device=images.device).expand(3, 3)
    identity = torch.eye(3, device=images.device)
    to_yiq = torch.tensor(
        [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], device=images.device
    )
    cos, sin = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turn = torch.stack([one, zero, zero, zero, cos, sin, zero, -sin, cos], dim=1).view(-1, 3, 3)
    rotate = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    saturate = saturation.view(-1, 1, 1) * identity + (1 - saturation).view(-1, 1, 1) * luma
    matrix = (brightness * contrast).view(-1, 1, 1) * (rotate @ saturate)
    mean_luma = (grayscale(images).mean(dim=(1, 2, 3)) * brightness).clamp(0, 1)
    offset = ((1 - contrast) * mean_luma).view(-1, 1, 1)
    return (matrix @ images.flatten(2) + offset).clamp_(0, 1).view_as(images)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    mean = grayscale(images).mean(dim=(1, 2, 3), keepdim=True)
    return (images * factor + (1 - factor) * mean).clamp_(0, 1)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor + (1 - factor) * grayscale(images)).clamp_(0, 1)


def _hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV: channel = V - chroma x clamp(min(k, 4 - k), 0, 1) with k = (n + 6 H) mod 6."""
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(dim=1), images.amax(dim=1) - images.amin(dim=1)
    divisor = torch.where(chroma == 0, 1, chroma)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * shift[:, 0]
    channels = []
    for n in (5, 3, 1):
        k = (n + sixths) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, dim=1)


_STEPS = {BRIGHTNESS: _brightness, CONTRAST: _contrast, SATURATION: _saturation, HUE: _hue}
