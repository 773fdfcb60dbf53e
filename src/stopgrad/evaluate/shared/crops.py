"""The training images of an evaluation: cropped and mirrored at random, their colours as they are."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stopgrad.cache.cache import ImageCache
from stopgrad.cache.store import ImageStore, load_images
from stopgrad.config import Config
from stopgrad.data.decode import in_order
from stopgrad.data.sources import ImageSource
from stopgrad.hardware import autocast, plain_batch_size, undivided_operations, usable_cores
from stopgrad.loader.labelled import LabelledViews
from stopgrad.loader.loader import Batch
from stopgrad.loader.preprocess import Preprocess, settings_of, shortest_of
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
        **given, **settings_of(preprocess), batch_size=batch_size,
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
        progress=lambda done, total: reporter.progress("reading images", done, total), pixels=preprocess.pixels,
    )  # fmt: skip
    if config.training.batch_size > len(store):
        reporter.warn(f"batch_size = {config.training.batch_size}: there are only {len(store):,} images to train on.")
    return store


class FrozenBackbone:
    """A backbone of which only features are wanted: in eval mode, without gradients, in the machine's precision.

    Args:
        backbone: on the device, in eval mode; never changed.
        device: where it is.
        precision: `fp32` or `bf16`.
        image_size: side of the images.
    """

    def __init__(self, backbone: nn.Module, device: torch.device, precision: str, image_size: int) -> None:
        self.backbone, self.device, self.precision = backbone, device, precision
        self.at_once = plain_batch_size(device, image_size)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "image channel size size"]) -> Float[Tensor, "image dim"]:
        """Features in float32, on the device."""
        with autocast(self.device, self.precision):
            return torch.cat([self.backbone(part).float() for part in images.split(self.at_once)])

    def of_views(self, views: LabelledViews, num_steps: int) -> Generator[tuple[Batch, Tensor], None, None]:
        """Features of the augmented images of the first steps, in order, each with its batch.

        On a CPU every core works on batches of its own: small networks are faster so than with each operation split
        among the cores, and the features are the same to the bit however many there are.
        """
        if self.device.type != "cpu":
            for batch in views.batches(0, num_steps):
                yield batch, self(views.views(batch))
            return
        cores = usable_cores()
        with (
            undivided_operations(),
            ThreadPoolExecutor(cores) as pool,
            ThreadPoolExecutor(views.workers) as cutters,
        ):

            def work(step: int) -> tuple[Batch, Tensor]:
                batch = views.load(step, cutters)
                return batch, self(views.views(batch))

            yield from in_order(pool, work, range(num_steps), ahead=2 * cores)
