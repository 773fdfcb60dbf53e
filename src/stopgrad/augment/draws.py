"""The random parameters of views: a pure function of (seed, epoch, image, view).

Nothing depends on the batch an image falls in, the worker that reads it or where a run was interrupted. The
generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), counter-based and vectorised over images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from stopgrad.settings import Augmentation

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Each parameter keeps its own slot, so that switching one augmentation on or off moves no other.
_CROP_ATTEMPTS = 10
_AREA = slice(0, _CROP_ATTEMPTS)
_ASPECT = slice(_CROP_ATTEMPTS, 2 * _CROP_ATTEMPTS)
(_TOP, _LEFT, _FLIP, _JITTER, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE, _GRAY, _BLUR, _SIGMA, _ROTATION, _ZOOM,
 _SHIFT_Y, _SHIFT_X) = range(2 * _CROP_ATTEMPTS, 2 * _CROP_ATTEMPTS + 15)  # fmt: skip
_ORDER = slice(2 * _CROP_ATTEMPTS + 15, 2 * _CROP_ATTEMPTS + 19)
_VERTICAL_FLIP, _TURN, _QUARTERS = range(2 * _CROP_ATTEMPTS + 19, 2 * _CROP_ATTEMPTS + 22)
_NUM_SLOTS = 2 * _CROP_ATTEMPTS + 22
_OF_CHANNELS = 2**32
_LOG_ASPECT = np.log(4 / 3)


@dataclass(frozen=True)
class ViewDraws:
    """What was drawn for one view of each image of a batch; every field has one row an image."""

    box: np.ndarray
    """Crop as int64 (top, left, height, width), pixels."""
    flip: np.ndarray
    """Whether mirrored left to right."""
    jitter: np.ndarray
    """Whether colours are jittered."""
    factors: np.ndarray
    """float32 brightness, contrast and saturation factors and the hue shift."""
    order: np.ndarray
    """Order of the four: `order[i, 0]` comes first."""
    gray: np.ndarray
    """Whether turned grey."""
    sigma: np.ndarray
    """float32 sigma of the blur in pixels; 0: none."""
    rotation: np.ndarray
    """float32 degrees, counter-clockwise."""
    zoom: np.ndarray
    """float32 factor by which the content grows."""
    shift: np.ndarray
    """float32 shift of the content (down, right), as a share of the side."""
    gains: np.ndarray
    """float32 `[image, channel, 2]` brightness and contrast factors of channels that are no colours; of three, none."""
    vertical_flip: np.ndarray
    """Whether mirrored top to bottom."""
    quarters: np.ndarray
    """int64 quarter turns counter-clockwise, 0 to 3, after the mirroring."""

    def __getitem__(self, images: slice) -> "ViewDraws":
        """Those of some of the images."""
        return ViewDraws(**{field.name: getattr(self, field.name)[images] for field in fields(self)})

    def __len__(self) -> int:
        return len(self.flip)

    @staticmethod
    def join(parts: Sequence["ViewDraws"]) -> "ViewDraws":
        """The rows of several, one after another."""
        names = [field.name for field in fields(ViewDraws)]
        return ViewDraws(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def draw_view(
    augmentation: Augmentation, *, seed: int, epoch: int, images: np.ndarray, view: int, sizes: np.ndarray
) -> ViewDraws:
    """Draw one view's parameters for each image.

    Args:
        augmentation: ranges and probabilities.
        seed, epoch, view: what the draws depend on beside the image.
        images: identity of each image `[image]` (its index in the data set).
        sizes: `[image, 2]` height and width in pixels.
    """
    a = augmentation
    u = uniforms(seed, epoch, images, view, _NUM_SLOTS)

    def within(slot: int, low: float, high: float) -> np.ndarray:
        return (low + u[:, slot] * (high - low)).astype(np.float32)

    factors = [within(s, 1 - r, 1 + r) for s, r in
               ((_BRIGHTNESS, a.brightness), (_CONTRAST, a.contrast), (_SATURATION, a.saturation))]  # fmt: skip
    sigma = within(_SIGMA, a.blur_sigma_min, a.blur_sigma_max)
    return ViewDraws(
        box=_crop_boxes(a, u, sizes),
        flip=u[:, _FLIP] < a.flip_probability,
        jitter=u[:, _JITTER] < a.jitter_probability,
        factors=np.stack([*factors, within(_HUE, -a.hue, a.hue)], axis=1),
        order=u[:, _ORDER].argsort(axis=1),
        gray=u[:, _GRAY] < a.gray_probability,
        sigma=np.where(u[:, _BLUR] < a.blur_probability, sigma, np.float32(0)),
        rotation=within(_ROTATION, -a.rotation_degrees, a.rotation_degrees),
        zoom=within(_ZOOM, 1 - a.zoom, 1 + a.zoom),
        shift=np.stack([within(_SHIFT_Y, -a.shift, a.shift), within(_SHIFT_X, -a.shift, a.shift)], axis=1),
        gains=_gains(a, seed, epoch, images, view),
        vertical_flip=u[:, _VERTICAL_FLIP] < a.vertical_flip_probability,
        quarters=np.where(u[:, _TURN] < a.turn_probability, 1 + (3 * u[:, _QUARTERS]).astype(np.int64), 0),
    )


def _gains(a: Augmentation, seed: int, epoch: int, images: np.ndarray, view: int) -> np.ndarray:
    channels = len(a.mean) if len(a.mean) != 3 else 0
    # Views of their own, so that they share no number with the other draws.
    u = uniforms(seed, epoch, images, view + _OF_CHANNELS, 2 * channels).reshape(len(images), channels, 2)
    reach = np.array([a.brightness, a.contrast])
    return (1 + (2 * u - 1) * reach).astype(np.float32)


def uniforms(seed: int, epoch: int, images: np.ndarray, view: int, num: int) -> np.ndarray:
    """`num` numbers in [0, 1) an image, float64 `[image, num]`: a function of the arguments alone."""
    with np.errstate(over="ignore"):
        state = np.zeros(len(images), dtype=np.uint64)
        for word in (seed, epoch, view):
            state = _mix(state + np.uint64(word % 2**64) + _GOLDEN)
        state = _mix(state + images.astype(np.uint64) * _GOLDEN)
        counter = np.arange(1, num + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(state[:, None] + counter)
    return (bits >> np.uint64(11)) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _crop_boxes(a: Augmentation, u: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Random area and aspect as torchvision's RandomResizedCrop draws them, its fallback included."""
    height, width = sizes[:, :1].astype(np.float64), sizes[:, 1:].astype(np.float64)
    area = height * width * (a.crop_scale_min + u[:, _AREA] * (a.crop_scale_max - a.crop_scale_min))
    aspect = np.exp((2 * u[:, _ASPECT] - 1) * _LOG_ASPECT)
    box_w, box_h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (box_w > 0) & (box_w <= width) & (box_h > 0) & (box_h <= height)
    first = fits.argmax(axis=1)[:, None]
    found = np.take_along_axis(fits, first, axis=1)
    # None of the attempts fits: the largest centred box of an allowed aspect.
    fallback_w = np.minimum(width, np.rint(height * (4 / 3)))
    fallback_h = np.minimum(height, np.rint(width / (3 / 4)))
    box_w = np.where(found, np.take_along_axis(box_w, first, axis=1), fallback_w)
    box_h = np.where(found, np.take_along_axis(box_h, first, axis=1), fallback_h)
    top = np.where(found, np.floor(u[:, _TOP : _TOP + 1] * (height - box_h + 1)), (height - box_h) // 2)
    left = np.where(found, np.floor(u[:, _LEFT : _LEFT + 1] * (width - box_w + 1)), (width - box_w) // 2)
    return np.concatenate([top, left, box_h, box_w], axis=1).astype(np.int64)
