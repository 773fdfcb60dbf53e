import io
import struct
import sys

import numpy as np
import pytest
from formats import as_uint16, dicom, geotiff, npy, pattern, pillow, tiff
from PIL import Image

from stopgrad.data.decode import decode
from stopgrad.data.pixels import PixelFormat, UnreadableImageError
from stopgrad.data.readers import raw as raw_module
from stopgrad.data.readers.raw import read_raw

GREY16 = PixelFormat(1, 16)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_16_bits_are_kept(rng):
    values = rng.integers(0, 65536, (9, 7), dtype=np.uint16)
    for data in (pillow(Image.fromarray(values), "PNG"), tiff(values), npy(values), values):
        assert (decode(data, pixels=GREY16)[..., 0] == values).all()


def test_16_bit_colour_pngs(rng):
    import imagecodecs

    values = rng.integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    assert (decode(imagecodecs.png_encode(values), pixels=PixelFormat(3, 16)) == values).all()


def test_a_value_range_is_black_and_white():
    values = np.array([[-100.0, 0.0], [50.0, 200.0]], dtype=np.float32)
    found = decode(values, pixels=PixelFormat(1, 16, (0.0, 100.0)))[..., 0]
    assert found.tolist() == [[0, 0], [32768, 65535]]
    assert decode(values, pixels=PixelFormat(1, 8, (0.0, 100.0)))[..., 0].tolist() == [[0, 0], [128, 255]]


def test_large_numbers_keep_their_differences():
    values = np.array([[2**30, 2**30 + 10]], dtype=np.int64)
    assert decode(values, pixels=PixelFormat(1, 16, (2**30, 2**30 + 20))).ravel().tolist() == [0, 32768]


def test_dicom_is_rescaled_and_windowed():
    stored = np.array([[0, 424], [1024, 2024]], dtype=np.uint16)
    # Hounsfield units -1024, -600, 0, 1000; a window of 0 to 400.
    data = dicom(stored, intercept=-1024, window=(200.5, 401))
    raw = read_raw(data)
    assert raw.values[..., 0].tolist() == [[-1024, -600], [0, 1000]]
    assert raw.own_range == (0.0, 400.0)
    assert decode(data, pixels=GREY16)[..., 0].tolist() == [[0, 0], [0, 65535]]
    wide = decode(data, pixels=PixelFormat(1, 16, (-1024.0, 1000.0)))[..., 0]
    assert wide.tolist() == [[0, round(424 / 2024 * 65535)], [round(1024 / 2024 * 65535), 65535]]
    # What is low in MONOCHROME1 is bright.
    inverted = decode(dicom(stored, inverted=True), pixels=PixelFormat(1, 16, (0.0, 2024.0)))[..., 0]
    assert inverted[0, 0] == 65535
    assert inverted[1, 1] == 0
    # As eight-bit RGB too.
    assert decode(data).tolist()[1][1] == [255, 255, 255]


def test_no_data_is_the_smallest_value_there_is(rng):
    values = pattern(rng, 4) + 1
    raw = read_raw(geotiff(values.copy()))
    assert raw.values.shape == (24, 24, 4)
    assert raw.values.min() >= 1
    assert (raw.values[:3, :3] == raw.values[3:, 3:].min()).all() or raw.values[:3, :3].max() == raw.values.min()


def test_pages_of_a_tiff(rng):
    pages = rng.integers(0, 65536, (3, 8, 6), dtype=np.uint16)
    data = tiff(pages, photometric="minisblack")
    assert (read_raw(data).values[..., 0] == pages[0]).all()
    assert (read_raw(data, "channels").values == pages.transpose(1, 2, 0)).all()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_bands_of_a_tiff(rng, planar):
    values = rng.integers(0, 256, (8, 6, 5), dtype=np.uint8)
    stored = values if planar == "contig" else values.transpose(2, 0, 1)
    data = tiff(stored, photometric="minisblack", planarconfig=planar)
    assert (decode(data, pixels=PixelFormat(5, 8)) == values).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_are_turned_upright_as_pillow_does(rng, orientation):
    values = rng.integers(0, 256, (8, 6), dtype=np.uint8)
    data = tiff(values, photometric="minisblack", extratags=[(274, "H", 1, orientation, True)])
    assert (read_raw(data).values[..., 0] == decode(data)[..., 0]).all()


