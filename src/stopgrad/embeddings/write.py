"""Images to a file of embeddings: in bounded memory, and resumed where it was stopped."""

import bisect
import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import stopgrad.embeddings.formats as formats
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cache.store import ImageStore
from stopgrad.data.splits import Parts, open_parts
from stopgrad.embeddings.partial import Done, Partial
from stopgrad.embeddings.paths import check_free, files_of
from stopgrad.encoder.encoder import Encoder, encoder_digest
from stopgrad.encoder.features import check_batch_size, outputs_in_order
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import DataError, Interrupted
from stopgrad.hardware import choose_precision, plain_batch_size
from stopgrad.reporter import QuietReporter, Reporter
from stopgrad.weights.options import place_of


@dataclass(frozen=True)
class Embedded:
    """What was written."""

    file: Path
    files: Sequence[Path]
    """The file, and what lies beside it."""
    encoder: str
    data: str
    num_images: int
    """Rows."""
    dim: int
    precision: str
    """What the network computed in, `fp32` or `bf16`; the vectors are float32."""
    normalised: bool
    skipped: Sequence[dict[str, Any]]
    """Images that could not be read and have no row: `index` in the data set, `name` and `reason`."""
    num_resumed: int
    """Images that an earlier, interrupted call had done."""
    seconds: float
    images_per_second: float
    """Of the images done in this call, reading and writing included."""

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {**asdict(self), "file": str(self.file), "files": [str(file) for file in self.files]}


def embed_to_file(
    encoder: str | Path | Encoder, images: Any = None, out: str | Path = "embeddings.parquet", *, split: str = "all",
    normalise: bool = False, batch_size: int = 0, device: str = "auto", precision: str = "auto", strict: bool = False,
    overwrite: bool = False, stop: Callable[[], str | None] | None = None, reporter: Reporter | None = None,
) -> Embedded:  # fmt: skip
    """Write pooled backbone features of images into a file, in the order of the images.

    The vectors are those of `Encoder.embed`, float32. Images are decoded and rows written batch by batch; an
    interrupted call leaves `OUT.partial` and `OUT.partial.json`, and the same call resumes from there to the same file,
    byte for byte. With another batch size it goes on too; the last digits of the vectors depend on it.

    Args:
        encoder: an encoder, or what `load_encoder` takes.
        images: a folder, an image file or a parquet file, `Splits` or an `ImageSource`; None: those that the run was
            trained on.
        out: the file. `.parquet`: columns path, split, label (index), class_name and embedding (a list of float32).
            `.npy`: the vectors `[row dim]`, with the other columns in `OUT.names.csv`. `.csv`: one column a number.
            What the file belongs to (encoder, precision, preprocessing, data, skipped images) is in the parquet's
            schema under `stopgrad`, else in `OUT.meta.json` (such as `flowers.npy.meta.json`).
        split: `train`, `test` or `all` of a data set with splits.
        normalise: whether rows are divided by their Euclidean length.
        batch_size: images a forward pass; 0: chosen for the device.
        device: as the setting `device`.
        precision: what the network computes in, as the setting `precision`.
        strict: refuse unreadable images instead of leaving them out.
        overwrite: replace a file that exists.
        stop: asked between batches; a text, such as "the time limit", stops the work with everything saved.
        reporter: told of progress.

    Raises:
        ConfigError: the file exists, its format is not known, no data set is known, a negative batch size, or no such
            precision.
        DataError: no image can be read, or one cannot and `strict` is set.
        CheckpointError: no encoder there.
        Interrupted: by `stop` or Ctrl-C; the same call resumes.
    """
    began = time.perf_counter()
    reporter, out = reporter or QuietReporter(), Path(out).expanduser()
    check_batch_size(batch_size)
    check_free(out, overwrite=overwrite)
    loaded = encoder if isinstance(encoder, Encoder) else load_encoder(encoder)
    if images is None:
        images = RunDir(place_of(loaded.source or loaded.name)).images_path("images")
    parts = images if isinstance(images, Parts) else open_parts(images, split)
    backbone, place = loaded.placed(device)
    precision = choose_precision(precision, place)
    size = batch_size or plain_batch_size(place, loaded.preprocess.size)
    # Not the batch size, which changes no more than the last digits: who ran out of memory goes on with a smaller one.
    belongs_to = belonging(loaded, parts, precision) | {"device": place.type}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Partial(out, _dim_of(loaded), belongs_to)
    try:
        if partial.differs:
            reporter.warn(f"{partial.rows_file} belongs to another call ({', '.join(partial.differs)}): started over.")
        if strict and partial.skipped:
            raise _unreadable(*partial.skipped[0][1:])
        resumed = partial.done.images
        if resumed:
            reporter.say(f"Resuming after {resumed:,} images of {partial.rows_file}")
        try:
            rate = _embed_rest(loaded, parts, partial, backbone, place, size, precision, strict, stop, reporter)
        except DataError:
            # Refused: there is nothing to go on with. What an earlier call has done stays.
            if not resumed:
                partial.remove()
            raise
        if not partial.done.rows:
            partial.remove()
            name, reason = partial.skipped[0][1:] if partial.skipped else ("the source", "it is empty")
            raise DataError(
                f"none of {len(parts)} images can be read; the first: {name}: {reason}.", topic="unreadable-images"
            )
        metadata = {
            "format": formats.FORMAT, "version": _version(), **belonging(loaded, parts, precision),
            "encoder": loaded.source or _whole_path(loaded.name),
            "backbone": None if loaded.spec is None else loaded.spec.backbone, "dim": partial.dim,
            "preprocess": asdict(loaded.preprocess), "normalised": normalise, "data": parts.path,
            "data_name": parts.name_of_set, "splits": [split for split, _ in parts.parts],
            "class_names": [as_text(name) for name in parts.class_names], "num_images": partial.done.rows,
            "skipped": [{"index": i, "name": n, "reason": r} for i, n, r in partial.skipped],
        }  # fmt: skip
        about = _About(parts, {index for index, _, _ in partial.skipped})
        # No name for the mapped vectors here: they are let go of before their file is removed.
        formats.write_rows(out, formats.Rows(partial.vectors(), about, normalise, metadata))
        partial.remove()
    finally:
        partial.close()
    return Embedded(
        file=out, files=files_of(out), encoder=loaded.name, data=str(parts), num_images=partial.done.rows,
        dim=partial.dim, precision=precision, normalised=normalise, skipped=metadata["skipped"], num_resumed=resumed,
        seconds=round(time.perf_counter() - began, 2), images_per_second=round(rate, 1),
    )  # fmt: skip


