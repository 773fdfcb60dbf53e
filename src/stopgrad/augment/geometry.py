"""Crops, resizes, blurs and small affine maps of a whole batch, with parameters of its own for every image.

Resampling is a matrix for the rows and one for the columns. Written so, a batch of different crops is two batched
matrix products a channel, exact and antialiased, on any device.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from stopgrad.augment.color import empty_planes

Pixels = Float[Tensor, "image channel height width"]


def resize_matrix(
    start: Tensor, length: Tensor, source: int, size: int, mirrored: Tensor | None = None
) -> Float[Tensor, "image size source"]:
    """Antialiased linear resampling of `[start, start + length)` to `size` samples, one matrix an image.

    A triangle filter as wide as the shrinkage (and never narrower than linear interpolation), cut off and
    renormalised at the ends of the interval, as Pillow and `torch.nn.functional.interpolate(antialias=True)` do.

    Args:
        start, length: `[image]`, in source pixels.
        source: pixels along the source.
        size: samples along the result.
        mirrored: `[image]`, whose result comes in reversed order; None: nobody's.
    """
    start, length = start[:, None, None].float(), length[:, None, None].float()
    scale = length / size
    sample = torch.arange(size, device=start.device)[None, :, None] + 0.5
    if mirrored is not None:
        sample = torch.where(mirrored[:, None, None], size - sample, sample)
    centre = start + sample * scale
    pixel = torch.arange(source, device=start.device) + 0.5
    inside = ((pixel > start) & (pixel < start + length)).float()
    weight = (pixel - centre).abs_().div_(-scale.clamp(min=1)).add_(1).clamp_(min=0).mul_(inside)
    return weight.div_(weight.sum(dim=2, keepdim=True))


def apply_separable(
    images: Pixels, rows: Float[Tensor, "image new_height height"], columns: Float[Tensor, "image new_width width"]
) -> Float[Tensor, "image channel new_height new_width"]:
    """rows x image x columns^T for every channel of every image, laid out in planes."""
    channels = images.shape[1]
    result = empty_planes(len(images), rows.shape[1], columns.shape[1], device=images.device, channels=channels)
    for channel in range(channels):
        torch.bmm(rows, torch.bmm(images[:, channel], columns.transpose(1, 2)), out=result[:, channel])
    return result


def crop_and_resize(
    images: Pixels, box: Tensor, size: int, mirrored: Tensor | None = None, upside_down: Tensor | None = None
) -> Float[Tensor, "image channel {size} {size}"]:
    """Cut `box` (top, left, height, width; `[image, 4]`) from each image and resize it to `size` x `size`.

    Args:
        images, box, size: as said.
        mirrored: `[image]`, who is mirrored left to right; None: nobody.
        upside_down: `[image]`, who is mirrored top to bottom; None: nobody.
    """
    height, width = images.shape[2:]
    rows = resize_matrix(box[:, 0], box[:, 2], height, size, upside_down)
    columns = resize_matrix(box[:, 1], box[:, 3], width, size, mirrored)
    return apply_separable(images, rows, columns)


def gaussian_blur(images: Pixels, sigma: Tensor) -> Pixels:
    """Blur each image with its own sigma (pixels), borders reflected; laid out in planes.

    Kernel of a tenth of the side, odd, as in SimCLR (arXiv 2002.05709, appendix A).
    """
    num_images, channels, height, width = images.shape
    # Every channel of every image is a channel of one large image, with a kernel of its own.
    num = channels * num_images
    planes = images.movedim(1, 0).reshape(1, num, height, width)
    kernel, radius = _gaussian(sigma, width, channels)
    planes = F.conv2d(F.pad(planes, (radius, radius, 0, 0), "reflect"), kernel[:, :, None, :], groups=num)
    kernel, radius = _gaussian(sigma, height, channels)
    planes = F.conv2d(F.pad(planes, (0, 0, radius, radius), "reflect"), kernel[:, :, :, None], groups=num)
    return planes.view(channels, num_images, height, width).movedim(0, 1)


def _gaussian(sigma: Tensor, side: int, channels: int) -> tuple[Float[Tensor, "channel_image 1 tap"], int]:
    """Kernels along an axis of so many pixels, of the channels' images one after another; and their radius."""
    radius = max(1, round(side * 0.1) // 2)
    offset = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (offset / sigma[:, None]) ** 2)
    return (kernel / kernel.sum(dim=1, keepdim=True)).repeat(channels, 1)[:, None], radius


def affine(
    images: Pixels, rotation: Tensor, zoom: Tensor, shift: Tensor, size: int, mirrored: Tensor | None = None,
    upside_down: Tensor | None = None,
) -> Float[Tensor, "image channel {size} {size}"]:  # fmt: skip
    """Rotate (degrees), zoom and shift (down, right; share of the side) each image, then mirror it.

    Black outside, bilinear. `mirrored` says who is mirrored left to right, `upside_down` top to bottom; None: nobody.
    """
    angle = rotation * (math.pi / 180)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    # The map from result to source coordinates, both -1..1: undo the shift, then rotation and zoom.
    move_y, move_x = 2 * shift[:, 0], 2 * shift[:, 1]
    theta = torch.stack(
        [
            torch.stack([cos, -sin, -(cos * move_x - sin * move_y)], dim=1),
            torch.stack([sin, cos, -(sin * move_x + cos * move_y)], dim=1),
        ],
        dim=1,
    )
    if mirrored is not None:
        theta[:, :, 0] *= 1 - 2 * mirrored[:, None].float()
    if upside_down is not None:
        theta[:, :, 1] *= 1 - 2 * upside_down[:, None].float()
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def resize_shorter(image: Float[Tensor, "image channel _ _"], size: int) -> Float[Tensor, "image channel _ _"]:
    """Resize so that the shorter side has `size` pixels, antialiased."""
    height, width = image.shape[2:]
    shorter = min(height, width)
    if shorter == size:
        return image
    # The longer side is cut off to whole pixels, as torchvision's Resize does.
    target = [height * size // shorter, width * size // shorter]
    return F.interpolate(image, size=target, mode="bilinear", antialias=True, align_corners=False)


def centre_crop(image: Float[Tensor, "image channel _ _"], size: int) -> Float[Tensor, "image channel size size"]:
    """Cut the central square of `size` pixels."""
    height, width = image.shape[2:]
    # Rounded as torchvision's CenterCrop does.
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[:, :, top : top + size, left : left + size]
