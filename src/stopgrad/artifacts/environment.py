"""Versions, machine and command of a run."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_VERSIONED = ("stopgrad", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "scikit-learn")


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """Versions, machine and command, for environment.json."""
    versions = {}
    for package in _VERSIONED:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    cuda = device.type == "cuda"
    return {
        "versions": {"python": platform.python_version(), **versions},
        "device": torch.cuda.get_device_name(device) if cuda else _cpu_name() if device.type == "cpu" else device.type,
        "device_type": device.type,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
        "platform": platform.platform(),
        "git_revision": _git_revision(),
        "command": sys.argv,
    }


def machine_words(environment: Mapping[str, Any]) -> str:
    """Device, torch and precision of a run, and what it began on, where that was something else."""
    versions = environment.get("versions", {})
    words = f"{environment.get('device')}, torch {versions.get('torch')}, {environment.get('precision')}"
    begun_on = environment.get("begun_on")
    return f"{words}; begun on {begun_on}" if begun_on else words


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """Revision of the program's source, where it runs from a checkout."""
    source = Path(__file__).parent
    try:
        top = subprocess.run(
            ["git", "-C", source, "rev-parse", "--show-toplevel"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        # An installed copy may lie inside another repository.
        if not (Path(top.stdout.strip()) / "src" / "stopgrad").is_dir():
            return None
        revision = subprocess.run(
            ["git", "-C", source, "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
        return revision.stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
