"""Claim 4, and beyond: which guide, if any, improves on a random source at equal encoder passes.

All arms are BYOL and cost what symmetric BYOL costs: those that encode sources first save passes, and spend them on
more epochs, and so on more steps. `symmetric_steps` and `symmetric_more_steps` are the controls for the steps:
symmetric BYOL with a batch so much smaller that it takes as many as the arms with one source, or as `half`, at the same
rate a step. Arms named `_bare` have no predictor: there the guide does its work, so there a better one could show.
Guides that only this study has are plug-ins (candidates.py).
"""

from typing import Any

from stopgrad.removed import CANDIDATES
from stopgrad.studies.questions.accuracy import siamese
from stopgrad.studies.questions.no_predictor import without_predictor
from stopgrad.studies.study import Arm, Comparison, Study

SYMMETRIC_PASSES = 8


def _symmetric(name: str, words: str, factor: float) -> Arm:
    settings = {"method": "byol", "guide": "symmetric", "source_first": False, "batch_factor": factor,
                "lr_factor": 1 / factor}  # fmt: skip
    return Arm(name, words, settings)


def _arm(name: str, words: str, passes: float, **settings: Any) -> Arm:
    own: dict[str, Any] = {"method": "byol", "views": 2, "source_first": True, **settings}
    return Arm(name, words, own, epochs=SYMMETRIC_PASSES / passes)


def _candidate(name: str, words: str, passes: float, guide: str, **settings: Any) -> Arm:
    return _arm(name, words, passes, guide=f"{CANDIDATES}:{guide}", **settings)


_FOUR: dict[str, Any] = {"views": 4, "targets": "mean_of_others"}
RANDOM, RANDOM_OF_FOUR = "random", "random_of_four"
STEPS, MORE_STEPS = "symmetric_steps", "symmetric_more_steps"
_RIVALS = {
    "gsg": RANDOM, "farthest": RANDOM, "gsg_normalised": RANDOM, "batch": RANDOM, "batch_normalised": RANDOM,
    "memory": RANDOM, "memory_skip": RANDOM,
    "gsg_of_four": RANDOM_OF_FOUR, "batch_of_four": RANDOM_OF_FOUR,
}  # fmt: skip
_ARMS = (
    siamese("byol", "symmetric", 2, "symmetric"),
    _symmetric(STEPS, "BYOL, symmetric, 5/8 of the batch: as many steps as with one source", 5 / 8),
    _symmetric(MORE_STEPS, "BYOL, symmetric, 7/16 of the batch: as many steps as with the decided half", 3.5 / 8),
    _arm(RANDOM, "random source", 5, guide="random_views"),
    _arm("gsg", "nearest to the partner (GSG)", 5, guide="nearest_views"),
    _arm("farthest", "farthest from the partner", 5, guide="farthest_views"),
    _candidate("gsg_normalised", "nearest to the partner, normalised", 5, "nearest_views_normalised"),
    _candidate("batch", "nearest in the batch", 5, "nearest_in_batch"),
    _candidate("batch_normalised", "nearest in the batch, normalised", 5, "nearest_in_batch_normalised"),
    _candidate("memory", "nearest in a memory", 5, "NearestInMemoryNormalised"),
    _candidate("memory_skip", "nearest five in a memory after the first five", 5, "NearestInMemorySkipping"),
    _candidate("soft", "soft weights, nearest in the batch", 8, "soft_in_batch", source_first=False),
    _candidate("soft_annealed", "weights from soft to one-hot over the run, nearest in the batch", 8,
               "FallingSoftness", source_first=False),
    _candidate("memory_soft", "soft weights, nearest in a memory", 8, "SoftInMemory", source_first=False),
    _arm("half_random", "random source, half of the images by chance", 3.5, guide="random_views", guide_keep=0.5,
         guide_keep_by="random"),
    _arm("half", "GSG, the most decided half of the images", 3.5, guide="nearest_views", guide_keep=0.5),
    _candidate("batch_half", "nearest in the batch, the most decided half of the images", 3.5, "decided_half_in_batch"),
    _candidate("half_hard", "random source, the half whose views are farthest apart", 3.5, "hard_half"),
    _candidate(RANDOM_OF_FOUR, "one random source of four views, mean of the others as target", 7, "random_of_all",
               **_FOUR),
    _candidate("gsg_of_four", "one source of four views by GSG, mean of the others as target", 7, "nearest_of_all",
               **_FOUR),
    _candidate("batch_of_four", "one source of four views, nearest in the batch, mean of the others as target", 7,
               "nearest_in_batch", **_FOUR),
)  # fmt: skip
_HALVES = ("half", "batch_half", "half_hard")
_BARE = (RANDOM, "gsg", "batch", "memory", "half_random", "half", "batch_half")
_WITHOUT = (
    *(without_predictor(arm) for arm in _ARMS if arm.name in _BARE),
    _arm("gsg_bare_steps", "nearest to the partner (GSG), no predictor, 7/10 of the batch: as many steps as half", 5,
         guide="nearest_views", predictor=False, batch_factor=0.7, lr_factor=1 / 0.7),
    _arm("half_by_chance_bare", "GSG, half of the images by chance, no predictor", 3.5, guide="nearest_views",
         guide_keep=0.5, guide_keep_by="random", predictor=False),
)  # fmt: skip
_RATED = (STEPS, MORE_STEPS, "batch_bare", "half_bare", "batch_half_bare")

