"""The trained backbone with its preprocessing: how it is saved, and how it comes back."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stopgrad.artifacts.checkpoint import load_checkpoint, write_atomically
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.preprocess import eval_resize
from stopgrad.encoder.embed import Encoder
from stopgrad.encoder.spec import FORMAT, EncoderSpec
from stopgrad.errors import CheckpointError
from stopgrad.nets.backbones import build_backbone, num_features
from stopgrad.recipes import base_config


def spec_of(config: Config, num_features: int) -> EncoderSpec:
    """The spec of a run's backbone."""
    size = config.data.image_size
    return EncoderSpec(
        backbone=config.network.backbone, stem=config.network.stem, num_features=num_features, image_size=size,
        resize=eval_resize(size), mean=config.augmentation.mean, std=config.augmentation.std,
    )  # fmt: skip


def save_encoder(run: RunDir, backbone: nn.Module, spec: EncoderSpec) -> None:
    """Write encoder.safetensors and encoder.json."""
    weights = {name: t.detach().cpu().contiguous() for name, t in backbone.state_dict().items()}
    try:
        write_atomically(run.encoder_file, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    except SafetensorError as error:
        raise OSError(f"{run.encoder_file} cannot be written: {error}") from error
    run.write_json(run.encoder_spec_file.name, asdict(spec))


def load_encoder(run_or_checkpoint: str | Path) -> Encoder:
    """Load a trained backbone.

    Args:
        run_or_checkpoint: a run folder, finished or not (then its newest checkpoint is taken), a `.ckpt` of one, or
            an `encoder.safetensors` with its `encoder.json` beside it.

    Returns:
        The encoder in eval mode, on the CPU.

    Raises:
        CheckpointError: nothing there, damaged, or of another kind.
    """
    path = Path(run_or_checkpoint).expanduser()
    if path.is_dir():
        run = RunDir(path)
        if run.encoder_file.is_file():
            return replace(_from_safetensors(run.encoder_file), name=str(path))
        state, problems = run.newest_checkpoint()
        if state is None:
            detail = f" ({'; '.join(problems)})" if problems else ""
            raise CheckpointError(f"{path} has no encoder.safetensors and no checkpoint yet{detail}.")
        return _from_state(state, str(path))
    if not path.is_file():
        raise CheckpointError(f"{path} is not there: give a run folder, a .ckpt or an encoder.safetensors.")
    if path.suffix == ".ckpt":
        return _from_state(load_checkpoint(path), str(path))
    return _from_safetensors(path)


def _from_safetensors(path: Path) -> Encoder:
    try:
        fields: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if fields.get("format") != FORMAT:
            raise CheckpointError(f"{path.with_suffix('.json')} is not of format {FORMAT!r}.")
        fields |= {name: tuple(fields[name]) for name in ("mean", "std")}
        spec = EncoderSpec(**fields)
        weights = load_file(path)
    except (OSError, SafetensorError, AttributeError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}.") from error
    return assemble(spec, weights, str(path))


def _from_state(state: dict[str, Any], origin: str) -> Encoder:
    config = base_config(None).replace(**state["config"])
    weights = backbone_weights(state["method"])
    return assemble(spec_of(config, 0), weights, origin)


def backbone_weights(method_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of a method's state."""
    prefix = "encoder.0."
    return {name.removeprefix(prefix): t for name, t in method_state.items() if name.startswith(prefix)}


def assemble(spec: EncoderSpec, weights: dict[str, Tensor], origin: str) -> Encoder:
    """An encoder of a spec and a backbone's weights; raises `CheckpointError` naming `origin` where they do not fit."""
    try:
        backbone = build_backbone(spec.backbone, stem=spec.stem, image_size=spec.image_size)
        backbone.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{origin} does not fit backbone {spec.backbone!r}: {error}") from error
    spec = replace(spec, num_features=num_features(backbone))
    return Encoder(backbone.eval().to(memory_format=torch.channels_last), spec.preprocess(), spec, origin)
