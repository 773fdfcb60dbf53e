"""Shapes and types of every annotated function are checked while the tests run."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Side by side, each process has a core of its own.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

# Not the rooms that take in whatever a user writes: they check it themselves, in words.
ROOMS = (
    "objective", "metrics", "nets", "methods", "data", "cache", "augment", "loader", "weights", "encoder", "embeddings",
    "retrieval", "exports", "train", "report", "hardware", "distributed",
)  # fmt: skip
install_import_hook([f"stopgrad.{room}" for room in ROOMS], "typechecker.checked")

import numpy as np
import pytest
import torch

SHARED = Path(os.environ.get("STOPGRAD_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Data that is not part of the project: tests that use it skip where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set STOPGRAD_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the tests goes to the user's cache; programs that they start inherit this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOPGRAD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# A network and a run small enough for a test, on the real scans of scikit-learn's digits.
TINY = {
    "backbone": "resnet10_16",
    "projector_width": 32,
    "projection_dim": 32,
    "predictor_width": 16,
    "batch_size": 64,
    "monitor_images": 200,
    "precision": "fp32",
    # The page takes seconds; its own tests turn it on.
    "report": False,
}


@pytest.fixture
def tiny() -> dict[str, object]:
    return dict(TINY)
