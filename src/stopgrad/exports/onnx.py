"""An ONNX file of any batch size, verified with ONNX Runtime."""

import copy
import io
import json
import logging
import warnings
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad.artifacts.files import write_atomically
from stopgrad.encoder.encoder import Encoder
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.exports.verify import Written, compare, example_images, quoted
from stopgrad.loader.preprocess import Preprocess

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
BATCHES = (1, 3, 8)


class Normalised(nn.Module):
    """A backbone that takes pixels `[image, channels, size, size]` of 8 or 16 bits."""

    scale: Tensor
    shift: Tensor

    def __init__(self, backbone: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.backbone = backbone
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        white = 2**preprocess.pixels.depth - 1
        # As one multiplication and one addition.
        self.register_buffer("scale", (1 / (white * std)).view(-1, 1, 1))
        self.register_buffer("shift", (-mean / std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Features of the images."""
        features: Tensor = self.backbone(images.float() * self.scale + self.shift)
        return features


def write_onnx(encoder: Encoder, path: Path, *, with_preprocess: bool) -> Written:
    """Write a .onnx file with input `images` and output `features`, and compare it at several batch sizes.

    Args:
        encoder: what to export.
        path: the file.
        with_preprocess: take pixels of the right size and normalise them inside, else normalised float32.

    Raises:
        ConfigError: a package is missing.
        CheckpointError: a network that ONNX cannot express.
    """
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise ConfigError(f'ONNX needs {", ".join(missing)}: pip install "stopgrad[onnx]"', topic="missing-package")
    backbone = copy.deepcopy(encoder.backbone).cpu().to(memory_format=torch.contiguous_format)
    module = Normalised(backbone, encoder.preprocess) if with_preprocess else backbone
    program = _program(module.eval(), _inputs(encoder, 2, with_preprocess), str(path))
    program.model.metadata_props["stopgrad.preprocess"] = json.dumps(
        {**asdict(encoder.preprocess), "normalised_inside": with_preprocess}
    )
    write_atomically(path, lambda there: program.save(there, external_data=False))
    difference, scale = _compared(encoder, path, with_preprocess)
    size = encoder.preprocess.size
    kind = f"uint{encoder.preprocess.pixels.depth}" if with_preprocess else "float32"
    load = (
        "import numpy\n"
        "import onnxruntime\n"
        f'session = onnxruntime.InferenceSession({quoted(path)}, providers=["CPUExecutionProvider"])\n'
        f'images = numpy.zeros((2, {len(encoder.preprocess.mean)}, {size}, {size}), dtype="{kind}")\n'
        'features = session.run(["features"], {"images": images})[0]\n'
    )
    takes = (
        f"{kind} pixels and normalises them inside; resize and crop before" if with_preprocess else "normalised images"
    )
    note = f"It takes {takes}. Any number of images at once: tried with {', '.join(map(str, BATCHES))}."
    return Written((path.name,), load, (note,), difference, scale)


def _inputs(encoder: Encoder, num_images: int, with_preprocess: bool) -> Tensor:
    if not with_preprocess:
        return example_images(encoder.preprocess, num_images)
    p, generator = encoder.preprocess, torch.Generator().manual_seed(0)
    noise = torch.randint(0, 2**p.pixels.depth, (num_images, len(p.mean), p.size, p.size), generator=generator)
    return noise.to(torch.uint8 if p.pixels.depth == 8 else torch.uint16)


def _program(module: nn.Module, images: Tensor, origin: str) -> Any:
    """torch's own exporter, without what it prints."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                module, (images,), dynamo=True, input_names=["images"], output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
            )  # fmt: skip
    # It raises errors of its own, of many kinds.
    except Exception as error:
        raise CheckpointError(
            f"{origin}: torch {torch.__version__} cannot express this network in ONNX: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0]}"
        ) from error
    finally:
        logger.setLevel(level)


def _compared(encoder: Encoder, path: Path, with_preprocess: bool) -> tuple[float, float]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    reference = encoder
    if with_preprocess:
        reference = Encoder(Normalised(encoder.backbone, encoder.preprocess).eval(), encoder.preprocess)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])

    found = [compare(reference, run, path, _inputs(encoder, batch, with_preprocess)) for batch in BATCHES]
    return max(d for d, _ in found), max(s for _, s in found)
