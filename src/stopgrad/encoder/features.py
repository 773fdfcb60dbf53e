"""Outputs of networks on plain images: in eval mode, without augmentation, in float32, in bounded memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stopgrad.data.preprocess import Preprocess, plain_batches
from stopgrad.data.reading import Progress
from stopgrad.data.sources import ImageSource
from stopgrad.data.store import ImageStore, first_skipped
from stopgrad.errors import ConfigError, DataError
from stopgrad.hardware import plain_batch_size

# Enough for BatchNorm's statistics to settle.
SETTLING_IMAGES = 2000
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
        raise ConfigError(f"batch_size = {batch_size}: must be at least 1, or 0 for what the device is fast at.")


def outputs_in_order(
    network: Network, store: ImageStore, preprocess: Preprocess, positions: Sequence[int] | None,
    device: torch.device, *, batch_size: int = 0, first_batch: int = 0,
) -> Iterator[tuple[list[int], tuple[Tensor, ...]]]:  # fmt: skip
    """Outputs of a network on plain images batch by batch, with the positions of the images they belong to.

    Args:
        network: in eval mode, on the device; returns a tensor or several.
        store: the images; those that turn out unreadable are left out and noted in its `skipped`.
        preprocess: what the network takes.
        positions: which images, in this order; None: all.
        device: where the network is.
        batch_size: images a forward pass; 0: what the device is fast at.
        first_batch: where to begin, for work that was stopped: the batches are cut as if from the first.
    """
    check_batch_size(batch_size)
    batch_size = batch_size or plain_batch_size(device, preprocess.size)
    for positions_read, images in plain_batches(
        store, preprocess, positions, batch_size=batch_size, first_batch=first_batch
    ):
        with torch.no_grad():
            result = network(images.to(device, memory_format=torch.channels_last))
        yield positions_read, tuple(t.float().cpu() for t in (result if isinstance(result, tuple) else (result,)))


def extract(
    network: Network, store: ImageStore, preprocess: Preprocess, positions: Sequence[int] | None,
    device: torch.device, *, batch_size: int = 0, progress: Progress | None = None,
) -> tuple[list[int], list[Tensor]]:  # fmt: skip
    """As `outputs_in_order`, gathered: the positions read, and each output `[image ...]`, held in memory once.

    `progress` is called with (images done, images in all).

    Raises:
        ConfigError: the network does not return one row an image.
    """
    kept: list[int] = []
    outputs: list[Tensor] = []
    total = len(store) if positions is None else len(positions)
    for positions_read, output in outputs_in_order(
        network, store, preprocess, positions, device, batch_size=batch_size
    ):
        start, num = len(kept), len(positions_read)
        if not outputs:
            outputs = [t.new_empty((total, *t.shape[1:])) for t in output]
        for rows, part in zip(outputs, output, strict=True):
            if part.shape != (num, *rows.shape[1:]):
                raise ConfigError(
                    f"the network returned {tuple(part.shape)} for {num} images: needs {(num, *rows.shape[1:])}, a row "
                    "an image."
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
    strict: bool = False, progress: Progress | None = None,
) -> Features:  # fmt: skip
    """Features of all readable images of a source, in their order; images are decoded as they are needed.

    Args:
        network: normalised images to features, in eval mode, on the device.
        preprocess: what the network takes.
        source: the images.
        device: where the network is.
        batch_size: images a forward pass; 0: what the device is fast at.
        strict: refuse unreadable images instead of leaving them out.
        progress: called with (images done, images in all).

    Raises:
        DataError: no image can be read, or one cannot and `strict` is set.
    """
    store = ImageStore(source, preprocess.shortest, kept=list(range(len(source))), strict=strict)
    kept, outputs = extract(network, store, preprocess, None, device, batch_size=batch_size, progress=progress)
    if not kept:
        name, reason = first_skipped(source, store.skipped)
        raise DataError(f"none of {len(source)} images can be read; the first: {name}: {reason}.")
    labels = torch.tensor([source.label(i) for i in kept], dtype=torch.int64)
    return Features(outputs[0], labels, [source.name(i) for i in kept], source.class_names, store.skipped, kept)


def num_not_finite(vectors: Float[Tensor, "image dim"]) -> int:
    """How many images' features hold NaN or an infinite number."""
    # In blocks: isfinite makes a copy of what it is asked.
    return sum(int((~block.isfinite().all(dim=1)).sum()) for block in vectors.split(8192))


def settle_batchnorm(
    module: nn.Module, network: Network, store: ImageStore, preprocess: Preprocess, device: torch.device
) -> None:
    """Set an untrained network's BatchNorm statistics to those of plain images.

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
    positions = np.linspace(0, len(store) - 1, min(len(store), SETTLING_IMAGES)).astype(int).tolist()
    extract(network, store, preprocess, positions, device, batch_size=256)
    module.eval()
