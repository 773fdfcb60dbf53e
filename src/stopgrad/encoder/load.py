"""The trained backbone with its preprocessing: how it is saved, and how it comes back."""

import json
import math
import os
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from stopgrad.artifacts.checkpoint import load_checkpoint, write_atomically
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.preprocess import eval_resize
from stopgrad.encoder.asked import (
    CIFAR_MEAN,
    CIFAR_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Asked,
    Triple,
    asked_of,
    split_question,
    with_question,
)
from stopgrad.encoder.embed import Encoder
from stopgrad.encoder.export_place import HUB_SPEC, HUB_WEIGHTS
from stopgrad.encoder.foreign import recognise
from stopgrad.encoder.spec import FORMAT, EncoderSpec
from stopgrad.encoder.weights import is_torch_file, read_tensors
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.nets.backbones import build_backbone, native_image_size, num_features, set_image_size
from stopgrad.recipes import base_config

TIMM = "timm:"
OFFLINE = " timm fetches them once and keeps them in the Hugging Face cache; without a network, fetch them elsewhere."


def spec_of(config: Config, num_features: int) -> EncoderSpec:
    """The spec of a run's backbone."""
    network, size = config.network, config.data.eval_size or config.data.image_size
    return EncoderSpec(
        backbone=network.backbone, stem=network.stem, num_features=num_features, image_size=size,
        resize=eval_resize(size), mean=config.augmentation.mean, std=config.augmentation.std,
        norm="group" if network.norm == "group" else "batch", pool=network.pool, patch_size=network.patch_size,
    )  # fmt: skip


def save_encoder(run: RunDir, backbone: nn.Module, spec: EncoderSpec) -> None:
    """Write encoder.safetensors and encoder.json."""
    _save(run, backbone, spec, run.encoder_file, run.encoder_spec_file)


def save_start(run: RunDir, backbone: nn.Module, spec: EncoderSpec) -> None:
    """Write start.safetensors and start.json: the encoder as it came, before training."""
    _save(run, backbone, spec, run.start_file, run.start_spec_file)


