"""Multi-crop: what local views are worth, and whether they do better with a guide, at equal encoder passes.

The lengths are for local views of half the side of the others, a quarter of a pass each.
"""

from typing import Any

from stopgrad.studies.questions.accuracy import siamese
from stopgrad.studies.study import Arm, Comparison, Study

NUM_LOCAL = 4
SYMMETRIC_PASSES = 8
# Four local views' forwards and backwards.
_LOCAL_PASSES = NUM_LOCAL * 3 / 4


def _arm(name: str, words: str, passes: float, guide: str, **settings: Any) -> Arm:
    own: dict[str, Any] = {"method": "byol", "views": 2, "local_views": NUM_LOCAL, "guide": guide,
                           "source_first": False, **settings}  # fmt: skip
    return Arm(name, f"BYOL, {NUM_LOCAL} local views, {words}", own, SYMMETRIC_PASSES / (passes + _LOCAL_PASSES))


_FIRST: dict[str, Any] = {"source_first": True}

STUDY = Study(
    "multicrop",
    "Are local views worth their passes?",
    "Two views and four small crops, which are sources alone, beside two views at equal encoder passes: symmetric, "
    "with the paper's guide and with random sources.",
    (
        siamese("byol", "symmetric", 2, "symmetric"),
        _arm("symmetric_local", "symmetric", 8, "symmetric"),
        _arm("gsg_local", "GSG", 8, "nearest_views"),
        _arm("random_local", "random source", 8, "random_views"),
        _arm("gsg_local_first", "GSG, sources first", 5, "nearest_views", **_FIRST),
        _arm("random_local_first", "random source, sources first", 5, "random_views", **_FIRST),
    ),
    (
        *(Comparison(arm, "byol_symmetric_2v", "equal passes")
          for arm in ("symmetric_local", "gsg_local", "gsg_local_first")),
        Comparison("gsg_local", "symmetric_local", "the guide with local views: equal passes and epochs"),
        Comparison("gsg_local", "random_local", "the guide, beside chance in the same graph"),
        Comparison("gsg_local_first", "random_local_first", "the guide, beside chance in the same graph"),
    ),
    scales=("small", "long", "full"),
)  # fmt: skip