def test_images_are_reduced_channel_by_channel(rng):
    values = (pattern(rng, 5, side=64) * 255).astype(np.uint8)
    found = decode(values, shortest=16, pixels=PixelFormat(5, 8))
    assert found.shape == (16, 16, 5)
    for channel in range(5):
        alone = Image.fromarray(values[..., channel]).resize((16, 16), Image.Resampling.BILINEAR, reducing_gap=2.0)
        assert np.abs(found[..., channel].astype(int) - np.asarray(alone)).max() <= 1


def test_grey_and_colour_become_each_other(rng):
    grey = rng.integers(0, 65536, (4, 4), dtype=np.uint16)
    assert (decode(grey, pixels=PixelFormat(3, 16)) == grey[..., None]).all()
    colour = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    luma = np.asarray(Image.fromarray(colour).convert("L"))
    assert np.abs(decode(colour, pixels=PixelFormat(1, 8))[..., 0].astype(int) - luma).max() <= 1
    # What is transparent is white.
    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    assert (decode(pillow(Image.fromarray(clear), "PNG"), pixels=PixelFormat(1, 16)) == 65535).all()


def with_nan(kind=np.float32):
    values = np.zeros((4, 4), dtype=kind)
    values[1, 2] = np.nan
    return values


@pytest.mark.parametrize(
    ("data", "pixels", "message"),
    [
        (npy(with_nan()), GREY16, "NaN"),
        (tiff(with_nan()), GREY16, "NaN"),
        (npy(np.zeros((4, 4, 5), np.uint8)), PixelFormat(4, 8), "5 channels, not 4"),
        (np.full((4, 4), -7, dtype=np.int16), GREY16, "Give value_range"),
        (npy(np.zeros((2, 3, 4, 5))), GREY16, "needs numbers"),
        (npy(np.zeros((0, 4))), GREY16, "0 x 4"),
        (npy(np.zeros((4, 4), complex)), GREY16, "complex"),
        (npy(np.zeros((40, 40)))[:200], GREY16, "reshape|read|EOF"),
        (dicom(as_uint16(np.ones((8, 8))))[:400], GREY16, "DICOM"),
        (dicom(as_uint16(np.ones((8, 8))))[:-30], GREY16, "DICOM"),
        (tiff(np.zeros((40, 40), np.uint16))[:500], GREY16, "TIFF|known format"),
        (b"II*\0 and nothing", GREY16, "TIFF"),
    ],
)
def test_what_is_damaged_is_unreadable(data, pixels, message):
    with pytest.raises(UnreadableImageError, match=message):
        decode(data, pixels=pixels)


def test_pickles_are_not_run():
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    data = np.array([[Evil(), Evil()]], dtype=object)
    buffer = io.BytesIO()
    np.save(buffer, data, allow_pickle=True)
    with pytest.raises(UnreadableImageError, match=r"pickle|object"):
        decode(buffer.getvalue())


@pytest.mark.parametrize("kind", ["tiff", "dicom"])
def test_bombs_are_refused_before_they_go_off(monkeypatch, kind):
    monkeypatch.setattr(raw_module, "MOST_VALUES", 1000)
    values = np.zeros((200, 200), np.uint16)
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        decode(tiff(values, compression="zlib") if kind == "tiff" else dicom(values), pixels=GREY16)


def test_a_tiff_of_a_kilobyte_that_claims_200_million_values(monkeypatch):
    data = tiff(np.zeros((12, 12), np.uint16))
    height = struct.pack("<HHII", 257, 4, 1, 12)
    assert data.count(height) == 1
    # Found by fuzzing: it took half a minute and 9 GB.
    with pytest.raises(UnreadableImageError, match="decodes to 201 million values"):
        decode(data.replace(height, struct.pack("<HHII", 257, 4, 1, 0x01_00_00_0C)), pixels=GREY16)


@pytest.mark.parametrize(
    ("module", "data", "message"),
    [
        ("pydicom", dicom(np.ones((4, 4), np.uint16)), r"stopgrad\[dicom\]"),
        (
            "tifffile",
            tiff(np.zeros((8, 8, 7), np.uint16), photometric="minisblack", planarconfig="contig"),
            r"stopgrad\[geo\]",
        ),
    ],
)
def test_what_is_missing_is_named(monkeypatch, module, data, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnreadableImageError, match=message):
        decode(data, pixels=PixelFormat(1, 16))


def test_grey_tiffs_of_16_bits_need_no_more_than_pillow(monkeypatch, rng):
    values = rng.integers(0, 65536, (8, 6), dtype=np.uint16)
    data = tiff(values)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert (decode(data, pixels=GREY16)[..., 0] == values).all()
