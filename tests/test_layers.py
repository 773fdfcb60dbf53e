"""The house's rooms: a room imports only rooms above it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "stopgrad"
# In order; a room may import those before it.
ROOMS = (
    "errors", "visible", "reporter", "stop", "caching", "schedules", "cpu", "settings", "sharing", "removed",
    "config", "presets", "recipes", "distributed", "hardware", "objective", "metrics", "nets", "methods", "data",
    "cache", "augment", "loader", "artifacts", "loggers", "weights", "encoder", "embeddings", "retrieval", "exports",
    "evaluate", "report", "train", "estimator", "bench", "studies", "cli",
)  # fmt: skip
# What may be imported from outside the standard library, where that is pinned.
OUTSIDE = {
    "errors": set(),
    "visible": set(),
    "removed": set(),
    "reporter": set(),
    "schedules": set(),
    "cpu": {"torch"},
    "settings": set(),
    "sharing": set(),
    "config": {"tomli_w"},
    "presets": set(),
    "recipes": set(),
    "objective": {"torch", "jaxtyping"},
    # Distributions of the intervals and tests.
    "metrics": {"torch", "jaxtyping", "scipy"},
    "nets": {"torch", "timm", "jaxtyping"},
    "methods": {"torch", "jaxtyping"},
    "loggers": {"torch", "wandb", "mlflow"},
    "cli": {"cyclopts", "rich"},
}
TENSOR_ROOMS = ("objective", "metrics", "nets")
STANDARD_ENTRIES = {"__init__", "__main__"}


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module


FILES = sorted(path for path in SOURCE.rglob("*.py") if room_of(path) not in STANDARD_ENTRIES)


def test_rooms_and_files_are_small():
    for folder in {path.parent for path in FILES} - {SOURCE}:
        assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= 12, folder
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 300, path


def test_every_room_has_its_place():
    assert {room_of(path) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_up(path):
    room = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "stopgrad":
            other = parts[1] if len(parts) > 1 else None
            if other is None:
                assert room == "cli", f"{path} imports the package itself"
                continue
            assert ROOMS.index(other) <= ROOMS.index(room), f"{path}: {room} imports {other}, which lies below it"
            if room in TENSOR_ROOMS:
                assert other in TENSOR_ROOMS, f"{path}: {room} is for tensors and imports {other}"
        elif room in OUTSIDE and parts[0] not in sys.stdlib_module_names:
            assert parts[0] in OUTSIDE[room], f"{path}: {room} imports {name}"
        if room in TENSOR_ROOMS:
            assert not name.startswith("torch.distributed"), f"{path} imports torch.distributed"


def test_the_rules_of_the_architecture():
    """Spelled out beside the order, so that reordering rooms cannot lose them."""
    imported = {}
    for path in FILES:
        rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("stopgrad.")}
        imported.setdefault(room_of(path), set()).update(rooms - {room_of(path)})
    assert "methods" not in imported["data"]
    assert "evaluate" not in imported["train"]
    assert not any("cli" in rooms for rooms in imported.values())


def test_only_distributed_reads_the_launcher():
    for path in FILES:
        if room_of(path) != "distributed":
            assert "WORLD_SIZE" not in path.read_text(), path


def test_names_are_defined():
    """What ruff's rule says, but for the dimensions in jaxtyping's strings, which it takes for names."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "json"]
    found = json.loads(subprocess.run([*command, str(SOURCE)], capture_output=True, text=True, check=False).stdout)

    def in_a_string(error):
        line = Path(error["filename"]).read_text().splitlines()[error["location"]["row"] - 1]
        return line[: error["location"]["column"] - 1].count('"') % 2 == 1

    assert [(e["filename"], e["location"]["row"], e["message"]) for e in found if not in_a_string(e)] == []
