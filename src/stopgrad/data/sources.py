"""Where images come from: one small protocol, and a class for each format.

To add a format: a class with the members of `ImageSource`, and one branch in `open_images`.
"""

import bisect
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stopgrad.data.place import check_there
from stopgrad.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")
UNLABELLED = -1
DIGITS = "scikit-learn's digits"


@runtime_checkable
class ImageSource(Protocol):
    """Images in a fixed order.

    A source may have one member more, `cache_key() -> str | None`: a text that is another one whenever the images are
    (such as the paths, sizes and times of their files). Images of a source with a key are decoded once and cached.
    """

    class_names: Sequence[str]
    """Names of the classes; empty where there are no labels."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> "bytes | np.ndarray":
        """The encoded file, or decoded uint8 pixels `[height, width]` or `[height, width, 3]`."""
        ...

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        ...

    def name(self, index: int) -> str:
        """What to call the image in a message: its path, or its row."""
        ...


@dataclass(frozen=True)
class Splits:
    """The training images of a data set, and its test images where it has any."""

    name: str
    train: ImageSource
    test: ImageSource | None = None


class ArraySource:
    """Images that are in memory already."""

    def __init__(self, images: np.ndarray, labels: Sequence[int] = (), class_names: Sequence[str] = (),
                 name: str = "image") -> None:  # fmt: skip
        self.images, self.labels, self.class_names, self._name = images, labels, class_names, name

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> np.ndarray:
        """Pixels, uint8."""
        return np.asarray(self.images[index])

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        return int(self.labels[index]) if len(self.labels) else UNLABELLED

    def name(self, index: int) -> str:
        """Its place in the array."""
        return f"{self._name} {index}"


class ListSource:
    """Pillow images, encoded files or uint8 arrays of any size, in a sequence."""

    class_names: Sequence[str] = ()

    def __init__(self, images: Sequence[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Any:
        """As it stands in the sequence."""
        return self.images[index]

    def label(self, index: int) -> int:
        """None."""
        return UNLABELLED

    def name(self, index: int) -> str:
        """Its place in the sequence."""
        return f"image {index}"


class FileSource:
    """Image files."""

    def __init__(self, paths: Sequence[Path], labels: Sequence[int] = (), class_names: Sequence[str] = ()) -> None:
        self.paths, self.labels, self.class_names = paths, labels, class_names

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        return self.paths[index].read_bytes()

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        return self.labels[index] if self.labels else UNLABELLED

    def name(self, index: int) -> str:
        """The path."""
        return str(self.paths[index])

    def cache_key(self) -> str:
        """Paths, sizes and times of the files."""
        return _listing(self.paths)


class ParquetSource:
    """Parquet files in the Hugging Face image layout: a struct column with `bytes`, and perhaps a label column.

    The encoded images are held in memory.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        # Before reading: files that are replaced in between are others.
        self._key = _listing(paths)
        try:
            schema = pq.read_schema(paths[0])
            image_column, label_column = _image_and_label_columns(schema)
            columns = [c for c in (image_column, label_column) if c is not None]
            tables = [pq.read_table(path, columns=columns, memory_map=True) for path in paths]
            table = pa.concat_tables(tables, promote_options="permissive")
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{_join(paths)} cannot be read as parquet: {error}.") from error
        if image_column is None:
            raise DataError(
                f"{_join(paths)} has no image column: needs a column of structs with 'bytes', or of binary; it has "
                f"{', '.join(f'{f.name}: {f.type}' for f in schema)}."
            )
        self._key += image_column
        self._chunks: list[Any] = [
            c.field("bytes") if pa.types.is_struct(c.type) else c for c in table[image_column].chunks if len(c)
        ]
        self._starts = np.cumsum([0] + [len(c) for c in self._chunks]).tolist()
        self._stem = paths[0].name if len(paths) == 1 else f"{paths[0].parent.name}/*.parquet"
        self.class_names: Sequence[str]
        self._labels, self.class_names = _read_labels(table, schema, label_column)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int) -> bytes:
        """The encoded image; empty where the row has none."""
        chunk = bisect.bisect_right(self._starts, index) - 1
        return self._chunks[chunk][index - self._starts[chunk]].as_py() or b""

    def label(self, index: int) -> int:
        """Index into `class_names`, or -1."""
        return int(self._labels[index]) if self._labels is not None else UNLABELLED

    def take_class_names(self, class_names: Sequence[str]) -> None:
        """Number the labels as another split does, by name; a class that it does not know becomes unlabelled."""
        place = {name: i for i, name in enumerate(class_names)}
        if self._labels is not None:
            number = np.array([place.get(name, UNLABELLED) for name in self.class_names] + [UNLABELLED])
            self._labels = number[self._labels]
        self.class_names = class_names

    def name(self, index: int) -> str:
        """File and row."""
        return f"{self._stem} row {index}"

    def cache_key(self) -> str:
        """Paths, sizes and times of the files, and the column."""
        return self._key


class Subset:
    """Some images of another source, in the order given."""

    def __init__(self, source: ImageSource, indices: Sequence[int]) -> None:
        self.source, self.indices, self.class_names = source, indices, source.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> "bytes | np.ndarray":
        """As the source has it."""
        return self.source.read(int(self.indices[index]))

    def label(self, index: int) -> int:
        """As the source has it."""
        return self.source.label(int(self.indices[index]))

    def name(self, index: int) -> str:
        """As the source has it."""
        return self.source.name(int(self.indices[index]))


