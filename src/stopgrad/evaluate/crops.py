"""The training images of an evaluation: cropped and mirrored at random, their colours as they are."""

from stopgrad.config import Config
from stopgrad.data.cache import ImageCache
from stopgrad.data.preprocess import Preprocess, shortest_of
from stopgrad.data.sources import ImageSource
from stopgrad.data.store import ImageStore, load_images
from stopgrad.reporter import Reporter

CROP_SCALE_MIN = 0.08
"""RandomResizedCrop's own, as in the papers' linear evaluations."""
_FROM_THE_RUN = ("geometry", "rotation_degrees", "zoom", "shift", "flip_probability")


def crops_config(
    preprocess: Preprocess, run_config: Config | None, *, crop_scale_min: float | None, flip: bool | None,
    batch_size: int, precision: str, workers: int, cache: str, seed: int,
) -> Config:  # fmt: skip
    """Settings of the data path, by which training images are cropped, mirrored and put into batches.

    Args:
        preprocess: of the encoder; its size and normalisation are kept.
        run_config: of the run that the encoder is of. Where it turned and shifted whole images, or mirrored none,
            there was a reason in the images, and it is kept to; None: crops and mirroring.
        crop_scale_min: smallest crop as a share of the area; None: 0.08.
        flip: whether to mirror half of the images; None: as the run did.
        batch_size, precision, workers, cache, seed: settings of these names.

    Raises:
        ConfigError: a value out of range.
    """
    given = {} if run_config is None else {name: run_config.flat()[name] for name in _FROM_THE_RUN}
    if flip is not None:
        given["flip_probability"] = 0.5 if flip else 0.0
    return Config().replace(
        **given, image_size=preprocess.size, mean=preprocess.mean, std=preprocess.std, batch_size=batch_size,
        crop_scale_min=CROP_SCALE_MIN if crop_scale_min is None else crop_scale_min, crop_scale_max=1.0,
        jitter_probability=0.0, gray_probability=0.0, blur_probability=0.0, workers=workers, cache=cache, seed=seed,
        precision=precision,
    )  # fmt: skip


def crops_words(config: Config) -> str:
    """What the training images are, for a protocol."""
    a = config.augmentation
    if a.geometry == "affine":
        words = f"turned by up to {a.rotation_degrees:g} degrees, scaled by {a.zoom:.0%}, shifted by {a.shift:.0%}"
    else:
        words = f"random crops of {a.crop_scale_min:.0%} to {a.crop_scale_max:.0%} of the area"
    return f"{words}, {'mirrored' if a.flip_probability else 'not mirrored'}"


def load_crops(source: ImageSource, config: Config, preprocess: Preprocess, reporter: Reporter) -> ImageStore:
    """Decode the training images, or take them from the cache; large enough for crops and for plain images alike.

    Raises:
        DataError: no image can be read.
        ConfigError: a folder for the cache that cannot be used.
    """
    d = config.data
    store = load_images(
        source, shortest=max(shortest_of(config), preprocess.shortest), memory_gb=d.memory_gb, workers=d.workers,
        cache=ImageCache(d.cache, d.cache_gb, say=reporter.say, warn=reporter.warn),
        progress=lambda done, total: reporter.progress("reading images", done, total),
    )  # fmt: skip
    if config.training.batch_size > len(store):
        reporter.warn(f"batch_size = {config.training.batch_size}: there are only {len(store):,} images to train on.")
    return store
