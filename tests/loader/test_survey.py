import numpy as np
import pytest
import torch
from formats import FORMATS, SMALL, npy, pattern, write_folder

import stopgrad
from stopgrad.augment import color
from stopgrad.cache.cache import ImageCache
from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.data.pixels import RGB8, PixelFormat
from stopgrad.data.sources import ArraySource, ListSource
from stopgrad.distributed.rank import Rank
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import ConfigError, DataError
from stopgrad.exports.formats import export
from stopgrad.loader.loader import Loader
from stopgrad.loader.preprocess import Preprocess, pixels_of, shown_of
from stopgrad.loader.survey import with_images

SUFFIX = {"timm": ".safetensors", "torchvision": ".pth", "onnx": ".onnx", "safetensors": ".safetensors"}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_eight_bit_images_change_nothing(rng):
    source = ArraySource(rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8))
    config, words = with_images(Config(), (), source)
    assert words is None
    assert config == Config().replace(channels=3, depth=8)
    assert pixels_of(config) == RGB8


def test_deep_images_bring_range_and_statistics(rng):
    values = rng.normal(500, 100, (64, 16, 16, 2)).astype(np.float32)
    values[0, 0, 0, 0] = 1e9  # a broken pixel among thousands
    config, words = with_images(Config(), (), ArraySource(values))
    low, high = config.data.value_range
    assert 100 < low < 300
    assert 700 < high < 900
    assert (config.data.channels, config.data.depth) == (2, 16)
    expected = (np.clip(values, low, high) - low) / (high - low)
    assert config.augmentation.mean == pytest.approx(expected.mean(axis=(0, 1, 2)), abs=1e-3)
    assert config.augmentation.std == pytest.approx(expected.std(axis=(0, 1, 2)), abs=1e-3)
    assert "2 channels, 16 bits" in words
    assert "jittered" in words


def test_a_few_deep_images_among_common_ones_do_not_decide(rng):
    common, deep = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), rng.integers(0, 9000, (8, 8), dtype=np.uint16)
    config, words = with_images(Config(), (), ListSource([common] * 9 + [deep] * 3))
    assert words is None
    assert pixels_of(config) == RGB8
    config, _ = with_images(Config(), (), ListSource([common] * 3 + [deep] * 9))
    assert (config.data.channels, config.data.depth) == (1, 16)


