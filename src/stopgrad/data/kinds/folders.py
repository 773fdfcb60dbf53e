"""Folders of image files, nested by class or flat."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from stopgrad.data.sources import UNLABELLED, Splits, files_key
from stopgrad.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".npy",
        ".dcm",
        ".dicom",
    }
)
TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")


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
        return files_key(self.paths)


def open_folder(root: Path) -> Splits:
    """Images below a folder, nested by class or flat, with `train/` and `test/` inside or not."""
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
