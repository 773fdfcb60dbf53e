"""What a method computes for an image: the axis on which arms of different graphs compare."""

from stopgrad.config import Config
from stopgrad.methods import METHODS
from stopgrad.methods.plugins import find_guide
from stopgrad.objective.guides import traits_of
from stopgrad.settings import SIAMESE_METHODS

FORWARD, BACKWARD = 1, 2


def passes_an_image(config: Config) -> float:
    """Encoder passes for one image in one epoch: a forward counts 1, a backward 2, forwards of targets included.

    Predictor, projector and losses are left out: of a step with a ResNet they are a few per cent.
    """
    o = config.objective
    if o.method not in METHODS:
        raise ValueError(f"unknown method {o.method!r}")
    trained = FORWARD + BACKWARD
    if o.method not in SIAMESE_METHODS:
        return o.views * (trained + (FORWARD if o.method in ("moco", "dino") else 0))
    traits = traits_of(find_guide(o.guide))
    if o.source_first and traits.sources != "all":
        decides = o.guide_keep < 1 and o.guide_keep_by == "decided"
        num_sources = 1 if traits.sources == "image" or decides else o.views // 2
        return o.views * FORWARD + num_sources * trained * o.guide_keep * traits.keep
    return o.views * (trained + (FORWARD if o.method == "byol" else 0))
