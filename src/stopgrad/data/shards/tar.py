"""Tar archives of images, read in place: WebDataset's layout, or files nested by class."""

import json
import os
import tarfile
from array import array
from collections import Counter
from typing import Any, BinaryIO

from stopgrad.data.place import IMAGE_SUFFIXES
from stopgrad.data.shards.index import Entries

ARCHIVES = frozenset({".tar", ".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
LABEL_SUFFIX, JSON_SUFFIX = ".cls", ".json"
JSON_LABELS = ("label", "class")
_MOST_LABEL_BYTES = 1 << 20
_ZEROS = bytes(tarfile.BLOCKSIZE)


def index_tar(file: BinaryIO) -> Entries:
    """Find the images of an archive by its headers.

    Members that follow each other and share their name up to the first dot are one sample: an image, whose label is in
    a `.cls` (a number or a name) or under `label` or `class` in a `.json`. In an archive of images alone each is a
    sample of its own, and its class is the folder it lies in. Names are names only: nothing is extracted. Those that
    lead out of the archive, links, devices and archives inside are passed over and counted.

    Args:
        file: the archive, uncompressed.

    Returns:
        Its whole images; `problem` says what else there was.
    """
    return _Reader(file).read()


class _Reader:
    """One pass over an archive."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.descriptor = file, file.fileno()
        self.size = os.fstat(self.descriptor).st_size
        self.entries = Entries()
        self.passed_over: Counter[str] = Counter()
        # The sample at which the pass stands: its key and label, its first image, and the first called `key.jpg`, not
        # `key.left.jpg`; and whether it has other members.
        self.key: str | None = None
        self.label: str | None = None
        self.first = 0
        self.whole: int | None = None
        self.has_others = False
        # Rows of images beside the first of their sample, and whether names group members, as those of a plain archive
        # of `frame.0001.jpg` do not.
        self.spare = array("q")
        self.groups = False

    def read(self) -> Entries:
        damage = self._walk()
        self._end_sample()
        if not self.groups:
            self._label_by_folder()
        elif self.spare:
            self.passed_over["further images of a sample"] = len(self.spare)
            self._drop_spare()
        told = [damage] if damage else []
        told += [f"passed over {number} {what}" for what, number in self.passed_over.items()]
        self.entries.problem = "; ".join(told)
        return self.entries

    def _walk(self) -> str:
        """Look at all members; what is wrong with the archive, in words."""
        self.file.seek(0)
        if self.file.read(2) == b"\x1f\x8b":
            return "compressed by gzip: unpack it with gunzip, images are read in place"
        self.file.seek(0)
        try:
            archive = tarfile.open(fileobj=self.file, mode="r:", ignore_zeros=False)  # noqa: SIM115 - `file` is the caller's
            at = -1
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]
                # A header that leads backward would be read for ever.
                if member.size < 0 or archive.offset <= at:
                    return f"damaged after {self._so_far()}"
                at = archive.offset
                if member.isreg() and member.offset_data + member.size > self.size:
                    return f"truncated after {self._so_far()}"
                self._take(member)
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            if isinstance(error, tarfile.ReadError) and not self.entries.offsets:
                return f"no tar archive ({error})"
            return f"truncated or damaged after {self._so_far()} ({error})"
        self.file.seek(archive.offset)
        end = self.file.read(tarfile.BLOCKSIZE)
        if end == _ZEROS:
            return ""
        if len(end) < tarfile.BLOCKSIZE:
            return f"without its end mark, perhaps cut off after {self._so_far()}"
        return f"damaged after {self._so_far()}"

    def _so_far(self) -> str:
        return f"{len(self.entries.offsets):,} whole images"

    def _take(self, member: tarfile.TarInfo) -> None:
        name = member.name.removeprefix("./")
        parts = name.split("/")
        if member.isdir() or any(part.startswith(".") and part != ".." for part in parts):
            return
        suffix = os.path.splitext(parts[-1])[1].lower()
        if name.startswith("/") or ".." in parts or "\0" in name:
            self.passed_over["names that lead out of the archive"] += 1
        elif not member.isreg() or member.issparse():
            self.passed_over["links, devices and the like"] += 1
        elif suffix in ARCHIVES:
            self.passed_over["archives inside"] += 1
        else:
            stem, _, extension = parts[-1].partition(".")
            self._add("/".join([*parts[:-1], stem]), "." + extension.lower(), suffix, member, name)

    def _add(self, key: str, extension: str, suffix: str, member: tarfile.TarInfo, name: str) -> None:
        if key != self.key:
            self._end_sample()
            self.key = key
        if suffix in IMAGE_SUFFIXES:
            if self.whole is None and extension in IMAGE_SUFFIXES:
                self.whole = len(self.entries.offsets)
            self.entries.add(member.offset_data, member.size, None, name)
            return
        self.has_others = True
        if extension == LABEL_SUFFIX:
            text = os.pread(self.descriptor, min(member.size, 4096), member.offset_data)
            self.label = text.decode("utf-8", "replace").strip() or None
        elif extension == JSON_SUFFIX and self.label is None and member.size <= _MOST_LABEL_BYTES:
            self.label = _label_in(os.pread(self.descriptor, member.size, member.offset_data))

    def _end_sample(self) -> None:
        rows = range(self.first, len(self.entries.offsets))
        if rows and self.label is not None:
            number = self.entries.classes.setdefault(self.label, len(self.entries.classes))
            for row in rows:
                self.entries.labels[row] = number
        kept = self.first if self.whole is None else self.whole
        self.spare.extend(row for row in rows if row != kept)
        self.groups |= bool(rows) and self.has_others
        self.first, self.whole, self.label, self.has_others = rows.stop, None, None, False

    def _drop_spare(self) -> None:
        kept, spare = Entries(classes=self.entries.classes), set(self.spare)
        start = 0
        for row, end in enumerate(self.entries.name_ends):
            if row not in spare:
                name = self.entries.names[start:end].decode("utf-8", "surrogateescape")
                kept.add(self.entries.offsets[row], self.entries.sizes[row], None, name)
                kept.labels[-1] = self.entries.labels[row]
            start = end
        self.entries = kept

    def _label_by_folder(self) -> None:
        start = 0
        for row, end in enumerate(self.entries.name_ends):
            folders = self.entries.names[start:end].decode("utf-8", "surrogateescape").split("/")[:-1]
            if folders:
                classes = self.entries.classes
                self.entries.labels[row] = classes.setdefault(folders[-1], len(classes))
            start = end


def _label_in(content: bytes) -> str | None:
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    values = [found.get(name) for name in JSON_LABELS] if isinstance(found, dict) else []
    return next((str(v) for v in values if isinstance(v, (int, str)) and not isinstance(v, bool) and str(v)), None)
