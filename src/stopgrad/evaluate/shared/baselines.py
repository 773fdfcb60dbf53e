"""Features to evaluate, and those to compare them with: the network's before training, and raw pixels."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cache.store import ImageStore
from stopgrad.data.sources import ImageSource
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.features import Features, Network, features_of, num_not_finite, settle_batchnorm
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import DataError
from stopgrad.evaluate.shared.splits import LabelledSplits
from stopgrad.loader.preprocess import Preprocess, plain_pixels
from stopgrad.reporter import Reporter
from stopgrad.weights.spec import EncoderSpec

PIXEL_SIZE = 32
_BEFORE = {"start": "as it started", "untrained": "untrained"}


@dataclass(frozen=True)
class _Variant:
    """One way from images to features."""

    name: str
    words: str
    """What it does, for people who wait."""
    network: Network
    preprocess: Preprocess
    """What the network takes."""


def fresh_network(spec: EncoderSpec, seed: int) -> nn.Module:
    """The network of an encoder as it begins: random weights, a function of the seed alone; on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return spec.build()


def untrained_like(encoder: Encoder, images: ImageSource, seed: int, device: torch.device) -> nn.Module | None:
    """The encoder's network with random weights, its BatchNorm statistics settled on the images, in eval mode.

    None for a network of the caller's own, whose initialisation is unknown.
    """
    if encoder.spec is None:
        return None
    network = fresh_network(encoder.spec, seed)
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    preprocess = encoder.preprocess
    store = ImageStore(images, preprocess.shortest, kept=range(len(images)), pixels_are=preprocess.pixels)
    settle_batchnorm(network, network, store, preprocess, device)
    return network


def before_training(
    encoder: Encoder, run: RunDir | None, images: ImageSource, seed: int, device: torch.device
) -> tuple[str, nn.Module] | None:  # fmt: skip
    """The network before training and what it is: `start`, as a run kept what it started from, or `untrained_like`.

    None for a network of the caller's own, whose initialisation is unknown.
    """
    if run is not None and run.start_file.is_file():
        start: nn.Module = load_encoder(run.start_file).backbone
        return "start", start.to(device)
    untrained = untrained_like(encoder, images, seed, device)
    return None if untrained is None else ("untrained", untrained)


def feature_variants(
    encoder: Encoder, run: RunDir | None, splits: LabelledSplits, device: str, *, batch_size: int = 0,
    precision: str = "auto", baselines: bool = True, seed: int = 0, centred: bool = True, reporter: Reporter,
) -> Iterator[tuple[str, Features, Features | None]]:  # fmt: skip
    """Features of both sides, one variant after another.

    Only one is held in memory, if the caller drops it before the next; `pixels` become `pixels_centred` in place.

    Args:
        encoder, splits, device: what is embedded, and where.
        run: the encoder's, where it has one.
        batch_size: images a forward pass; 0: chosen for the device.
        precision: what the networks compute in, as the setting `precision`.
        baselines: whether there are others than `trained`.
        seed: of the untrained network's weights.
        centred: whether `pixels_centred` is a variant, for classifiers to which a common shift makes a difference.
        reporter: told of progress.

    Yields:
        name (`trained`, then with `baselines`: `start` or `untrained`, `pixels`, `pixels_centred`), training features,
        test features (None where there is one set only).

    Raises:
        DataError: no image can be read, or features are not finite.
    """
    backbone, place = encoder.placed(device)
    trained = _Variant("trained", "embedding", backbone, encoder.preprocess)
    yield trained.name, *_both(trained, splits, place, batch_size, precision, reporter, encoder.name)
    if not baselines:
        return
    if (before := before_training(encoder, run, splits.train, seed, place)) is not None:
        name, network = before
        variant = _Variant(name, f"embedding by the network {_BEFORE[name]}", network, encoder.preprocess)
        yield variant.name, *_both(variant, splits, place, batch_size, precision, reporter, encoder.name)
    side = min(encoder.preprocess.size, PIXEL_SIZE)
    plain = plain_pixels(encoder.preprocess, side)
    pixels = _Variant("pixels", "reading raw pixels", nn.Flatten(), plain)
    train, test = _both(pixels, splits, place, batch_size, precision, reporter, encoder.name)
    yield pixels.name, train, test
    if not centred:
        return
    mean = train.vectors.mean(dim=0)
    for features in (train, test):
        if features is not None:
            features.vectors.sub_(mean)
    yield "pixels_centred", train, test


def _both(
    variant: _Variant, splits: LabelledSplits, device: torch.device, batch_size: int, precision: str,
    reporter: Reporter, encoder_name: str,
) -> tuple[Features, Features | None]:  # fmt: skip
    def features(source: ImageSource, which: str) -> Features:
        found = features_of(
            variant.network, variant.preprocess, source, device, batch_size=batch_size, precision=precision,
            progress=lambda done, total: reporter.progress(f"{variant.words} {which}", done, total),
        )  # fmt: skip
        if num := num_not_finite(found.vectors):
            raise DataError(
                f"{encoder_name}, {variant.name}: the features of {num:,} of {len(found):,} {which} hold NaN or "
                "infinite numbers, so that nothing can be evaluated: stopgrad check looks for the cause."
            )
        return found

    if splits.test is None:
        return features(splits.train, "images"), None
    return features(splits.train, "training images"), features(splits.test, "test images")