def test_shown_channels_are_checked_for_colours_too(rng):
    source = ArraySource(rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(ConfigError, match="channels 0 to 2"):
        with_images(Config().replace(shown_channels=(0, 1, 3)), {"shown_channels"}, source)


def test_what_was_given_stays(rng):
    source = ArraySource(rng.integers(0, 65536, (20, 8, 8), dtype=np.uint16))
    given = {"channels": 3, "value_range": (0.0, 4095.0), "mean": (0.5,) * 3, "std": (0.2,) * 3}
    config, _ = with_images(Config().replace(**given), given, source)
    assert (config.data.channels, config.data.depth) == (3, 16)
    assert (config.data.value_range, config.augmentation.mean) == ((0.0, 4095.0), (0.5,) * 3)


@pytest.mark.parametrize(
    ("images", "settings", "error", "message"),
    [
        ([np.zeros((8, 8, 4), np.uint8)] * 3 + [np.zeros((8, 8, 6), np.uint8)], {}, DataError, "different channels"),
        ([np.zeros((8, 8, 17), np.uint8)] * 3, {}, DataError, "at most 16"),
        ([np.zeros((8, 8, 5), np.uint8)] * 3, {"channels": 4}, DataError, "5 channels, not 4"),
        (
            [np.zeros((8, 8), np.uint16)] * 3,
            {"mean": (0.1, 0.2), "std": (1.0, 1.0)},
            ConfigError,
            "numbers, the images",
        ),
        ([np.zeros((8, 8, 5), np.uint8)] * 3, {"shown_channels": (0, 1, 5)}, ConfigError, "channels 0 to 4"),
    ],
)
def test_what_does_not_fit_is_said(images, settings, error, message):
    with pytest.raises(error, match=message):
        with_images(Config().replace(**settings), settings, ListSource(images))


def test_images_of_other_channels_are_skipped_and_named(tmp_path):
    data = write_folder(tmp_path / "data", "tiff-5-bands")
    (data / "class0" / "odd.npy").write_bytes(npy(np.zeros((24, 24, 2), np.uint8)))
    run = stopgrad.pretrain(data, out=tmp_path / "run", channels=5, report=False, **SMALL)
    (skipped,) = run.metrics["skipped"]
    assert skipped["name"].endswith("odd.npy")
    assert skipped["reason"] == "2 channels, not 5"


@pytest.mark.parametrize("name", ["png-16", "npy-16-channels", "tiff-5-bands"])
def test_cached_and_in_memory_are_the_same(tmp_path, name):
    source = open_images(write_folder(tmp_path / "data", name)).train
    channels, depth = FORMATS[name][3]
    pixels = PixelFormat(channels, depth, (0.0, 4095.0) if depth == 16 else None)
    cache = ImageCache(str(tmp_path / "cache"), 1.0, say=print, warn=pytest.fail)
    plain = load_images(source, shortest=16, pixels=pixels)
    for _ in range(2):
        kept = load_images(source, shortest=16, pixels=pixels, cache=cache)
        assert kept.entry is not None
        assert kept.stacked.dtype == (torch.uint8 if depth == 8 else torch.uint16)
        assert torch.equal(kept.stacked, plain.stacked)
    # Of another format it is another entry.
    other = load_images(source, shortest=16, pixels=PixelFormat(channels, 24 - depth, (0.0, 9.0)), cache=cache)
    assert other.entry.folder != kept.entry.folder


@pytest.mark.parametrize("side", [24, 140])
@pytest.mark.parametrize("geometry", ["resized_crop", "affine"])
def test_views_of_16_bits_are_those_of_floats(rng, side, geometry):
    # Whole or cut beforehand, with sizes that differ or not: finer than 8 bits could be.
    images = [(pattern(rng, 2, side) * 65535).astype(np.uint16) for _ in range(8)]
    config = Config().replace(
        channels=2, depth=16, mean=(0.0, 0.0), std=(1.0, 1.0), image_size=16, batch_size=8, geometry=geometry,
        jitter_probability=0.0, blur_probability=0.0,
    )  # fmt: skip
    store = load_images(ListSource(images), shortest=200, pixels=PixelFormat(2, 16))
    uneven = load_images(ListSource([*images, images[0][:-1]]), shortest=200, pixels=PixelFormat(2, 16))

    def views(store):
        loader = Loader(store, config, Rank())
        return loader.views(next(loader.batches(0, 1)), torch.device("cpu"))

    found = views(store)
    assert found.shape == (2, 8, 2, 16, 16)
    assert found.min() >= 0
    assert found.max() <= 1
    eighth = (found * 255).round() / 255
    assert (found - eighth).abs().max() > 1e-3
    assert views(uneven).shape == (2, 8, 2, 16, 16)


def test_each_channel_is_jittered_on_its_own(rng):
    images = torch.from_numpy(rng.random((3, 4, 8, 8), dtype=np.float32) / 2)
    gains = torch.ones(3, 4, 2)
    gains[1, 2] = torch.tensor([1.5, 0.5])
    found = color.jitter_intensity(images, gains)
    same = torch.ones(3, 4, dtype=torch.bool)
    same[1, 2] = False
    assert torch.allclose(found[same], images[same])
    bright = images[1, 2] * 1.5
    assert torch.allclose(found[1, 2], bright * 0.5 + bright.mean() * 0.5, atol=1e-6)


def test_draws_of_channels_differ_and_repeat(rng):
    store = load_images(ListSource([np.zeros((8, 8, 5), np.uint8)] * 8), shortest=8, pixels=PixelFormat(5, 8))
    config = Config().replace(channels=5, mean=(0.5,) * 5, std=(0.5,) * 5, image_size=8, batch_size=8)
    first, again = (next(Loader(store, config, Rank()).batches(0, 1)).draws.gains for _ in range(2))
    assert first.shape == (16, 5, 2)
    assert (first == again).all()
    assert len(np.unique(first)) == first.size
    assert np.abs(first - 1).max() <= 0.4


def test_a_picture_is_a_window_about_the_mean():
    shown = shown_of(Preprocess(8, 8, (0.5, 0.1), (0.1, 0.02), PixelFormat(2, 16)))
    assert shown.channels == (0, 0, 0)
    pixels = np.full((2, 2, 2), round(0.5 * 65535), dtype=np.uint16)
    assert (np.abs(shown.picture(pixels).astype(int) - 128) <= 1).all()
    chosen = shown_of(Preprocess(8, 8, (0.5,) * 4, (1.0,) * 4, PixelFormat(4, 8, shown=(3, 2, 0))))
    assert chosen.channels == (3, 2, 0)


@pytest.fixture(scope="module")
def five_bands(tmp_path_factory):
    root = tmp_path_factory.mktemp("bands")
    data = write_folder(root / "data", "tiff-5-bands")
    small = {**SMALL, "backbone": "resnet18", "stem": "standard", "image_size": 32}
    stopgrad.pretrain(data, out=root / "run", report=False, **small)
    return root


@pytest.mark.parametrize("to", ["timm", "torchvision", "onnx", "hub-folder", "safetensors"])
@pytest.mark.filterwarnings("ignore")
def test_every_export_takes_the_channels(five_bands, tmp_path, to):
    written = export(five_bands / "run", to=to, out=tmp_path / f"out{SUFFIX.get(to, '')}")
    if written.max_difference is not None:
        assert written.max_difference <= 1e-3 * written.feature_scale


def test_weights_of_colours_start_a_run_of_other_channels(five_bands, tmp_path):
    rgb = write_folder(tmp_path / "rgb", "png")
    small = {**SMALL, "backbone": "resnet18", "stem": "standard", "image_size": 32, "report": False}
    start = stopgrad.pretrain(rgb, out=tmp_path / "start", **small)
    small = {name: value for name, value in small.items() if name not in ("init", "backbone", "stem")}
    bands = stopgrad.pretrain(five_bands / "data", out=tmp_path / "bands", init=str(tmp_path / "start"), **small)
    before = start.encoder.backbone.conv1.weight
    began = load_encoder(tmp_path / "bands" / "start.safetensors").backbone.conv1.weight
    assert began.shape == (64, 5, 7, 7)
    assert torch.allclose(began[:, 3], before[:, 0] * 3 / 5, atol=1e-6)
    # And a run of five channels starts another of five, statistics and all.
    again = stopgrad.pretrain(five_bands / "data", out=tmp_path / "again", init=str(tmp_path / "bands"), **small)
    assert again.encoder.preprocess.mean == bands.encoder.preprocess.mean


@pytest.mark.slow
def test_two_processes_and_resuming(tmp_path):
    data = write_folder(tmp_path / "data", "geotiff-4-float", num=32)
    small = {**SMALL, "devices": 2, "batch_size": 16, "steps": 6, "report": False, "checkpoint_every_steps": 3}
    whole = stopgrad.pretrain(data, out=tmp_path / "whole", **small)
    with pytest.raises(stopgrad.errors.Interrupted):
        stopgrad.pretrain(data, out=tmp_path / "parts", **small, time_limit_seconds=1e-6)
    stopgrad.pretrain(data, out=tmp_path / "parts", resume=True, time_limit_seconds=0.0)
    parts = load_encoder(tmp_path / "parts").backbone.state_dict()
    for name, tensor in whole.encoder.backbone.state_dict().items():
        assert torch.equal(tensor, parts[name]), name
