"""What an encoder's page says of its features: their health, classes by k-NN, near-duplicates."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from stopgrad.artifacts.names import variant_name
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cache.store import ImageStore
from stopgrad.data.sources import Subset
from stopgrad.encoder.encoder import Encoder
from stopgrad.evaluate.health import LEAST, NUM_IMAGES, Health, health_of, shortest_for
from stopgrad.evaluate.knn import TEMPERATURE, K
from stopgrad.evaluate.shared.outcome import by_class, score
from stopgrad.metrics.measures import MEANINGS, NAMES, figure
from stopgrad.report.listed import Listed
from stopgrad.report.parts.embedded import Embedded
from stopgrad.report.parts.neighbours import voted
from stopgrad.report.parts.tables import classes_as_rows
from stopgrad.report.search import group_sections
from stopgrad.reporter import Reporter
from stopgrad.retrieval.duplicates import Duplicates

MOST_GROUPS, MOST_MEMBERS = 20, 8
"""Near-duplicates that are shown, at most 160 pictures; how many there are is said."""
_TONES = {"healthy": "good", "partly_collapsed": "warn", "collapsed": "bad", "not_finite": "bad"}


def measured_health(
    encoder: Encoder, run: RunDir | None, embedded: Embedded, *, place: torch.device, seed: int, reporter: Reporter
) -> Health | None:
    """The health of the features, as `check` finds it; None for too few images.

    The network before training is measured too where the encoder is that of a run that knows it. Other encoders began
    from nobody knows what.
    """
    if len(embedded.bank) < LEAST:
        return None
    sample = embedded.bank.evenly_spaced(NUM_IMAGES)
    source = Subset(sample.store.source, sample.positions)
    store = ImageStore(
        source, shortest_for(encoder, run, seed), kept=range(len(source)), pixels_are=encoder.preprocess.pixels
    )
    which = "images" if not embedded.images.train_name else f"{embedded.images.train_name} images"
    return health_of(
        encoder, run, store, sample.vectors, of=f"{len(sample.store):,} {which} of {embedded.parts.name_of_set}",
        place=place, seed=seed, compare=knows_its_start(run), reporter=reporter,
    )  # fmt: skip


def knows_its_start(run: RunDir | None) -> bool:
    """Whether an encoder is that of a run that began from random weights, or kept those that it began from."""
    return run is not None and (run.start_file.is_file() or run.read_config().network.init == "random")


def health_shown(health: Health, run: RunDir | None) -> dict[str, Any]:
    """The verdict and the table of measures, for the template."""
    title, _, words = health.words.partition(": ")
    rows = [
        {
            "name": shown.strip(), "below": shown.startswith(" "), "now": figure(name, health.measures[name]),
            "before": "" if health.untrained is None else figure(name, health.untrained[name]),
            "meaning": MEANINGS[name],
        }
        for name, shown in NAMES.items() if health.measures
    ]  # fmt: skip
    alone = ""
    if health.untrained is None and health.measures:
        why = (
            "the weights that this run began from no longer exist"
            if run is not None
            else "how it began is not known here, or it was pretrained"
        )
        alone = (
            f"Not compared with the network before training: {why}. Judged is what needs no comparison: features that "
            "are all alike, that lie on a line, or whose dimensions are dead."
        )
    return {
        "title": title, "words": words[:1].upper() + words[1:], "tone": _TONES[health.state], "rows": rows,
        "compared": health.untrained is not None, "before_is": health.before_is, "alone": alone,
        "protocol": health.protocol,
    }  # fmt: skip


def knn_shown(
    run: RunDir | None, embedded: Embedded
) -> tuple[dict[str, Any], dict[str, Any], Int[Tensor, "query"]] | None:
    """k-NN by the features and by raw pixels, as `evaluate knn` has it; None without labels.

    Returns:
        the table, for the template; the classes and confusions, for the template; each query's class by k-NN,
        -1 where it has no label.
    """
    images, bank, tested = embedded.images, embedded.bank, embedded.tested
    own = run.read_config().monitoring if run is not None else None
    k, temperature = (own.knn_k, own.knn_temperature) if own is not None else (K, TEMPERATURE)
    result = voted(images, tested, bank, k=k, temperature=temperature)
    if result is None:
        return None
    predicted, k = result
    judged, num_known = predicted >= 0, int((bank.labels >= 0).sum())
    mean = bank.pixels.mean(dim=0)
    pixels = replace(bank, features=bank.pixels - mean)
    by_pixels = voted(
        images, pixels if tested is bank else replace(tested, features=tested.pixels - mean), pixels, k=k,
        temperature=temperature,
    )  # fmt: skip
    assert by_pixels is not None
    rows = []
    for key, name, said in (("trained", "Features", predicted), ("", variant_name("pixels_centred"), by_pixels[0])):
        found = score(said[judged], tested.labels[judged])
        rows.append({"key": key, "name": name[:1].upper() + name[1:], "accuracy": 100 * found.accuracy,
                     "interval": (100 * found.low, 100 * found.high), "few": None})  # fmt: skip
    which = (
        f"leave-one-out over {num_known:,} labelled images"
        if tested is bank
        else f"bank of {num_known:,} training images, queries {int(judged.sum()):,} test images"
    )
    side = min(32, bank.thumbnails.shape[-1])
    protocol = f"k-NN, k = {k}, T = {temperature:g}, cosine; {which}; raw pixels at {side} x {side}"
    per_class, confusions = by_class(predicted[judged], tested.labels[judged], images.class_names)
    table = {"rows": rows, "protocol": protocol, "has_few": False}
    return table, classes_as_rows(per_class, confusions, "By the features' k-NN above."), predicted


def groups_shown(found: Duplicates, total: int, listed: Listed) -> dict[str, Any]:
    """Groups of near-duplicates with their pictures, for the template; `total` images there are."""
    among = f"{found.num_images:,} images"
    if found.num_images + len(found.skipped) < total:
        among += f" (drawn by seed from {total:,})"
    if found.groups:
        groups = f"{len(found.groups):,} groups" if len(found.groups) > 1 else "one group"
        words = f"{found.num_grouped:,} of {among} are in {groups}, joined by a cosine of at least {found.threshold:g}."
    else:
        words = f"No two of {among} have a cosine of {found.threshold:g} or more."
    if found.num_copies:
        words += f" Copies of another, byte for byte: {found.num_copies:,}."
    if found.num_across:
        words += (
            f" Groups with training and test images both: {found.num_across:,}; where they are the same picture, "
            "they flatter any accuracy on these test images."
        )
    return {
        "sections": group_sections(found, MOST_GROUPS, MOST_MEMBERS, listed), "num": len(found.groups), "words": words,
        "warning": found.warning, "threshold": f"{found.threshold:g}",
    }  # fmt: skip


def knn_as_json(table: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracy and its interval in 0..1, and the protocol."""
    row = table["rows"][0]
    low, high = row["interval"]
    return {"accuracy": row["accuracy"] / 100, "low": low / 100, "high": high / 100, "protocol": table["protocol"]}