STUDY = Study(
    "guide",
    "Which guide improves on a random source?",
    "Reference (the partner, the batch, a memory) x distance (raw, normalised) x weights (one-hot, soft), beside a "
    "random source and the farthest one, all at the cost of symmetric BYOL. A guide counts only as its difference from "
    "a random source in the same graph, and a graph only as its difference from symmetric BYOL with as many steps.",
    (*_ARMS, *_WITHOUT, *(arm.at_rate(4.0) for arm in (*_ARMS, *_WITHOUT) if arm.name in _RATED)),
    (
        *(Comparison(arm, rival, "the guide, beside chance in the same graph") for arm, rival in _RIVALS.items()),
        *(Comparison(arm, "half_random", "half of the images, beside half by chance") for arm in _HALVES),
        *(Comparison(arm, MORE_STEPS, "equal passes and steps") for arm in ("half_random", *_HALVES)),
        *(Comparison(arm, "byol_symmetric_2v", "soft weights, beside equal ones in the same graph")
          for arm in ("soft", "soft_annealed", "memory_soft")),
        *(Comparison(arm, "byol_symmetric_2v", "equal passes")
          for arm in (RANDOM, "gsg", RANDOM_OF_FOUR, "gsg_of_four")),
        *(Comparison(arm, STEPS, "equal passes and steps") for arm in (RANDOM, "gsg", "batch")),
        Comparison(RANDOM_OF_FOUR, RANDOM, "four views and one source, beside two: equal passes"),
        *(Comparison(f"{arm}_bare", arm, "what the predictor is worth") for arm in _BARE),
        *(Comparison(f"{arm}_bare", rival, question)
          for arm in ("gsg", "batch", "memory")
          for rival, question in ((f"{RANDOM}_bare", "the guide, beside chance, no predictor"),
                                  (STEPS, "no predictor, equal passes and steps"))),
        *(Comparison(f"{arm}_bare", rival, question)
          for arm in ("half", "batch_half")
          for rival, question in (("half_random_bare", "half of the images, beside half by chance, no predictor"),
                                  ("gsg_bare_steps", "beside the paper's guide, no predictor, equal passes and steps"),
                                  (MORE_STEPS, "no predictor, equal passes and steps"))),
        Comparison("half_bare", "half_by_chance_bare", "the decided half, beside half by chance, no predictor"),
        Comparison("half_by_chance_bare", "gsg_bare_steps", "half by chance, beside all images, no predictor"),
        Comparison("batch_bare", "gsg_bare", "nearest in the batch, beside nearest to the partner, no predictor"),
        Comparison("batch_half_bare", "half_bare", "nearest in the batch, beside nearest to the partner, no predictor"),
        *(Comparison(f"{arm}_lr4", f"{rival}_lr4", "no predictor, equal passes and steps, 4 x learning rate")
          for arm, rival in (("batch_bare", STEPS), ("half_bare", MORE_STEPS), ("batch_half_bare", MORE_STEPS))),
    ),
)  # fmt: skip
