"""Claim 1: guided stop-gradient raises accuracy. And claim 4: it is the guiding that does it."""

from typing import Any

from stopgrad.removed import CANDIDATES
from stopgrad.studies.study import Arm, Comparison, Study

NAMES = {"simsiam": "SimSiam", "byol": "BYOL"}
UNTRAINED = Arm(
    "untrained", "the network as initialised",
    {"method": "simsiam", "guide": "symmetric", "lr": 0.0, "baselines": True}, epochs=0.01,
)  # fmt: skip


def siamese(method: str, guide: str, views: int, words: str, *, epochs: float = 1.0, **settings: Any) -> Arm:
    """An arm of SimSiam or BYOL, in the plain form: every view passes the encoder that is trained."""
    times = "" if epochs == 1 else f"_{epochs:g}x"
    length = "" if epochs == 1 else f", {epochs:g} times the epochs"
    kind = {"symmetric": "symmetric", "random_views": "random", "nearest_views": "gsg", "farthest_views": "farthest"}
    return Arm(
        f"{method}_{kind[guide]}_{views}v{times}", f"{NAMES[method]}, {words}{length}",
        {"method": method, "guide": guide, "views": views, "source_first": False, **settings}, epochs,
    )  # fmt: skip


def arms_of(method: str) -> list[Arm]:
    """The arms that the paper compares, and the controls that it lacks."""
    return [
        siamese(method, "symmetric", 2, "symmetric"),
        siamese(method, "symmetric", 2, "symmetric", epochs=2.0),
        siamese(method, "random_views", 2, "random source"),
        siamese(method, "nearest_views", 2, "GSG on two views, mutual partners"),
        siamese(method, "symmetric", 4, "four views, symmetric (two pairs)"),
        siamese(method, "random_views", 4, "four views, random sources"),
        siamese(method, "nearest_views", 4, "GSG on four views, as published", partners="permutation"),
    ]


def comparisons_of(method: str) -> list[Comparison]:
    """What guiding gains over a random source in the same graph, and the whole at equal passes or epochs."""

    def pair(arm: str, rival: str, question: str) -> Comparison:
        return Comparison(f"{method}_{arm}", f"{method}_{rival}", question)

    return [
        pair("gsg_2v", "random_2v", "the guide, beside chance in the same graph"),
        pair("gsg_4v", "random_4v", "the guide, beside chance in the same graph"),
        pair("gsg_2v", "symmetric_2v", "equal passes"),
        pair("gsg_4v", "symmetric_4v", "equal passes and epochs"),
        pair("gsg_4v", "symmetric_2v", "the paper's comparison: equal epochs, twice the passes"),
        pair("gsg_4v", "symmetric_2v_2x", "equal passes"),
    ]


FASTSIAM = {"method": "simsiam", "views": 4, "targets": "mean_of_others"}
FASTSIAM_ALL = Arm("fastsiam_all", "FastSiam, four views, all of them sources",
                   {**FASTSIAM, "guide": "symmetric", "source_first": False})  # fmt: skip
STUDY = Study(
    "main",
    "Does guided stop-gradient raise accuracy?",
    "SimSiam and BYOL: symmetric, with a random source, and guided. Guiding counts only as its difference from a "
    "random source in the same graph; a configuration wins only over the best rival at matched compute.",
    (
        UNTRAINED,
        *arms_of("simsiam"),
        *arms_of("byol"),
        FASTSIAM_ALL,
        Arm("fastsiam_one", "FastSiam, four views, one source",
            {**FASTSIAM, "guide": f"{CANDIDATES}:random_of_all", "source_first": True}),
        Arm("byol_own", "BYOL as its authors had it: LARS, no BatchNorm at the projector's output, rising momentum",
            {"method": "byol", "guide": "symmetric", "projector_norm": "hidden", "ema_schedule": "cosine",
             "optimizer": "lars", "weight_decay": 1e-6}),
    ),
    (
        *comparisons_of("simsiam"),
        *comparisons_of("byol"),
        Comparison("fastsiam_all", "simsiam_symmetric_4v", "equal passes"),
        Comparison("fastsiam_one", "simsiam_symmetric_2v", "7 passes to 6"),
        Comparison("byol_own", "byol_symmetric_2v", "equal passes"),
    ),
)  # fmt: skip