def _save(run: RunDir, backbone: nn.Module, spec: EncoderSpec, file: Path, spec_file: Path) -> None:
    weights = {name: t.detach().cpu().contiguous() for name, t in backbone.state_dict().items()}
    try:
        write_atomically(file, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    except SafetensorError as error:
        raise OSError(f"{file} cannot be written: {error}") from error
    run.write_json(spec_file.name, asdict(spec))


def load_encoder(
    run_or_checkpoint: str | Path, *, image_size: int | None = None, mean: Triple | None = None,
    std: Triple | None = None, backbone: str | None = None, stem: str | None = None, prefix: str | None = None,
    pretrained: bool | None = None,
) -> Encoder:  # fmt: skip
    """Load a trained backbone: of a run, of another program, or of timm.

    Args:
        run_or_checkpoint: one of

            - a run folder, finished or not (then its newest checkpoint is taken), a `.ckpt` of one, an
              `encoder.safetensors` with its `encoder.json` beside it, or a folder of `export --to hub-folder`;
            - a file of weights by another program, by torch.save or as safetensors: ResNets are recognised in what
              torchvision, timm, SimSiam, the authors' GSG, MoCo, DINO and Lightly write, heads are left out, and
              `Encoder.name` says what was taken; of another timm network say `backbone`;
            - `timm:NAME`: timm's network with its weights (fetched by timm) and its own size and normalisation;
              `timm:NAME?pretrained=false` as built, by a fixed seed.
        image_size, mean, std: side of the images, and means and deviations of the channels (of pixels in 0..1), where
            they are not as the file or timm says. Other programs' files say nothing: 224 px and ImageNet's, with a
            small stem 32 px and CIFAR-10's.
        backbone, stem, prefix: of another program's file, what the weights do not tell: timm's name of the network, the
            setting `stem`, and what the names of the weights begin with.
        pretrained: of timm, whether with its weights.

    All but the first can be given behind a question mark as well, as in `simsiam.pth?image_size=96&backbone=resnet50`.

    Returns:
        The encoder in eval mode, on the CPU.

    Raises:
        CheckpointError: nothing there, damaged, of an unknown network, or with Python objects that only unpickling
            would read.
        ConfigError: something asked that is unknown or does not go with this kind.
    """
    text, said = split_question(str(run_or_checkpoint))
    keywords = {"image_size": image_size, "mean": mean, "std": std, "backbone": backbone, "stem": stem,
                "prefix": prefix, "pretrained": pretrained}  # fmt: skip
    spoken = asked_of(keywords)
    said = replace(said, **{name: getattr(spoken, name) for name in spoken.given()})
    if text.startswith(TIMM):
        _only(said, text, "image_size", "mean", "std", "pretrained")
        return replace(_from_timm(text.removeprefix(TIMM), said), source=with_question(text, said))
    if re.match(r"(torchvision|hub|hf-hub|hf_hub|https?):", text):
        raise CheckpointError(
            f"{text}: only timm's networks are fetched, as timm:NAME; it has torchvision's weights too, such as "
            "timm:resnet50.tv_in1k. Anything else: download it and give its path."
        )
    path = Path(text).expanduser()
    if not path.exists():
        raise CheckpointError(
            f"{path} is not there: give a run folder, a .ckpt, an encoder.safetensors, another program's weights, or "
            "timm:NAME."
        )
    source = with_question(os.path.abspath(path), said)
    encoder = _own(path)
    if encoder is not None:
        _only(said, text, "image_size", "mean", "std")
        return replace(_adjusted(encoder, said), source=source)
    _only(said, text, "image_size", "mean", "std", "backbone", "stem", "prefix")
    return replace(_from_foreign(path, said), source=source)


def _own(path: Path) -> Encoder | None:
    """What this program wrote; None for a file of another's."""
    if path.is_dir():
        run = RunDir(path)
        if run.encoder_file.is_file():
            return replace(_from_safetensors(run.encoder_file, run.encoder_spec_file), name=str(path))
        if (path / HUB_WEIGHTS).is_file() and (path / HUB_SPEC).is_file():
            return replace(_from_safetensors(path / HUB_WEIGHTS, path / HUB_SPEC), name=str(path))
        state, problems = run.newest_checkpoint()
        if state is None:
            detail = f" ({'; '.join(problems)})" if problems else ""
            raise CheckpointError(f"{path} has no encoder.safetensors and no checkpoint yet{detail}.")
        step = state["progress"]["step"]
        return replace(_from_state(state, str(path)), name=f"{path} (unfinished: step {step:,})")
    if path.name == "encoder.safetensors" or (path.suffix == ".safetensors" and path.with_suffix(".json").is_file()):
        return _from_safetensors(path, path.with_suffix(".json"))
    if is_torch_file(path):
        return None
    if path.suffix == ".ckpt":
        return _from_state(load_checkpoint(path), str(path))
    return None


def _from_safetensors(path: Path, spec_file: Path) -> Encoder:
    try:
        fields: dict[str, Any] = json.loads(spec_file.read_text(encoding="utf-8"))
        if fields.get("format") != FORMAT:
            raise CheckpointError(f"{spec_file} is not of format {FORMAT!r}.")
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


def _from_foreign(path: Path, asked: Asked) -> Encoder:
    found = recognise(read_tensors(path), asked, str(path))
    small = found.stem != "standard"
    spec = EncoderSpec(
        backbone=found.backbone, stem=found.stem, num_features=num_features(found.module),
        image_size=found.image_size, resize=eval_resize(found.image_size),
        mean=asked.mean or (CIFAR_MEAN if small else IMAGENET_MEAN),
        std=asked.std or (CIFAR_STD if small else IMAGENET_STD),
    )  # fmt: skip
    return _encoder(found.module, spec, f"{path} ({found.words}; {found.image_size} px)")


def _from_timm(name: str, asked: Asked) -> Encoder:
    trained = asked.pretrained is not False
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            backbone: Any = build_backbone(name, image_size=native_image_size(name), pretrained=trained)
        usual = resolve_model_data_config(backbone) if hasattr(backbone, "pretrained_cfg") else {}
        usual_size = int(usual["input_size"][-1]) if usual else 32
        size = asked.image_size or usual_size
        set_image_size(backbone, name, size)
    except ValueError as error:
        raise CheckpointError(f"{TIMM}{name}: {error}{OFFLINE if 'fetched' in str(error) else ''}") from error
    # timm's own arithmetic; of another size than the usual, ours.
    resize = math.floor(size / usual["crop_pct"]) if usual and size == usual_size else eval_resize(size)
    spec = EncoderSpec(
        backbone=name, stem="standard", num_features=num_features(backbone), image_size=size, resize=resize,
        mean=asked.mean or tuple(usual.get("mean", IMAGENET_MEAN)),
        std=asked.std or tuple(usual.get("std", IMAGENET_STD)),
    )  # fmt: skip
    return _encoder(backbone, spec, f"{TIMM}{name}" + ("" if trained else " (untrained)"))


def _adjusted(encoder: Encoder, asked: Asked) -> Encoder:
    """An encoder of ours for images of another size or normalisation than it was trained on."""
    if not asked.given():
        return encoder
    assert encoder.spec is not None
    spec = replace(encoder.spec, mean=asked.mean or encoder.spec.mean, std=asked.std or encoder.spec.std)
    if asked.image_size is not None:
        spec = replace(spec, image_size=asked.image_size, resize=eval_resize(asked.image_size))
        try:
            set_image_size(encoder.backbone, spec.backbone, spec.image_size)
        except ValueError as error:
            raise ConfigError(f"{encoder.name}: {error}") from error
    return replace(encoder, spec=spec, preprocess=spec.preprocess())


def _only(asked: Asked, origin: str, *allowed: str) -> None:
    """Refuse what cannot be asked of this kind of encoder."""
    if idle := [name for name in asked.given() if name not in allowed]:
        raise ConfigError(f"{origin}: {idle[0]} cannot be chosen here; what can: {', '.join(allowed)}.")


def backbone_weights(method_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of a method's state."""
    prefix = "encoder.0."
    return {name.removeprefix(prefix): t for name, t in method_state.items() if name.startswith(prefix)}


def assemble(spec: EncoderSpec, weights: dict[str, Tensor], origin: str) -> Encoder:
    """An encoder of a spec and a backbone's weights; raises `CheckpointError` naming `origin` where they do not fit."""
    try:
        backbone = spec.build()
        backbone.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{origin} does not fit backbone {spec.backbone!r}: {error}") from error
    return _encoder(backbone, replace(spec, num_features=num_features(backbone)), origin)


def _encoder(backbone: nn.Module, spec: EncoderSpec, name: str) -> Encoder:
    placed: nn.Module = backbone.eval().to(memory_format=torch.channels_last)
    return Encoder(placed, spec.preprocess(), spec, name)