def belonging(encoder: Encoder, parts: Parts, precision: str) -> dict[str, Any]:
    """What embeddings depend on: two digests, and `fp32` or `bf16`."""
    return {"encoder_digest": encoder_digest(encoder), "data_digest": parts.digest(), "precision": precision}


def _embed_rest(
    loaded: Encoder, parts: Parts, partial: Partial, backbone: Any, place: Any, size: int, precision: str,
    strict: bool, stop: Callable[[], str | None] | None, reporter: Reporter,
) -> float:  # fmt: skip
    """Embed what the partial file has not yet; images a second."""
    began, before = time.perf_counter(), partial.done.images
    rate = 0.0
    try:
        for start, (_, source) in zip(parts.starts, parts.parts, strict=False):
            done = max(0, partial.done.images - start)
            if done >= len(source):
                continue
            # Stopped between two of these batches, as it is with the same batch size, the next of them comes next;
            # otherwise what is left is cut anew.
            first = done if done not in (ends := _batch_ends(0, len(source), size)) else 0
            if first:
                ends = _batch_ends(first, len(source), size)
            p = loaded.preprocess
            store = ImageStore(source, p.shortest, kept=range(len(source)), strict=strict, pixels_are=p.pixels)
            with closing(outputs_in_order(
                backbone, store, loaded.preprocess, list(range(first, len(source))), place, batch_size=size,
                first_batch=bisect.bisect_right(ends, done), precision=precision,
            )) as batches:  # fmt: skip
                for read, (vectors,) in batches:
                    _add(partial, store, start, vectors.numpy(), read, ends[bisect.bisect_right(ends, read[0])])
                    rate = (partial.done.images - before) / (time.perf_counter() - began)
                    reporter.progress("embedding", partial.done.images, len(parts), f"{rate:,.0f} images/s")
                    if stop is not None and (reason := stop()) and partial.done.images < len(parts):
                        raise _interrupted(reason, partial, parts)
                    partial.save_now_and_then()
            # Whole batches at the end may have been unreadable.
            _add(partial, store, start, np.empty((0, partial.dim)), (), len(source))
        partial.save()
    except BaseException as error:
        with suppress(OSError):
            partial.save()
        if isinstance(error, KeyboardInterrupt):
            raise _interrupted("Ctrl-C", partial, parts) from error
        raise
    return rate


def _batch_ends(first: int, last: int, size: int) -> list[int]:
    """Where batches end as `plain_batches` cuts images `first` to `last`: into parts of nearly one size."""
    return [int(part[-1]) + 1 for part in np.array_split(np.arange(first, last), -(-(last - first) // size))]


def _add(partial: Partial, store: ImageStore, start: int, vectors: np.ndarray, read: Sequence[int], end: int) -> None:
    """Count the images of a part up to `end` as done: those read have rows, the others a reason."""
    skipped = []
    for index in sorted(set(range(partial.done.images - start, end)) - set(read)):
        name = store.source.name(index)
        skipped.append((start + index, name, store.skipped.get(name, "unreadable")))
    partial.add(vectors, Done(start + end, partial.done.skipped + len(skipped)), skipped)


class _About:
    """Path, split, label and class name of a row, rows being asked for in order."""

    def __init__(self, parts: Parts, skipped: set[int]) -> None:
        self.parts, self.kept = parts, [index for index in range(len(parts)) if index not in skipped]

    def __call__(self, row: int) -> tuple[str, str | None, int | None, str | None]:
        index = self.kept[row]
        label = self.parts.label(index)
        class_name = as_text(self.parts.class_names[label]) if label >= 0 else None
        return as_text(self.parts.name(index)), self.parts.split(index), None if label < 0 else label, class_name


def _whole_path(name: str) -> str:
    """A name that is a path, as it is found from another folder; any other name as it is."""
    return os.path.abspath(name) if os.path.exists(name) else name


def as_text(name: str) -> str:
    """A file's name that is no text in the system's encoding, with marks for what cannot be written."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _dim_of(loaded: Encoder) -> int:
    if loaded.spec is not None:
        return loaded.spec.num_features
    import torch

    size = loaded.preprocess.size
    with torch.no_grad():
        weights = next(iter(loaded.backbone.parameters()), torch.zeros(0))
        return int(loaded.backbone.eval()(torch.zeros((1, 3, size, size), device=weights.device)).shape[1])


def _unreadable(name: str, reason: str) -> DataError:
    return DataError(f"{name} cannot be read: {reason}.", topic="unreadable-images")


def _interrupted(reason: str, partial: Partial, parts: Parts) -> Interrupted:
    return Interrupted(
        f"by {reason} after {partial.done.images:,} of {len(parts):,} images, kept in {partial.rows_file}; "
        "the same command resumes from there."
    )


def _version() -> str:
    from importlib import metadata

    with suppress(metadata.PackageNotFoundError):
        return metadata.version("stopgrad")
    return "unknown"
