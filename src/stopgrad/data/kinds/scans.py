"""The scans of handwritten digits that come with scikit-learn: as they are, or scattered."""

import math

import numpy as np
from jaxtyping import UInt8

from stopgrad.data.place import DIGITS, SCATTERED_DIGITS, scikit_name
from stopgrad.data.sources import ArraySource, Splits

SIDE = 16
"""Of a scattered scan, in pixels; the scans themselves have 8."""
MOST_DEGREES = 20.0
SCALES = (1.0, 1.6)
ROOM = 0.9
"""Of the way to the edge that a digit's middle may go, for the part of its scan that it fills."""


def open_scans(text: str = "") -> Splits:
    """`sklearn:digits`, also for an empty text, or `sklearn:scattered-digits`: 1,437 training images and 360 to test.

    The split is the same for both: a scan that is tested was never trained on, in either form.

    Raises:
        ConfigError: another name.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    name = scikit_name(text) if text else DIGITS
    digits = load_digits()
    # Ink comes in 17 grades, 0 to 16.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    if name == SCATTERED_DIGITS:
        images = scattered(images)
    train, test = train_test_split(np.arange(len(images)), test_size=360, random_state=0, stratify=digits.target)
    names = [str(n) for n in digits.target_names]
    labels = digits.target.tolist()
    both = [ArraySource(images[i], [labels[j] for j in i], names, "digit") for i in (np.sort(train), np.sort(test))]
    return Splits(name, *both)


def scattered(scans: UInt8[np.ndarray, "image height width"], side: int = SIDE) -> UInt8[np.ndarray, "image side side"]:
    """Each scan enlarged, turned and put somewhere in a larger image, by a generator of its own: as digits in a photo.

    Pixels then say little about which digit it is; a network that is to ignore place, angle and size has to learn it.
    """
    from scipy import ndimage

    middle = (scans.shape[-1] - 1) / 2
    out = np.empty((len(scans), side, side), np.uint8)
    for index, scan in enumerate(scans):
        random = np.random.default_rng((0, index))
        angle, scale = math.radians(random.uniform(-MOST_DEGREES, MOST_DEGREES)), random.uniform(*SCALES)
        room = side / 2 - scale * ROOM * scans.shape[-1] / 2
        centre = (side - 1) / 2 + random.uniform(-room, room, 2)
        cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
        inverse = np.array([[cosine, -sine], [sine, cosine]])
        placed = ndimage.affine_transform(
            scan.astype(np.float64), inverse, middle - inverse @ centre, (side, side), order=1
        )
        out[index] = np.clip(placed.round(), 0, 255)
    return out
