"""What evaluations prepare alike: encoder, run, precision, device, and the words of the protocol."""

from pathlib import Path

import torch
from torch import Tensor

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.load import load_encoder
from stopgrad.evaluate.shared.baselines import PIXEL_SIZE
from stopgrad.evaluate.shared.splits import LabelledSplits
from stopgrad.hardware import check_precision, choose_device, choose_precision
from stopgrad.weights.options import place_of


def opened(encoder: str | Path | Encoder) -> tuple[Encoder, RunDir | None]:
    """The encoder, and its run folder where it was given as one."""
    if isinstance(encoder, Encoder):
        return encoder, None
    run = RunDir(place_of(str(encoder)))
    return load_encoder(encoder), run if run.is_run else None


def requested_precision(precision: str | None, run: RunDir | None) -> str:
    """What an evaluation computes features in, as the setting `precision`; None: as the run did, else `auto`.

    Raises:
        ConfigError: no such precision.
    """
    if precision is None:
        return run.read_config().training.precision if run is not None else "auto"
    check_precision(precision)
    return precision


def precision_for(precision: str | None, run: RunDir | None, device: str) -> str:
    """The same on a device: `fp32` or `bf16`."""
    return choose_precision(requested_precision(precision, run), choose_device(device))


def pixel_words(encoder: Encoder, baselines: bool) -> str:
    """How images come to the network, for a protocol."""
    p = encoder.preprocess
    words = f"shorter side {p.resize}, centre {p.size} x {p.size}"
    side = min(p.size, PIXEL_SIZE)
    return f"{words}; raw pixels at {side} x {side}" if baselines else words


def unlabelled_words(splits: LabelledSplits) -> str:
    """How many images have no label, for a protocol; empty where all have one."""
    num = splits.num_unlabelled
    return f"{num:,} image{'s' if num > 1 else ''} without a label left out" if num else ""


def solver_device(device: str, vectors: Tensor) -> torch.device:
    """Where a classifier is fitted to features: on a CUDA device with room for them and their copy, else the CPU."""
    place = choose_device(device)
    if place.type == "cuda":
        # What torch keeps for the next network counts as taken.
        torch.cuda.empty_cache()
        if 4 * vectors.nbytes <= torch.cuda.mem_get_info(place)[0]:
            return place
    return torch.device("cpu")
