"""Decoding a source into an entry of the cache, in parallel and in order."""

import threading
from concurrent.futures import ThreadPoolExecutor

from stopgrad.data.cache_entry import Unreadable
from stopgrad.data.cache_room import NoRoomError
from stopgrad.data.cache_writer import Chunk, EntryWriter
from stopgrad.data.decode import UnreadableImageError
from stopgrad.data.reading import Progress, UnreadImageError, in_order, read_image
from stopgrad.data.sources import ImageSource
from stopgrad.errors import DataError


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
                pixels = read_image(source, index, shortest)
            except UnreadableImageError as error:
                if strict:
                    raise DataError(f"{source.name(index)} cannot be read: {error}.") from error
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
