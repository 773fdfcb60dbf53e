"""Where timm's weights of a network are: in a cache on disk, in a package, or on a hub; or nowhere.

timm and huggingface_hub retry the hub for about a minute before they give up, even where weights are cached. Here the
cache is looked into first, and the hub is asked once, for a few seconds.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

from stopgrad.errors import CheckpointError
from stopgrad.nets.backbones import SMALL_RESNETS, nearest_names
from stopgrad.weights.files import read_tensors
from stopgrad.weights.packages import INSTALL, Package, file_of, package_of

Place = Literal["cache", "network", "package"]

SECONDS = 3.0
# How long an answer, or none, counts.
SECONDS_REMEMBERED = 60.0
# As timm looks for them.
SAFE_NAME, PLAIN_NAME = "model.safetensors", "pytorch_model.bin"
_LIBRARIES = ("timm", "huggingface_hub", "httpx", "httpx2", "urllib3", "filelock")
_answers: dict[str, tuple[float, str | None]] = {}


@dataclass(frozen=True)
class Located:
    """Where weights are."""

    place: Place
    file: Path | None = None
    """On disk, but for the network."""
    package: Package | None = None
    """Of a package."""


def weights_at_hand(name: str) -> Place | None:
    """Where timm's weights of a network can be had, in the order in which `load_encoder` looks; a few seconds at most.

    Args:
        name: a timm name, with a tag or without.

    Returns:
        `cache`: on this machine, as timm and huggingface_hub keep them; `network`: the place answers that timm fetches
        them from; `package`: in an installed package, such as that of `stopgrad[weights]`; None: nowhere, or there are
        no weights of this name.
    """
    try:
        return locate(name).place
    except CheckpointError:
        return None


def locate(name: str) -> Located:
    """Where weights are, in words where they are not.

    Raises:
        CheckpointError: no such network, none with weights, or weights not available now.
    """
    config = _config_of(name)
    cached = _cached(config)
    if cached is not None:
        return cached
    offline = bool(constants.HF_HUB_OFFLINE)
    url = _url_of(config)
    silence = "HF_HUB_OFFLINE is set" if offline else _silence_of(url)
    if silence is None:
        return Located("network")
    packaged = package_of(name)
    # By its own name only: timm's network of the other name is another.
    if packaged is not None and packaged[0] == name.partition(".")[0]:
        file = file_of(packaged[1])
        if file is not None:
            return Located("package", file, packaged[1])
    why = silence if offline else f"{urlsplit(url).hostname} does not answer ({silence})"
    raise CheckpointError(f"its weights cannot be fetched: {why}, and {elsewhere(name)}", topic="no-weights")


def _config_of(name: str) -> Any:
    if name in SMALL_RESNETS:
        raise CheckpointError("it has no pretrained weights: ?pretrained=false builds it as it is.", topic="no-weights")
    if not timm.is_model(name.partition(".")[0]):
        raise CheckpointError(f"unknown backbone {name!r}: {nearest_names(name)}")
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise CheckpointError(f"{error} There are {', '.join(tags) or 'none with weights'}.") from error
    if config is None or not config.has_weights:
        near = get_close_matches(
            name.partition(".")[0], sorted({n.partition(".")[0] for n in timm.list_pretrained()}), n=3
        )
        raise CheckpointError(
            f"timm has no weights of it: ?pretrained=false builds it as it is. With weights: {', '.join(near)}.",
            topic="no-weights",
        )
    return config


def _cached(config: Any) -> Located | None:
    """Weights on this machine, as timm would have fetched them."""
    if config.file:
        return Located("cache", Path(config.file)) if os.path.isfile(config.file) else None
    if not config.hf_hub_id:
        file = Path(torch.hub.get_dir()) / "checkpoints" / _url_name(config)
        # There timm finds it by itself.
        return Located("cache", file) if file.is_file() else None
    repository, _, revision = config.hf_hub_id.partition("@")
    for filename in _file_names(config):
        found = huggingface_hub.try_to_load_from_cache(repository, filename, revision=revision or None)
        if isinstance(found, str):
            return Located("cache", Path(found))
    return None


def overlay_of(name: str, located: Located) -> dict[str, Any]:
    """What makes timm take weights from the Hugging Face cache without asking the network; else nothing.

    Raises:
        CheckpointError: a damaged file, or one that only unpickling would read.
    """
    config = _config_of(name)
    file = located.file
    if located.place != "cache" or file is None or config.file or not config.hf_hub_id:
        return {}
    # The setting is of the file that timm would take elsewhere, unless it is of this very one.
    custom = bool(config.hf_hub_filename and config.custom_load == "hf")
    if custom or file.suffix == ".safetensors":
        return {"file": str(file), "custom_load": custom}
    # Read here: some releases of timm would unpickle a file.
    return {"state_dict": read_tensors(file), "custom_load": False}


def _file_names(config: Any) -> list[str]:
    if not config.hf_hub_filename:
        return [SAFE_NAME, PLAIN_NAME]
    name = str(config.hf_hub_filename)
    return [f"{name.removesuffix('.bin')}.safetensors", name] if name.endswith(".bin") else [name]


def _url_of(config: Any) -> str:
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        return huggingface_hub.hf_hub_url(repository, _file_names(config)[0], revision=revision or None)
    return str(config.url if isinstance(config.url, str) else config.url[0])


def _url_name(config: Any) -> str:
    return os.path.basename(urlsplit(config.url).path) if isinstance(config.url, str) else str(config.url[1])


def _silence_of(url: str) -> str | None:
    """Why a place does not answer within a few seconds; None where it does, whatever it says."""
    place = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}"
    then, said = _answers.get(place, (-SECONDS_REMEMBERED, None))
    if time.monotonic() - then < SECONDS_REMEMBERED:
        return said
    found: list[str | None] = []

    def ask() -> None:
        try:
            status = int(get_session().head(url, timeout=SECONDS).status_code)
            found.append(f"status {status}" if status >= 500 else None)
        # Of two HTTP libraries, by release of huggingface_hub.
        except Exception as error:
            found.append(_reason_of(error))

    # Looking up a name has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    with quiet_libraries():
        asking.start()
        asking.join(SECONDS + 0.5)
    said = found[0] if found else f"nothing came within {SECONDS:g} s"
    _answers[place] = (time.monotonic(), said)
    return said


def _reason_of(error: BaseException) -> str:
    """What an error comes down to: HTTP libraries wrap the system's own in several of theirs."""
    for _ in range(8):
        within = (getattr(error, "reason", None), error.__cause__, *error.args)
        error = next((inner for inner in within if isinstance(inner, BaseException)), error)
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def elsewhere(name: str) -> str:
    """Where weights are not, and what to do."""
    config, packaged = _config_of(name), package_of(name)
    architecture = name.partition(".")[0]
    if config.hf_hub_id:
        where = f"they are not in the Hugging Face cache, {constants.HF_HUB_CACHE} (HF_HOME places it)"
        fetch = f"hf download {config.hf_hub_id.partition('@')[0]}"
    else:
        where, fetch = f"they are not in {Path(torch.hub.get_dir()) / 'checkpoints'}", f"curl -O {_url_of(config)}"
    install = f"; or {INSTALL}, which brings them" if packaged and packaged[0] == architecture else ""
    return (
        f"{where}. Where there is a network, `{fetch}` fetches them: copy that cache here, or give the file with "
        f"--backbone {architecture}{install}."
    )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Without the lines that libraries log while they fetch."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
