"""Outputs of networks on plain images: in eval mode, without augmentation, in bounded memory."""

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stopgrad.cache.store import ImageStore, first_skipped
from stopgrad.data.decode import Progress, in_order
from stopgrad.data.prefetch import prepared_ahead
from stopgrad.data.sources import ImageSource
from stopgrad.errors import ConfigError, DataError
from stopgrad.hardware import autocast, choose_precision, keep_freed_memory, plain_batch_size, undivided_operations
from stopgrad.loader.preprocess import Preprocess, plain_batches

# Enough for BatchNorm's statistics to settle.
SETTLING_IMAGES = 2000
# Of the images that passes side by side take at once; larger batches pass one after another.
SIDE_BY_SIDE_BYTES = 256 * 2**20
# Batches that are read and preprocessed before the network asks for them.
READ_AHEAD = 2
Network = Callable[[Tensor], Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Features:
    """Features of images, with what the images are called and labelled."""

    vectors: Float[Tensor, "image dim"]
    """float32, on the CPU, not normalised."""
    labels: Int[Tensor, "image"]
    """Index into `class_names`, or -1."""
    names: Sequence[str]
    """Path or row of each image."""
    class_names: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Name -> reason of each image that could not be read; it has no row."""
    positions: Sequence[int] = ()
    """Row -> index in the source. Names may be the same twice: of images in memory, in each split."""

    def __len__(self) -> int:
        return len(self.vectors)


def check_batch_size(batch_size: int) -> None:
    """Raise `ConfigError` for a number of images a forward pass that is below 0."""
    if batch_size < 0:
        raise ConfigError(f"batch_size = {batch_size}: must be at least 1, or 0 to choose for the device.")


def outputs_in_order(
    network: Network, store: ImageStore, preprocess: Preprocess, positions: Sequence[int] | None,
    device: torch.device, *, batch_size: int = 0, first_batch: int = 0, precision: str = "auto",
) -> Generator[tuple[list[int], tuple[Tensor, ...]], None, None]:  # fmt: skip
    """Outputs of a network on plain images batch by batch, with the positions of the images they belong to.

    The next batches are read, decoded and preprocessed while the network computes. On a CPU with batches for all cores
    every core passes batches of its own through the network, which is then called by several threads at once.

    Args:
        network: in eval mode, on the device; returns a tensor or several.
        store: the images; those that turn out unreadable are left out and noted in its `skipped`.
        preprocess: what the network takes.
        positions: which images, in this order; None: all.
        device: where the network is.
        batch_size: images a forward pass; 0: chosen for the device.
        first_batch: where to begin, for work that was stopped: the batches are cut as if from the first.
        precision: what the network computes in, as the setting `precision`.

    Yields:
        Positions, and for each output a tensor on the CPU, in float32 whatever the precision. Close the generator where
        it is left before its end: it holds threads.

    Raises:
        ConfigError: a negative batch size, or no such precision.
    """
    check_batch_size(batch_size)
    batch_size = batch_size or plain_batch_size(device, preprocess.size)
    precision = choose_precision(precision, device)
    num_images = len(store) if positions is None else len(positions)

    def passed(batch: tuple[list[int], Tensor]) -> tuple[list[int], tuple[Tensor, ...]]:
        positions_read, images = batch
        with torch.inference_mode(), autocast(device, precision):
            result = network(images.to(device, memory_format=torch.channels_last))
        return positions_read, tuple(_ordinary(t) for t in (result if isinstance(result, tuple) else (result,)))

    def batches() -> Generator[tuple[list[int], Tensor], None, None]:
        plain = plain_batches(store, preprocess, positions, batch_size=batch_size, first_batch=first_batch)
        return prepared_ahead(plain, READ_AHEAD if at_once > 1 else 1)

    at_once = _passes_at_once(device, num_images, batch_size, preprocess.size)
    keep_freed_memory()
    if at_once == 1:
        with closing(batches()) as ready:
            yield from map(passed, ready)
        return
    with undivided_operations(), closing(batches()) as ready, ThreadPoolExecutor(at_once) as pool:
        yield from in_order(pool, passed, ready, ahead=2 * at_once)


def _passes_at_once(device: torch.device, num_images: int, batch_size: int, image_size: int) -> int:
    """How many batches pass through the network side by side; 1: one after another, each on all cores.

    Whether work goes on where it was stopped makes no difference: the bits may depend on it.
    """
    if device.type != "cpu":
        return 1
    cores, num_batches = torch.get_num_threads(), -(-num_images // batch_size)
    fits = cores * min(batch_size, num_images) * 3 * image_size**2 * 4 <= SIDE_BY_SIDE_BYTES
    return cores if fits and num_batches > cores // 2 else 1


def _ordinary(output: Tensor) -> Tensor:
    """A copy in float32 on the CPU: what inference mode made can be neither trained on nor changed in place."""
    return torch.empty(output.shape).copy_(output)


def extract(
    network: Network, store: ImageStore, preprocess: Preprocess, positions: Sequence[int] | None,
    device: torch.device, *, batch_size: int = 0, precision: str = "auto", progress: Progress | None = None,
) -> tuple[list[int], list[Tensor]]:  # fmt: skip
    """As `outputs_in_order`, gathered: the positions read, and each output `[image ...]`, held in memory once.

    `progress` is called with (images done, images in all).

    Raises:
        ConfigError: the network does not return one row an image.
    """
    kept: list[int] = []
    outputs: list[Tensor] = []
    total = len(store) if positions is None else len(positions)
    with closing(
        outputs_in_order(network, store, preprocess, positions, device, batch_size=batch_size, precision=precision)
    ) as batches:
        for positions_read, output in batches:
            start, num = len(kept), len(positions_read)
            if not outputs:
                outputs = [t.new_empty((total, *t.shape[1:])) for t in output]
            for rows, part in zip(outputs, output, strict=True):
                if part.shape != (num, *rows.shape[1:]):
                    raise ConfigError(
                        f"the network returned {tuple(part.shape)} for {num} images: needs {(num, *rows.shape[1:])}, a "
                        "row an image."
                    )
                rows[start : start + num] = part
            kept += positions_read
            if progress is not None:
                progress(min(total, len(kept) + len(store.skipped)), total)
    if progress is not None:
        progress(total, total)
    return kept, [rows[: len(kept)] for rows in outputs]


def features_of(
    network: Network, preprocess: Preprocess, source: ImageSource, device: torch.device, *, batch_size: int = 0,
    strict: bool = False, precision: str = "auto", progress: Progress | None = None,
) -> Features:  # fmt: skip
    """Features of all readable images of a source, in their order; images are decoded as they are needed.

    Args:
        network: normalised images to features, in eval mode, on the device.
        preprocess: what the network takes.
        source: the images.
        device: where the network is.
        batch_size: images a forward pass; 0: chosen for the device.
        strict: refuse unreadable images instead of leaving them out.
        precision: what the network computes in, as the setting `precision`.
        progress: called with (images done, images in all).

    Raises:
        ConfigError: a negative batch size, or no such precision.
        DataError: no image can be read, or one cannot and `strict` is set.
    """
    store = ImageStore(
        source, preprocess.shortest, kept=range(len(source)), strict=strict, pixels_are=preprocess.pixels
    )
    kept, outputs = extract(
        network, store, preprocess, None, device, batch_size=batch_size, precision=precision, progress=progress
    )
    if not kept:
        name, reason = first_skipped(source, store.skipped)
        raise DataError(
            f"none of {len(source)} images can be read; the first: {name}: {reason}.", topic="unreadable-images"
        )
    labels = torch.tensor([source.label(i) for i in kept], dtype=torch.int64)
    return Features(outputs[0], labels, [source.name(i) for i in kept], source.class_names, store.skipped, kept)


def num_not_finite(vectors: Float[Tensor, "image dim"]) -> int:
    """How many images' features hold NaN or an infinite number."""
    # In blocks: isfinite makes a copy of what it is asked.
    return sum(int((~block.isfinite().all(dim=1)).sum()) for block in vectors.split(8192))


def settle_batchnorm(
    module: nn.Module, network: Network, store: ImageStore, preprocess: Preprocess, device: torch.device
) -> None:
    """Set an untrained network's BatchNorm statistics to those of plain images, in float32.

    As built, they say mean 0 and variance 1, and eval-mode features are nearly constant: a straw man beside which any
    training would look good.

    Args:
        module: whose statistics are set; in eval mode afterwards.
        network: what is called with the images: the module, or a method of it.
        store, preprocess, device: the images, and how and where the network takes them.
    """
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()
            # The average over all batches.
            part.momentum = None
    module.train()
    positions = store.spread(SETTLING_IMAGES)
    # Not by `extract`: the statistics are gathered batch by batch, and need not lose digits.
    with torch.no_grad(), closing(plain_batches(store, preprocess, positions, batch_size=256)) as batches:
        for _, images in batches:
            network(images.to(device, memory_format=torch.channels_last))
    module.eval()