def open_images(path: str | Path) -> Splits:
    """Open a data set.

    Args:
        path: empty for scikit-learn's handwritten digits; a folder of images, nested by class or flat, with
            `train/` and `test/` inside or not; a parquet file in the Hugging Face image layout, or a folder of them.

    Raises:
        DataError: nothing there, or nothing in it that is an image.
    """
    if str(path) == "":
        return _digits()
    check_there(path)
    root = Path(path).expanduser()
    if root.is_file():
        return Splits(root.stem, ParquetSource([root]))
    tables = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if tables:
        return _parquet_folder(root, tables)
    return _image_folder(root)


def _digits() -> Splits:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Ink comes in 17 grades, 0 to 16.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    train, test = train_test_split(np.arange(len(images)), test_size=360, random_state=0, stratify=digits.target)
    names = [str(n) for n in digits.target_names]
    labels = digits.target.tolist()
    both = [ArraySource(images[i], [labels[j] for j in i], names, "digit") for i in (np.sort(train), np.sort(test))]
    return Splits(DIGITS, *both)


def _parquet_folder(root: Path, tables: list[Path]) -> Splits:
    train = [p for p in tables if p.name.lower().startswith(TRAIN_NAMES)]
    if not train:
        return Splits(root.name, ParquetSource(tables))
    train_source = ParquetSource(train)
    for name in TEST_NAMES:
        test = [p for p in tables if p.name.lower().startswith(name)]
        if test:
            test_source = ParquetSource(test)
            test_source.take_class_names(train_source.class_names)
            return Splits(root.name, train_source, test_source)
    return Splits(root.name, train_source)


def _image_folder(root: Path) -> Splits:
    inside = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    train = next((inside[n] for n in TRAIN_NAMES if n in inside), None)
    test = next((inside[n] for n in TEST_NAMES if n in inside), None)
    if train is None or (test is None and _is_one_of_several_classes(train, inside)):
        return Splits(root.name or str(root), _read_folder(root))
    train_source = _read_folder(train)
    if test is None or not (test_files := _image_files(test)):
        return Splits(root.name, train_source)
    return Splits(root.name, train_source, _label_by_folder(test, test_files, train_source.class_names))


def _is_one_of_several_classes(train: Path, inside: Mapping[str, Path]) -> bool:
    """Whether `train` stands beside other folders of images, as a class does: bus, car, train."""
    return any(folder != train and _image_files(folder) for folder in inside.values())


def _read_folder(root: Path) -> FileSource:
    files = _image_files(root)
    if not files:
        raise DataError(
            f"{str(root)!r} holds no images: looked in it and below for {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    classes = sorted({p.relative_to(root).parts[0] for p in files if p.parent != root})
    nested = all(p.parent != root for p in files) and len(classes) > 1
    return _label_by_folder(root, files, classes if nested else ())


def _label_by_folder(root: Path, files: list[Path], class_names: Sequence[str]) -> FileSource:
    """Labels by the first folder below the root; a folder that is no known class gives -1."""
    index = {name: i for i, name in enumerate(class_names)}
    labels = [index.get(p.relative_to(root).parts[0], UNLABELLED) for p in files] if class_names else []
    return FileSource(files, labels, class_names)


def _image_files(root: Path) -> list[Path]:
    """Image files at or below `root`, sorted; hidden ones left out, links followed, each folder once."""
    found: list[Path] = []
    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
        found += [
            Path(folder, n) for n in names if not n.startswith(".") and os.path.splitext(n)[1].lower() in IMAGE_SUFFIXES
        ]
    return sorted(found)


def _image_and_label_columns(schema: Any) -> tuple[str | None, str | None]:
    import pyarrow as pa

    def holds_images(field: Any) -> bool:
        if pa.types.is_struct(field.type):
            return field.type.get_field_index("bytes") >= 0
        return pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)

    image = next((f.name for f in schema if holds_images(f)), None)
    class_columns = [n for n, f in _huggingface_features(schema).items() if f.get("_type") == "ClassLabel"]
    named = [n for n in ("label", "labels", "class", "fine_label", "target") if n in schema.names]
    label = next((n for n in class_columns + named if n in schema.names), None)
    return image, label


def _huggingface_features(schema: Any) -> dict[str, Any]:
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: f for name, f in features.items() if isinstance(f, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _read_labels(table: Any, schema: Any, column: str | None) -> tuple[np.ndarray | None, list[str]]:
    import pyarrow as pa

    if column is None:
        return None, []
    kind = table.schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None, []
    values = table[column].to_pylist()
    names = _huggingface_features(schema).get(column, {}).get("names")
    if not isinstance(names, list) or not all(v is None or isinstance(v, int) for v in values):
        known = sorted({v for v in values if v is not None})
        place = {v: i for i, v in enumerate(known)}
        values, names = [place.get(v) for v in values], [str(v) for v in known]
    labels = np.array([UNLABELLED if v is None else v for v in values], dtype=np.int64)
    if len(names) < 2 or labels.max(initial=UNLABELLED) == UNLABELLED:
        return None, []
    if labels.max() >= len(names) or labels.min() < UNLABELLED:
        raise DataError(f"label column {column!r} goes from {labels.min()} to {labels.max()}, with {len(names)} names.")
    return labels, names


def _listing(paths: Sequence[Path]) -> str:
    """A digest of the files' paths, sizes and times."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = os.stat(path)
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            state = "not there"
        digest.update(os.fsencode(os.path.abspath(path)) + f"\0{state}\n".encode())
    return digest.hexdigest()


def _join(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
