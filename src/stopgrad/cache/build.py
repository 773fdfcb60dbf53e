"""Decoding a source into an entry of the cache, in parallel and in order."""

import contextlib
import json
import os
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stopgrad.cache.entry import FORMAT, INDEX, JOURNAL, META, PIXELS, USED, Unreadable, crc_of_json, num_values
from stopgrad.cache.eviction import NoRoomError
from stopgrad.data.decode import Progress, UnreadImageError, in_order, read_image
from stopgrad.data.pixels import RGB8, PixelFormat, UnreadableImageError
from stopgrad.data.sources import ImageSource
from stopgrad.errors import DataError


@dataclass(frozen=True)
class Chunk:
    """Some images that stand beside each other in the source, ready to be written."""

    stop: int
    """Index behind the last."""
    shapes: list[tuple[int, int]]
    unreadable: list[Unreadable]
    pixels: bytes


class EntryWriter:
    """An entry that is being built; what an earlier builder finished before it was stopped is taken over.

    Args:
        folder: the entry's; made if need be.
        key: what it is of.
        num_images: in the source.
        layout: "chw" or "hwc"; an earlier builder's goes before.
        pixels: what images are decoded to.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, key: str, num_images: int, layout: str, pixels: PixelFormat = RGB8) -> None:
        self.folder, self.key, self.num_images, self.layout = folder, key, num_images, layout
        self.pixels_are = pixels
        self.shapes: list[tuple[int, int]] = []
        self.unreadable: list[Unreadable] = []
        self.chunks: list[tuple[int, int]] = []
        """Size and checksum of each."""
        self.size = 0
        """Bytes of pixels written."""
        folder.mkdir(exist_ok=True)
        (folder / USED).touch()
        self._pixels = open(folder / PIXELS, "a+b")  # noqa: SIM115 - closed by `close`
        self._journal = open(folder / JOURNAL, "a+b")  # noqa: SIM115
        journal_bytes = self._take_up()
        self._pixels.truncate(self.size)
        self._journal.truncate(journal_bytes)
        if not journal_bytes:
            self._note({"format": FORMAT, "key": key, "num_images": num_images, "layout": layout})

    @property
    def done(self) -> int:
        """Images of the source that are dealt with."""
        return len(self.shapes)

    def add(self, chunk: Chunk) -> None:
        """Write a chunk, which begins where the last one ended."""
        assert chunk.stop == self.done + len(chunk.shapes)
        # Pixels first: what the journal lists is there.
        self._pixels.write(chunk.pixels)
        self._pixels.flush()
        crc = zlib.crc32(chunk.pixels)
        self._note(
            {
                "stop": chunk.stop,
                "shapes": chunk.shapes,
                "unreadable": [[u.index, u.reason, u.transient] for u in chunk.unreadable],
                "size": len(chunk.pixels),
                "crc32": crc,
            }
        )
        self._count(chunk.shapes, chunk.unreadable, len(chunk.pixels), crc)

    def finish(self, about: dict[str, Any]) -> None:
        """Make the entry complete.

        Args:
            about: whatever a person who looks into meta.json may want to know.
        """
        assert self.done == self.num_images
        os.fsync(self._pixels.fileno())
        self.close()
        shapes = np.array(self.shapes, dtype=np.int32).reshape(-1, 2)
        with open(self.folder / INDEX, "wb") as file:
            np.save(file, shapes)
            file.flush()
            os.fsync(file.fileno())
        content = {
            "format": FORMAT,
            "key": self.key,
            "about": about,
            "num_images": self.num_images,
            "layout": self.layout,
            "chunks": self.chunks,
            "index_crc32": zlib.crc32(shapes.tobytes()),
            "unreadable": [[u.index, u.reason, u.transient] for u in self.unreadable],
        }
        temporary = self.folder / f"{META}.tmp"
        with open(temporary, "w") as text:
            json.dump({"crc32": crc_of_json(content), "content": content}, text)
            text.flush()
            os.fsync(text.fileno())
        os.replace(temporary, self.folder / META)
        (self.folder / JOURNAL).unlink()

    def __enter__(self) -> "EntryWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; what is written stays for the next builder."""
        for file in (self._pixels, self._journal):
            # Where there is no room, closing fails again to write what is left in the buffer.
            with contextlib.suppress(OSError):
                file.close()

    def _note(self, line: dict[str, Any]) -> None:
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()

    def _count(self, shapes: list[tuple[int, int]], unreadable: list[Unreadable], size: int, crc: int) -> None:
        self.shapes += shapes
        self.unreadable += unreadable
        self.chunks.append((size, crc))
        self.size += size

    def _take_up(self) -> int:
        """Count in what the journal lists and the pixels file holds; the length of the journal that is good."""
        self._journal.seek(0)
        self._pixels.seek(0)
        good = 0
        try:
            first = self._journal.readline()
            header = json.loads(first)
            if (header["format"], header["key"], header["num_images"]) != (FORMAT, self.key, self.num_images):
                return 0
            layout = header["layout"]
            good = len(first)
            for text in self._journal:
                line = json.loads(text)
                shapes = [(height, width) for height, width in line["shapes"]]
                pixels = self._pixels.read(line["size"])
                values = num_values(np.array(shapes).reshape(-1, 2), self.pixels_are.channels).sum()
                fits = values * self.pixels_are.depth // 8 == len(pixels) == line["size"]
                if not fits or zlib.crc32(pixels) != line["crc32"] or line["stop"] != self.done + len(shapes):
                    break
                unreadable = [Unreadable(i, reason, transient) for i, reason, transient in line["unreadable"]]
                self._count(shapes, unreadable, line["size"], line["crc32"])
                good += len(text)
        except (ValueError, KeyError, TypeError):
            pass  # a line that was cut off: go on from the one before
        if good:
            self.layout = layout
        return good


