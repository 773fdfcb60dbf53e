"""The parts of a run's page that need its images and its backbone."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from markupsafe import Markup
from torch import Tensor

from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.shards.order import layout_of
from stopgrad.data.sources import Subset
from stopgrad.encoder.encoder import Encoder
from stopgrad.evaluate.shared.outcome import by_class
from stopgrad.report.listed import Listed
from stopgrad.report.page import picture
from stopgrad.report.parts.images import RunImages, Sample, draw_sample
from stopgrad.report.parts.map import feature_map
from stopgrad.report.parts.neighbours import neighbour_rows, voted
from stopgrad.report.parts.tables import classes_as_rows
from stopgrad.report.sheet import view_sheet
from stopgrad.reporter import Reporter

POINTS = 2000
"""Points on the map: a few seconds of t-SNE."""
BANK = 4000
"""Training images among which neighbours are looked for."""
_SHEET_IMAGES, _SHEET_VIEWS = 6, 8


def features_shown(
    images: RunImages, encoder: Encoder, config: Config, *, points: int, device: str, reporter: Reporter
) -> dict[str, Any]:
    """Map, neighbours, results of classes and the images named, from one pass of the backbone over a sample.

    Args:
        images: the run's.
        encoder: its backbone, finished or not.
        config: its seed, and its k-NN.
        points: most points on the map; test images first, then training images.
        device: as the setting `device`.
        reporter: told of progress.

    Raises:
        DataError: no image can be read.
    """
    backbone, place = encoder.placed(device)
    seed = config.training.seed

    def sampled(store: Any, num: int, what: str) -> Sample:
        return draw_sample(
            backbone, encoder.preprocess, store, num, place, seed=seed, reporter=reporter, what=f"{what} images"
        )

    queries = None if images.test is None else sampled(images.test, max(points, 200), images.test_name)
    bank = sampled(images.train, max(BANK, points - (0 if queries is None else len(queries))), "training")
    samples = [("training", bank)] if queries is None else [(images.test_name, queries), ("training", bank)]
    tested = bank if queries is None else queries
    voted = _predicted(images, tested, bank, config) if bool(bank.features.isfinite().all()) else None
    predicted = None if voted is None else voted[0]
    listed = Listed(images.class_names)
    reporter.say("Arranging the map ...")
    drawn, words = feature_map(images, samples, points, predicted, listed)
    neighbours = None
    if bool(bank.features.isfinite().all()):
        neighbours = neighbour_rows(images, tested, bank, seed=seed, listed=listed)
    return {
        "map": drawn,
        "map_words": words,
        "neighbours": neighbours,
        "listed": listed,
        "classes": None if voted is None else _classes(images, tested, bank, *voted, config),
    }


def _predicted(
    images: RunImages, queries: Sample, bank: Sample, config: Config
) -> tuple[Int[Tensor, "query"], int] | None:
    """As `voted`, by the run's own k-NN."""
    return voted(images, queries, bank, k=config.monitoring.knn_k, temperature=config.monitoring.knn_temperature)


def _classes(
    images: RunImages, queries: Sample, bank: Sample, predicted: Int[Tensor, "query"], k: int, config: Config
) -> dict[str, Any]:
    judged = predicted >= 0
    per_class, confusions = by_class(predicted[judged], queries.labels[judged], images.class_names)
    # Only images with a label vote.
    num_known = int((bank.labels >= 0).sum())
    query_words = "leave-one-out" if queries is bank else f"{int(judged.sum()):,} {images.test_name} images ask"
    origin = (
        f"From the sample on this page: k-NN, k = {k}, T = {config.monitoring.knn_temperature:g}; a bank of "
        f"{num_known:,} labelled images, of {len(bank.store):,} training images; {query_words}."
    )
    return classes_as_rows(per_class, confusions, origin)


def views_shown(images: RunImages, config: Config) -> str:
    """A sheet of augmented views as a data URI."""
    train = images.train
    generator = torch.Generator().manual_seed(config.training.seed)
    # More than are shown, so that a few unreadable ones leave enough.
    if layout_of(train.source) is None:
        drawn = torch.randperm(len(train), generator=generator)[: 2 * _SHEET_IMAGES].sort().values.tolist()
    else:
        drawn = train.spread(2 * _SHEET_IMAGES)
    source = Subset(train.source, [train.kept[position] for position in drawn])
    store = load_images(source, shortest=train.shortest, pixels=train.pixels_are)
    sheet = view_sheet(store, config, num_images=_SHEET_IMAGES, num_views=_SHEET_VIEWS)
    return picture(sheet, max(sheet.size))


def as_script(values: Mapping[str, Any] | None) -> Markup | None:
    """JSON that may stand in a script element."""
    from jinja2.utils import htmlsafe_json_dumps

    return None if values is None else htmlsafe_json_dumps(values, separators=(",", ":"), allow_nan=False)
