"""The image files of a folder, listed again only when a folder has changed since.

Adding, removing and renaming a file change the time of its folder, so a kept listing is right as long as each folder
has the time it had. A file that is changed in place changes no folder: sizes and times of all files are asked for when
their key is made (`files_key`).
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stopgrad.caching import AUTO, cache_root
from stopgrad.data.place import IMAGE_SUFFIXES, is_image
from stopgrad.data.shared.names import FileNames, Packed

LEAST_KEPT = 10_000
"""Fewer images are listed in a moment."""
MOST_KEPT = 32
SETTLED_NS = 2 * 10**9
"""Some file systems count whole seconds, or two: what was changed just now may change again unseen."""
VERSION = 1
FOLDER = "listings"


def list_images(root: str) -> FileNames:
    """Image files at or below `root`, sorted; hidden ones left out, links followed, each folder once.

    Where no file has the suffix of an image, DICOM files of any name count, as scanners write them.

    Of 10,000 images and more the listing is kept in the cache folder (`$STOPGRAD_CACHE`, else the user's).
    """
    cache = cache_root(AUTO)
    if cache is None:
        return _found(root)[0]
    # What counts as an image is part of it.
    digest = hashlib.sha256(os.fsencode(os.path.abspath(root)) + repr((VERSION, sorted(IMAGE_SUFFIXES))).encode())
    file = cache / FOLDER / f"{digest.hexdigest()[:24]}.npz"
    found = _read(file, root)
    if found is None:
        began = time.time_ns()
        found, walk = _found(root)
        settled = all(max(times) < began - SETTLED_NS for *times, _ in walk.states)
        if len(found) >= LEAST_KEPT and walk.is_sure and settled:
            _write(file, found, walk)
    return found


@dataclass
class _Walk:
    """The folders at and below a root, as they are found."""

    root: str
    dicom: bool = False
    """Whether files count by what is in them, and not by their suffix."""
    folders: list[str] = field(default_factory=list)
    """Relative to the root, the root itself an empty text."""
    states: list[list[int]] = field(default_factory=list)
    """Of each folder, when its names and when anything of it changed, and its number on the disk."""
    counts: list[int] = field(default_factory=list)
    """Runs of files of one folder: how many, and in `run_of` the folder."""
    run_of: list[int] = field(default_factory=list)
    is_sure: bool = True
    """Whether the states tell every change: what a link leads to changes without the folder that the link is in."""

    def images(self) -> Iterator[bytes]:
        """The images' own names, in the order of their paths."""
        seen: set[str] = set()
        # Of each folder that is not done, its number and what is still to come of it.
        open_folders = self._enter("", seen)
        while open_folders:
            number, entries = open_folders[-1]
            for name, is_folder in entries:
                if is_folder:
                    open_folders += self._enter(os.path.join(self.folders[number], name), seen)
                    break
                if self.run_of and self.run_of[-1] == number:
                    self.counts[-1] += 1
                else:
                    self.run_of.append(number)
                    self.counts.append(1)
                yield os.fsencode(name)
            else:
                open_folders.pop()

    def _enter(self, folder: str, seen: set[str]) -> list[tuple[int, Iterator[tuple[str, bool]]]]:
        path = os.path.join(self.root, folder) if folder else self.root
        if (real := os.path.realpath(path)) in seen:
            return []
        seen.add(real)
        try:
            # Before its names are read, so that a change meanwhile shows.
            stat = os.stat(path)
            found, linked = _scan(path, _is_dicom if self.dicom else _is_image)
        except OSError:
            self.is_sure = False
            return []
        self.is_sure = self.is_sure and not linked
        self.states.append(_state(stat))
        self.folders.append(folder)
        return [(len(self.folders) - 1, iter(found))]


def _state(stat: os.stat_result) -> list[int]:
    # Programs that copy folders set the first of the times back; nobody can set the second.
    return [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _found(root: str) -> tuple[FileNames, _Walk]:
    found, walk = _walked(root, dicom=False)
    return (found, walk) if len(found) else _walked(root, dicom=True)


def _walked(root: str, *, dicom: bool) -> tuple[FileNames, _Walk]:
    walk = _Walk(root, dicom)
    names = Packed.of(walk.images())
    folder_of = np.repeat(np.array(walk.run_of, dtype=np.int32), np.array(walk.counts, dtype=np.int64))
    return FileNames(root, walk.folders, folder_of, names), walk


def _is_image(entry: os.DirEntry[str]) -> bool:
    return is_image(entry.name)


def _is_dicom(entry: os.DirEntry[str]) -> bool:
    try:
        with open(entry.path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _scan(path: str, counts: Callable[[os.DirEntry[str]], bool]) -> tuple[list[tuple[str, bool]], bool]:
    """Images and folders in a folder, sorted: name, whether it is a folder; and whether one of them is a link."""
    found, linked = [], False
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            is_folder = entry.is_dir()
            if is_folder or counts(entry):
                found.append((name, is_folder))
                linked = linked or entry.is_symlink()
    found.sort(key=lambda named: os.path.normcase(named[0]))
    return found, linked


def _read(file: Path, root: str) -> FileNames | None:
    """The listing as it was kept; None if there is none, or a folder has changed since."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            folders = [os.fsdecode(name) for name in Packed(kept["folders"].tobytes(), kept["folder_ends"])]
            for folder, state in zip(folders, kept["states"].tolist(), strict=True):
                stat = os.stat(os.path.join(root, folder) if folder else root)
                if _state(stat) != state:
                    return None
            names = Packed(kept["names"].tobytes(), kept["ends"])
            found = FileNames(root, folders, kept["folder_of"], names)
        os.utime(file)
    # Whatever a damaged file raises: there is a new listing then.
    except Exception:
        return None
    return found


def _write(file: Path, found: FileNames, walk: _Walk) -> None:
    """Keep a listing, and remove those not used for longest; without disk space or rights, do without."""
    folders = Packed.of(os.fsencode(folder) for folder in found.folders)
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as out:
                np.savez(
                    out, folders=_as_bytes(folders), folder_ends=folders.ends, states=np.array(walk.states),
                    folder_of=found.folder_of, names=_as_bytes(found.names), ends=found.names.ends,
                )  # fmt: skip
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
        kept = sorted(file.parent.glob("*.npz"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in kept[MOST_KEPT:]:
            old.unlink(missing_ok=True)
    except OSError:
        return


def _as_bytes(packed: Packed) -> np.ndarray:
    return np.frombuffer(packed.buffer, dtype=np.uint8)