def images_done(folder: Path) -> int:
    """How far the builder of an entry has come, for those who wait for it."""
    try:
        with open(folder / JOURNAL, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (1 << 20)))
            last = file.read().rstrip(b"\n").rsplit(b"\n", 1)[-1]
        return int(json.loads(last)["stop"])
    except (OSError, ValueError, KeyError):
        return 0


def decode_all(
    writer: EntryWriter, source: ImageSource, *, shortest: int, chunk_images: int, workers: int, strict: bool,
    room: float, progress: Progress | None,
) -> None:  # fmt: skip
    """Decode what is not in the entry yet and write it.

    Args:
        writer: the entry.
        source: where the images are.
        shortest: images with a longer shorter side are reduced to it.
        chunk_images: images that one thread decodes at a time, and that are written together.
        workers: threads.
        strict: refuse an unreadable image instead of noting it.
        room: bytes the entry may take.
        progress: called after every chunk.

    Raises:
        DataError: an unreadable image, if `strict`.
        NoRoomError: the images take more than `room`.
        OSError: they cannot be written.
    """
    total, ended = len(source), threading.Event()
    starts = range(writer.done, total, chunk_images)

    def decode_chunk(start: int) -> Chunk:
        shapes: list[tuple[int, int]] = []
        unreadable: list[Unreadable] = []
        parts: list[bytes] = []
        stop = min(start + chunk_images, total)
        for index in range(start, stop):
            if ended.is_set():
                break
            try:
                pixels = read_image(source, index, shortest, writer.pixels_are)
            except UnreadableImageError as error:
                if strict:
                    raise DataError(
                        f"{source.name(index)} cannot be read: {error}.", topic="unreadable-images"
                    ) from error
                unreadable.append(Unreadable(index, str(error), isinstance(error, UnreadImageError)))
                shapes.append((0, 0))
                continue
            shapes.append((pixels.shape[0], pixels.shape[1]))
            parts.append((pixels.transpose(2, 0, 1) if writer.layout == "chw" else pixels).tobytes())
        return Chunk(stop, shapes, unreadable, b"".join(parts))

    with ThreadPoolExecutor(workers) as pool:
        try:
            for chunk in in_order(pool, decode_chunk, starts, ahead=workers + 2):
                if writer.size + len(chunk.pixels) > room:
                    raise NoRoomError(f"they need more than the {room / 1e9:.3g} GB there are")
                writer.add(chunk)
                if progress is not None:
                    progress(writer.done, total)
        finally:
            ended.set()
