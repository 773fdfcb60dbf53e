"""Zip archives of image files, read in place: nothing is ever extracted."""

import lzma
import os
import stat
import zipfile
import zlib
from functools import partial
from pathlib import Path, PureWindowsPath

import numpy as np

from stopgrad.data.place import is_image
from stopgrad.data.shared.handles import PerProcess
from stopgrad.data.shared.layout import Labelled, divide, step_into
from stopgrad.data.shared.names import FileNames
from stopgrad.data.sources import LabelledSource, Splits, files_key
from stopgrad.errors import DataError

MOST_BYTES = 10**9
"""Of one image: an archive of a few kilobytes can declare any size."""
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
# What is kept of a member; a million of zipfile's own records take most of a gigabyte.
_FIELDS = ("header_offset", "compress_size", "file_size", "CRC", "compress_type", "flag_bits", "external_attr")
_ENCRYPTED = 0x1


class ZipSource(LabelledSource):
    """Images in a zip archive."""

    def __init__(self, archive: "_Archive", found: Labelled) -> None:
        super().__init__(found.labels, found.class_names)
        self._archive, self._files = archive, found.files

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> bytes:
        """The member's bytes.

        Raises:
            OSError: it is damaged, too large, a link, or an archive itself.
        """
        return self._archive.read(self._files.first + index)

    def name(self, index: int) -> str:
        """The archive's path and the member's name."""
        return f"{self._archive.path}/{self._files[index]}"

    def cache_key(self) -> str:
        """Path, size and time of the archive, and where in it the images are."""
        return f"{self._archive.key} {self._files.root}"


def open_zip(path: Path) -> Splits:
    """The images of a zip archive, nested as in a folder; one folder that holds everything is stepped into.

    Archives inside are not opened, and count as unreadable images.

    Raises:
        DataError: no whole archive, an encrypted image, a name that leads out of the archive, or no images.
    """
    archive = _Archive(path)
    if not archive.has_images:
        inside = f", only archives ({archive.files[0]!r}): unpack those" if len(archive.files) else ""
        raise DataError(f"{str(path)!r} holds no images{inside}.", topic="no-images")
    folders = [archive.files.folders[number] for number in archive.files.used_folders()]
    top = step_into(folders)
    below_top = {folder[len(top) :].lstrip(os.sep).split(os.sep, 1)[0] for folder in folders} - {""}

    train, test = divide(top, {n.lower(): os.path.join(top, n) for n in sorted(below_top)}, archive.files.below)
    return Splits(path.name, ZipSource(archive, train), None if test is None else ZipSource(archive, test))


class _Archive:
    """A zip archive: its images, and the archives in it."""

    def __init__(self, path: Path) -> None:
        self.path, self.key = path, files_key([path])
        try:
            with zipfile.ZipFile(path) as archive:
                infos = [info for info in archive.infolist() if not info.is_dir()]
        # A name that begins with a zero byte ends in an IndexError.
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, IndexError) as error:
            raise DataError(f"{str(path)!r} is no whole zip archive ({error}): copy it again.") from error
        for info in infos:
            _check_name(path, info.orig_filename)
        infos = [info for info in infos if _counts(info.orig_filename)]
        self.files, order = FileNames.of([info.orig_filename.replace("/", os.sep) for info in infos])
        self.has_images = any(is_image(os.path.basename(info.orig_filename)) for info in infos)
        if locked := next((info for info in infos if info.flag_bits & _ENCRYPTED), None):
            raise DataError(f"{str(path)!r} is encrypted ({locked.orig_filename!r}): decrypt it first.")
        rows = [[getattr(infos[place], field) for field in _FIELDS] for place in order]
        self._members = np.array(rows, dtype=np.int64).reshape(-1, len(_FIELDS))
        self._opened = PerProcess(partial(_opened, path))

    def read(self, row: int) -> bytes:
        """The bytes of a member."""
        name = self.files[row].replace(os.sep, "/")
        info = zipfile.ZipInfo(name)
        for field, value in zip(_FIELDS, self._members[row].tolist(), strict=True):
            setattr(info, field, value)
        if _is_archive(name):
            raise OSError("an archive inside the archive, which is not opened")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise OSError("a link, which is not followed")
        if info.file_size > MOST_BYTES:
            raise OSError(f"{info.file_size / 1e9:.3g} GB unpacked, more than the {MOST_BYTES / 1e9:g} GB of an image")
        try:
            with self._opened().open(info) as member:
                # No more than is declared, whatever it would unpack to.
                return member.read(info.file_size)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError) as error:
            raise OSError(f"damaged in the archive ({error})") from error


def _opened(path: Path) -> zipfile.ZipFile:
    """The archive, for reading members by records of our own; zipfile locks where several threads read."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise OSError(f"the archive has changed ({error})") from error
    archive.filelist.clear()
    archive.NameToInfo.clear()
    return archive


def _check_name(path: Path, name: str) -> None:
    """Refuse an archive that names files elsewhere: whatever made it meant harm, or was broken."""
    windows = PureWindowsPath(name)
    if name.startswith(("/", "\\")) or windows.drive or ".." in windows.parts or "\0" in name:
        raise DataError(
            f"{str(path)!r} has a member {name!r}, which leads out of the archive: it is not opened. Make it again "
            "with names below one folder."
        )


def _counts(name: str) -> bool:
    *folders, own = name.split("/")
    hidden = any(folder.startswith(".") or folder == "__MACOSX" for folder in folders) or own.startswith(".")
    return not hidden and (is_image(own) or _is_archive(own))


def _is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_SUFFIXES)
