"""Images that are searched: their features, what they are called, and where their pictures are."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.data.sources import ImageSource
from stopgrad.data.splits import Parts, check_split, in_words, open_parts
from stopgrad.embeddings.paths import is_embeddings
from stopgrad.embeddings.read import Embeddings, read_embeddings
from stopgrad.embeddings.write import as_text, belonging, embed_to_file
from stopgrad.encoder.encoder import Encoder, encoder_digest
from stopgrad.encoder.features import check_batch_size, features_of
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.hardware import check_precision, choose_device, choose_precision
from stopgrad.loader.preprocess import Preprocess
from stopgrad.reporter import Reporter


@dataclass(frozen=True)
class Bank:
    """Embedded images."""

    vectors: Float[Tensor, "row dim"]
    names: Sequence[str]
    labels: Int[Tensor, "row"]
    """Index into `class_names`, or -1."""
    class_names: Sequence[str]
    splits: Sequence[str | None]
    """`train`, `test` or None of each image."""
    data: str
    """What the images are, in words."""
    encoder: str
    """Where the encoder is, or was."""
    encoder_digest: str
    precision: str
    """What the network computed in: `fp32` or `bf16`."""
    images: ImageSource | None
    """The images themselves, where they are still available."""
    places: Sequence[int]
    """Row -> index in `images`."""
    skipped: Sequence[dict[str, Any]] = ()
    """Images that could not be read: `name` and `reason`."""
    preprocess: Preprocess | None = None
    """The encoder's, where that was loaded: it knows how images of other channels than RGB are shown."""

    def __len__(self) -> int:
        return len(self.vectors)

    def label(self, row: int) -> str | None:
        """Name of the class of a row, if known."""
        label = int(self.labels[row])
        return self.class_names[label] if label >= 0 else None

    def split(self, row: int) -> str | None:
        """`train` or `test`, if known."""
        return self.splits[row]

    def file(self, row: int) -> str:
        """The path of an image, where it is a file."""
        return self.names[row] if self.images is None else self.images.name(self.places[row])

    def read(self, row: int) -> Any:
        """The encoded image or its pixels.

        Raises:
            OSError: it is gone.
        """
        if self.images is None:
            return Path(self.names[row]).read_bytes()
        return self.images.read(self.places[row])


def open_bank(
    run_or_embeddings: str | Path | Encoder, data: Any, split: str | None, *, batch_size: int, device: str,
    precision: str, keep: bool, reporter: Reporter,
) -> tuple[Bank, Encoder | None]:  # fmt: skip
    """Embed the images to search, or read their embeddings.

    Args:
        run_or_embeddings: an encoder, what `load_encoder` takes, or a file that `embed_to_file` wrote.
        data: the images; None: those of the run, or those that the embeddings were made of.
        split: `train`, `test` or `all` of a data set with splits; None: the training images, or all of a file.
        batch_size, device: as for `Encoder.embed`.
        precision: as for `Encoder.embed`; of a file, `auto` is what it was made in.
        keep: whether embeddings by a run's encoder are kept in the run folder and taken from there next time.
        reporter: told of progress.

    Returns:
        the bank, and the encoder, None for a file.

    Raises:
        ConfigError: no data known, a negative batch size, or another precision than a file's.
        DataError, CheckpointError: nothing there that can be used.
    """
    check_batch_size(batch_size)
    check_precision(precision)
    if not isinstance(run_or_embeddings, Encoder) and is_embeddings(run_or_embeddings):
        bank = _bank_of_file(Path(run_or_embeddings).expanduser(), data, split or "all", reporter)
        if precision not in ("auto", bank.precision):
            raise ConfigError(
                f"precision = {precision!r}: {run_or_embeddings} was made in {bank.precision}, and the query must be "
                "embedded alike; leave it out, or embed the images again."
            )
        return bank, None
    loaded = run_or_embeddings if isinstance(run_or_embeddings, Encoder) else load_encoder(run_or_embeddings)
    run = RunDir(loaded.name)
    parts = open_parts(run.images_path("data") if data is None else data, split or "train")
    if keep and run.is_run and os.access(run.path, os.W_OK):
        bank = _bank_kept(loaded, parts, run, batch_size, device, precision, reporter)
        return replace(bank, preprocess=loaded.preprocess), loaded
    backbone, place = loaded.placed(device)
    precision = choose_precision(precision, place)
    features = features_of(
        backbone, loaded.preprocess, parts, place, batch_size=batch_size, precision=precision,
        progress=lambda done, total: reporter.progress("embedding", done, total),
    )  # fmt: skip
    places = features.positions
    unread = sorted(set(range(len(parts))) - set(places))
    skipped = [{"name": parts.name(i), "reason": features.skipped[parts.name(i)]} for i in unread]
    return Bank(
        vectors=features.vectors, names=features.names, labels=features.labels, class_names=parts.class_names,
        splits=[parts.split(i) for i in places], data=str(parts), encoder=loaded.name,
        encoder_digest=encoder_digest(loaded), precision=precision, images=parts, places=places, skipped=skipped,
        preprocess=loaded.preprocess,
    ), loaded  # fmt: skip


def precision_of(metadata: Mapping[str, Any]) -> str:
    """What the network computed in that made a file of embeddings; before files said so, it was float32."""
    return str(metadata.get("precision", "fp32"))


