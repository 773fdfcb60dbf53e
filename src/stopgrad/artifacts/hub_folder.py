"""The names of the files in a folder to publish."""

import json
from pathlib import Path

HUB_WEIGHTS, HUB_SPEC = "model.safetensors", "stopgrad.json"
HUB_CARD, HUB_CONFIG, HUB_PREPROCESSING = "README.md", "config.json", "preprocessing.json"
HUB_FILES = (HUB_CARD, HUB_WEIGHTS, HUB_SPEC, HUB_PREPROCESSING, HUB_CONFIG)


def is_spec(file: Path) -> bool:
    """Whether a file is a spec of ours."""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["format"]).startswith("stopgrad-encoder")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
