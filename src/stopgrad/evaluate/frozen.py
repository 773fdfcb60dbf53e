"""Features of a frozen backbone, of plain images and of augmented ones."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stopgrad.data.labelled import LabelledViews
from stopgrad.data.loader import Batch
from stopgrad.data.reading import in_order
from stopgrad.hardware import autocast, plain_batch_size, undivided_operations, usable_cores


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
    def __call__(self, images: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image dim"]:
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