def query_encoder(bank: Bank, encoder: str | Path | Encoder | None) -> Encoder:
    """The encoder that a file of embeddings was made by.

    Args:
        bank: of the file.
        encoder: the encoder, or what `load_encoder` takes; None: where the file says.

    Raises:
        ConfigError: it no longer exists, or is another one.
        CheckpointError: the one given cannot be loaded.
    """
    try:
        given = bank.encoder if encoder is None else encoder
        loaded = given if isinstance(given, Encoder) else load_encoder(given)
    except CheckpointError as error:
        if encoder is not None:
            raise
        raise ConfigError(
            f"the encoder of these embeddings, {bank.encoder}, does not exist: give it (--encoder)."
        ) from error
    if loaded.spec is not None and loaded.spec.num_features != bank.vectors.shape[1]:
        raise ConfigError(
            f"{loaded.name} makes vectors of {loaded.spec.num_features} numbers, and the embeddings have "
            f"{bank.vectors.shape[1]}: give the encoder that made them (--encoder)."
        )
    if encoder_digest(loaded) != bank.encoder_digest:
        raise ConfigError(f"the embeddings were made by another encoder than {loaded.name}: give that one (--encoder).")
    return loaded


def _bank_kept(
    encoder: Encoder, parts: Parts, run: RunDir, batch_size: int, device: str, precision: str, reporter: Reporter
) -> Bank:
    """Embeddings in the run folder, under a digest of what they depend on; made if they are not there."""
    belongs_to = belonging(encoder, parts, choose_precision(precision, choose_device(device)))
    digest = hashlib.sha256(json.dumps(belongs_to, sort_keys=True).encode()).hexdigest()[:16]
    file = run.embeddings_dir / f"{digest}.parquet"
    if file.is_file():
        try:
            return replace(_bank_of(read_embeddings(file), parts), encoder=encoder.name)
        except DataError as error:
            reporter.warn(f"{error} It is written again.")
    embed_to_file(
        encoder, parts, file, batch_size=batch_size, device=device, precision=precision, overwrite=True,
        reporter=reporter,
    )  # fmt: skip
    reporter.say(f"Embeddings kept in {file}")
    return replace(_bank_of(read_embeddings(file), parts), encoder=encoder.name)


def _bank_of_file(file: Path, data: Any, split: str, reporter: Reporter) -> Bank:
    check_split(split)
    embeddings = read_embeddings(file)
    bank = _bank_of(embeddings, _pictures(embeddings, file, data, reporter))
    if split == "all":
        return bank
    rows = [row for row, of in enumerate(embeddings.splits) if of == split]
    if not rows:
        raise ConfigError(f"split = {split!r}: {file} has no images of it; use all.")
    return replace(
        bank, vectors=bank.vectors[rows], names=[bank.names[row] for row in rows], labels=bank.labels[rows],
        splits=[split] * len(rows), places=[bank.places[row] for row in rows],
        data=in_words(embeddings.metadata["data_name"], [split]),
    )  # fmt: skip


def _bank_of(embeddings: Embeddings, images: Parts | None) -> Bank:
    meta = embeddings.metadata
    without = {item["index"] for item in meta["skipped"]}
    places = [i for i in range(len(embeddings) + len(without)) if i not in without]
    return Bank(
        vectors=embeddings.vectors, names=embeddings.names, labels=embeddings.labels,
        class_names=embeddings.class_names, splits=embeddings.splits, data=in_words(meta["data_name"], meta["splits"]),
        encoder=meta["encoder"], encoder_digest=meta["encoder_digest"], precision=precision_of(meta), images=images,
        places=places, skipped=meta["skipped"],
    )  # fmt: skip


def _pictures(embeddings: Embeddings, file: Path, data: Any, reporter: Reporter) -> Parts | None:
    """The images that embeddings were made of, if they are still the same ones, as far as that can be told."""
    meta = embeddings.metadata
    if data is None and meta["data"] is None:
        return None
    splits = meta["splits"]
    split = splits[0] if len(splits) == 1 and splits[0] else "all"
    try:
        parts = open_parts(meta["data"] if data is None else data, split)
    except (DataError, ConfigError):
        if data is not None:
            raise
        reporter.warn(f"the images of {file}, {meta['data']!r}, no longer exist: give --data for pictures.")
        return None
    without = {item["index"] for item in meta["skipped"]}
    kept = [i for i in range(len(parts)) if i not in without]
    if len(kept) == len(embeddings) and parts.digest() == meta.get("data_digest"):
        return parts
    # A folder that was moved or copied has another digest, and the same names.
    base = os.path.basename
    if parts.is_listed() and len(kept) == len(embeddings) and all(
        base(as_text(parts.name(i))) == base(name) for i, name in zip(kept, embeddings.names, strict=True)
    ):  # fmt: skip
        reporter.warn(
            f"the images of {parts} have other places, sizes or times than when {file} was made; they are taken for "
            "the same because of their names."
        )
        return parts
    if data is not None:
        raise DataError(f"{parts} are not the images that {file} was made of.")
    reporter.warn(
        f"{meta['data']!r} holds other images than {file} was made of: no pictures, but of files that are still where "
        "they were."
    )
    return None
