"""Image files of every format, channel count and depth, made for the tests."""

import io

import numpy as np
from PIL import Image

SMALL = {
    "image_size": 16, "backbone": "resnet10_16", "stem": "small", "projector_width": 16, "projection_dim": 16,
    "predictor_width": 8, "batch_size": 8, "steps": 3, "devices": 1, "device": "cpu", "init": "random", "knn_k": 5,
}  # fmt: skip


def pattern(rng, channels, side=24):
    """Smooth bright blobs, float `[side, side, channels]` in 0..1, another one a channel."""
    y, x = np.mgrid[:side, :side] / side
    centre = rng.random((channels, 2))
    return np.stack([np.exp(-8 * ((y - cy) ** 2 + (x - cx) ** 2)) for cy, cx in centre], axis=2)


def pillow(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def as_uint8(values):
    return np.rint(values * 255).astype(np.uint8)


def as_uint16(values, white=4095):
    return np.rint(values * white).astype(np.uint16)


def tiff(values, **options):
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def dicom(values, *, window=None, slope=1.0, intercept=0.0, inverted=False):
    """A CT slice of uint16 values `[height, width]`, uncompressed."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.Rows, made.Columns = values.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME1" if inverted else "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 0
    made.RescaleSlope, made.RescaleIntercept = slope, intercept
    if window is not None:
        made.WindowCenter, made.WindowWidth = window
    made.PixelData = values.tobytes()
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def geotiff(values, nodata=-9999):
    """Float bands `[height, width, band]` with a corner of no data."""
    values = values.astype(np.float32)
    values[:3, :3] = nodata
    return tiff(values, planarconfig="separate" if False else "contig", photometric="minisblack",
                extratags=[(42113, "s", 0, str(nodata), True)])  # fmt: skip


# Name, suffix, how to make one of values 0..1 of so many channels, and what it comes to: channels, depth.
FORMATS = {
    "jpeg": (".jpg", 3, lambda v: pillow(Image.fromarray(as_uint8(v)), "JPEG"), (3, 8)),
    "jpeg-grey": (".jpg", 1, lambda v: pillow(Image.fromarray(as_uint8(v)[..., 0]), "JPEG"), (3, 8)),
    "jpeg-cmyk": (".jpg", 3, lambda v: pillow(Image.fromarray(as_uint8(v)).convert("CMYK"), "JPEG"), (3, 8)),
    "webp": (".webp", 3, lambda v: pillow(Image.fromarray(as_uint8(v)), "WEBP"), (3, 8)),
    "bmp": (".bmp", 3, lambda v: pillow(Image.fromarray(as_uint8(v)), "BMP"), (3, 8)),
    "gif": (".gif", 3, lambda v: pillow(Image.fromarray(as_uint8(v)).quantize(64), "GIF"), (3, 8)),
    "png": (".png", 3, lambda v: pillow(Image.fromarray(as_uint8(v)), "PNG"), (3, 8)),
    "png-16": (".png", 1, lambda v: pillow(Image.fromarray(as_uint16(v)[..., 0]), "PNG"), (1, 16)),
    "png-16-rgb": (".png", 3, lambda v: deep_png(as_uint16(v)), (3, 16)),
    "tiff": (".tif", 3, lambda v: tiff(as_uint8(v), photometric="rgb"), (3, 8)),
    "tiff-16": (".tif", 1, lambda v: tiff(as_uint16(v)[..., 0]), (1, 16)),
    "tiff-float": (".tiff", 1, lambda v: tiff((v[..., 0] * 7 - 3).astype(np.float32)), (1, 16)),
    "tiff-5-bands": (".tif", 5, lambda v: tiff(as_uint8(v), photometric="minisblack", planarconfig="contig"), (5, 8)),
    "geotiff-4-float": (".tif", 4, geotiff, (4, 16)),
    "npy-2": (".npy", 2, lambda v: npy(as_uint16(v)), (2, 16)),
    "npy-float": (".npy", 1, lambda v: npy(v[..., 0] * 100), (1, 16)),
    "npy-16-channels": (".npy", 16, lambda v: npy(as_uint8(v)), (16, 8)),
    "dicom": (".dcm", 1, lambda v: dicom(as_uint16(v)[..., 0], slope=1, intercept=-1024, window=(600, 1600)), (1, 16)),
    "dicom-no-window": (".dcm", 1, lambda v: dicom(as_uint16(v)[..., 0], inverted=True), (1, 16)),
}


def deep_png(values):
    import imagecodecs

    return imagecodecs.png_encode(values)


def write_folder(root, name, num=24, seed=0):
    """A folder of `num` files of a format, in two classes."""
    rng = np.random.default_rng(seed)
    suffix, channels, encode, _ = FORMATS[name]
    for i in range(num):
        file = root / f"class{i % 2}" / f"{i:03}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(pattern(rng, channels)))
    return root
