"""Names of many files in little memory: an object for each folder, and none for a file."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np


class Packed(Sequence[bytes]):
    """Short texts one after another in one buffer: some 30 bytes each instead of 90."""

    def __init__(self, buffer: bytes, ends: np.ndarray) -> None:
        self.buffer, self.ends = buffer, ends

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> "Packed":
        """Pack texts."""
        buffer, ends = bytearray(), array("q")
        for text in texts:
            buffer += text
            ends.append(len(buffer))
        return cls(bytes(buffer), np.array(ends, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        if not 0 <= index < len(self.ends):
            raise IndexError(index)
        return self.buffer[self.ends[index - 1] if index else 0 : self.ends[index]]

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self.ends.tolist():
            yield self.buffer[start:end]
            start = end

    def part(self, start: int, stop: int) -> "Packed":
        """Those from `start` to before `stop`."""
        first = int(self.ends[start - 1]) if start else 0
        ends = self.ends[start:stop]
        return Packed(self.buffer[first : int(ends[-1]) if len(ends) else first], ends - first)


class FileNames(Sequence[str]):
    """Paths of files: a folder's path, once for each folder, and the file's own name."""

    def __init__(
        self, root: str, folders: Sequence[str], folder_of: np.ndarray, names: Packed, *, first: int = 0,
        are_paths: bool = False,
    ) -> None:  # fmt: skip
        self.root, self.folders, self.folder_of, self.names = root, folders, folder_of, names
        """`folders` are relative to `root`, the root itself an empty text; `folder_of` int32 `[file]`."""
        self.first = first
        """The first one's place, where these are a part."""
        self.are_paths = are_paths
        """Whether a name may be a path itself."""
        top = "" if root == os.curdir else root
        self._paths = [os.path.join(top, folder) if folder else top for folder in folders]

    @classmethod
    def of(cls, paths: Sequence[str]) -> "tuple[FileNames, list[int]]":
        """Sort relative paths by their parts; also where each stood."""
        order = sorted(range(len(paths)), key=lambda index: paths[index].split(os.sep))
        places: dict[str, int] = {}
        split = [os.path.split(paths[index]) for index in order]
        folder_of = np.array([places.setdefault(folder, len(places)) for folder, _ in split], dtype=np.int32)
        names = Packed.of(os.fsencode(name) for _, name in split)
        return cls("", list(places), folder_of, names), order

    @classmethod
    def in_order(cls, root: str, names: Sequence[str]) -> "FileNames":
        """Paths relative to a root, or absolute, in the order given."""
        packed = Packed.of(os.fsencode(name) for name in names)
        return cls(root, [""], np.zeros(len(packed), dtype=np.int32), packed, are_paths=True)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return os.path.join(self._paths[self.folder_of[index]], os.fsdecode(self.names[index]))

    def __iter__(self) -> Iterator[str]:
        for folder, name in zip(self.folder_of.tolist(), self.names, strict=True):
            yield os.path.join(self._paths[folder], os.fsdecode(name))

    def absolute(self, start: int, stop: int) -> list[bytes]:
        """The absolute paths of some, as the file system has them."""
        packed, numbers = self.names.part(start, stop), self.folder_of[start:stop].tolist()
        if self.are_paths:
            paths = (os.path.join(self._paths[n], os.fsdecode(name)) for n, name in zip(numbers, packed, strict=True))
            return [os.fsencode(os.path.abspath(path)) for path in paths]
        folders = {n: os.path.join(os.fsencode(os.path.abspath(self._paths[n])), b"") for n in set(numbers)}
        return [folders[number] + name for number, name in zip(numbers, packed, strict=True)]

    def below(self, folder: str) -> "FileNames":
        """Those at or below a folder: one after another, as paths are sorted by their parts."""
        if not folder:
            return self
        inside = np.array([f == folder or f.startswith(folder + os.sep) for f in self.folders], dtype=np.bool_)
        rows = np.flatnonzero(inside[self.folder_of])
        start, stop = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        # Of folders elsewhere only the number stays.
        folders = [
            f[len(folder) :].lstrip(os.sep) if is_in else "" for f, is_in in zip(self.folders, inside, strict=True)
        ]
        names = self.names.part(start, stop)
        return FileNames(os.path.join(self.root, folder), folders, self.folder_of[start:stop], names, first=start)

    def first_parts(self) -> list[str]:
        """Of each folder, its first part below the root; empty for the root itself."""
        return [folder.split(os.sep, 1)[0] for folder in self.folders]

    def used_folders(self) -> list[int]:
        """The folders that hold files themselves."""
        return np.unique(self.folder_of).tolist()
