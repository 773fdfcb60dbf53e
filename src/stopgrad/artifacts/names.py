"""What is kept in a run, in words for people: one table for the console, pages and model cards."""

from stopgrad.config import Config

EVALUATIONS = {
    "knn": "k-NN",
    "linear": "Linear probe",
    "linear-augmented": "Linear probe, augmented",
    "finetune": "Fine-tuning",
    "few-label": "Few labels",
}
"""The evaluations, by `Outcome.evaluation`."""
VARIANTS = {
    "trained": "trained",
    "start": "as it started",
    "untrained": "untrained network",
    "pixels": "raw pixels",
    "pixels_centred": "raw pixels, mean-centred",
    "from_scratch": "trained from scratch",
}
"""What is evaluated, by the keys of scores."""


def evaluation_name(key: str) -> str:
    """The name of an evaluation; of one that is unknown, its key."""
    return EVALUATIONS.get(key, key)


def variant_name(key: str) -> str:
    """The name of what is evaluated, in lower case; of what is unknown, its key."""
    return VARIANTS.get(key, key.replace("_", " "))


def start_name(config: Config) -> str:
    """What a run's network before training is called: `untrained`, or where it came with weights `as it started`."""
    own = config.network.backbone.startswith("module:")
    return "as it started" if own or config.network.init != "random" else "untrained"
