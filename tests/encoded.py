"""Small encoded images that are told by how bright they are, and what a source says of them."""

import io

from PIL import Image

from stopgrad.data.decode import decode


def png(value, size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def save(path, value=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(value, size))
    return path


def shades(source):
    return [int(decode(source.read(i))[0, 0, 0]) for i in range(len(source))]


def names(source):
    return [source.name(i) for i in range(len(source))]


def labels(source):
    """Of each image, checked to be the same all at once."""
    from stopgrad.data.sources import all_labels

    found = [source.label(i) for i in range(len(source))]
    assert all_labels(source).tolist() == found
    return found


def classes(source):
    """The name of each image's class."""
    return [None if label < 0 else source.class_names[label] for label in labels(source)]
