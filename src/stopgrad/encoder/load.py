"""The trained backbone with its preprocessing: saving and loading."""

import copy
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stopgrad.artifacts.checkpoint import load_checkpoint, write_weights
from stopgrad.artifacts.hub_folder import HUB_SPEC, HUB_WEIGHTS, is_spec
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.encoder.encoder import Encoder, encoder_of
from stopgrad.encoder.from_timm import from_package, from_timm
from stopgrad.errors import CheckpointError, ConfigError
from stopgrad.loader.preprocess import eval_resize, pixels_of
from stopgrad.nets.backbones import declare_num_features, num_features, set_image_size
from stopgrad.recipes import base_config
from stopgrad.removed import to_look_at
from stopgrad.weights.conventions import described, hint_of, triple_words, weights_in
from stopgrad.weights.files import is_torch_file, read_weights
from stopgrad.weights.fit import fill
from stopgrad.weights.foreign import Recognised, recognise
from stopgrad.weights.options import (
    PACKAGE,
    TIMM,
    LoadOptions,
    Triple,
    check_there,
    parse_options,
    split_query,
    with_query,
)  # fmt: skip
from stopgrad.weights.spec import FORMAT, OWN, EncoderSpec


def spec_of(config: Config, num_features: int) -> EncoderSpec:
    """The spec of a run's backbone."""
    network, size = config.network, config.data.eval_size or config.data.image_size
    return EncoderSpec(
        backbone=network.backbone, stem=network.stem, num_features=num_features, image_size=size,
        resize=eval_resize(size), mean=config.augmentation.mean, std=config.augmentation.std,
        norm="group" if network.norm == "group" else "batch", pool=network.pool, patch_size=network.patch_size,
        pixels=pixels_of(config),
    )  # fmt: skip


def save_encoder(run: RunDir, backbone: nn.Module, spec: EncoderSpec) -> None:
    """Write encoder.safetensors and encoder.json."""
    _save(run, backbone, spec, run.encoder_file, run.encoder_spec_file)


def save_start(run: RunDir, backbone: nn.Module, spec: EncoderSpec) -> None:
    """Write start.safetensors and start.json: the encoder as it started, before training."""
    _save(run, backbone, spec, run.start_file, run.start_spec_file)


def _save(run: RunDir, backbone: nn.Module, spec: EncoderSpec, file: Path, spec_file: Path) -> None:
    write_weights(file, backbone)
    run.write_json(spec_file.name, asdict(spec))


def load_encoder(
    run_or_checkpoint: str | Path, *, image_size: int | None = None, mean: Triple | None = None,
    std: Triple | None = None, backbone: str | nn.Module | None = None, stem: str | None = None,
    prefix: str | None = None, pretrained: bool | None = None, partial: bool | None = None,
) -> Encoder:  # fmt: skip
    """Load a trained backbone: of a run, of another program, or of timm.

    Args:
        run_or_checkpoint: one of

            - a run folder, finished or not (then its newest checkpoint is taken), a `.ckpt` of one, an
              `encoder.safetensors` with its `encoder.json` beside it, or a folder of `export --to hub-folder`;
            - a file of weights by another program, by torch.save or as safetensors, or a folder of a model hub: ResNets
              are recognised in what torchvision, timm, SimSiam, the authors' GSG, MoCo, DINO and Lightly write, any
              other network of timm by its config.json or, where one alone has the shapes, by its shapes; heads are left
              out, and `Encoder.name` says what was taken;
            - `timm:NAME`: timm's network with its weights (from the cache or fetched by timm) and its own size and
              normalisation; `timm:NAME?pretrained=false` as built, by a fixed seed;
            - `package:NAME`: the same from an installed package alone, as `stopgrad[weights]` brings it.
        image_size, mean, std: side of the images, and means and deviations of the channels (of pixels in 0..1), where
            they are not as the file or timm's config of the network says. Of ResNets in other programs' files: 224 px
            and ImageNet's, with a small stem 32 px and CIFAR-10's.
        backbone, stem, prefix: of another program's file, what the weights do not tell: timm's name of the network, the
            setting `stem`, and what the names of the weights begin with. Of anything else, what it must be. Of a run
            that trained a network of your own, `backbone` is that network, which is copied.
        pretrained: of timm, whether with its weights.
        partial: whether weights may fit in part: the rest keeps its random initialisation (by a fixed seed), and
            `Encoder.name` says so. Then `backbone` and `stem` may also be others than a run's or timm's.

    All but the first can be given behind a question mark as well, as in `simsiam.pth?image_size=96&backbone=resnet50`.

    Returns:
        The encoder in eval mode, on the CPU.

    Raises:
        CheckpointError: nothing there or not to be fetched, damaged, of an unknown network or one of several, not
            fitting, or with Python objects that only unpickling would read.
        ConfigError: an unknown option, or one that does not apply to this kind of encoder.
    """
    if isinstance(backbone, nn.Module):
        return _of_own_network(Path(run_or_checkpoint).expanduser(), backbone)
    text, options = split_query(str(run_or_checkpoint))
    keywords = {"image_size": image_size, "mean": mean, "std": std, "backbone": backbone, "stem": stem,
                "prefix": prefix, "pretrained": pretrained, "partial": partial}  # fmt: skip
    options = options.updated(parse_options(keywords))
    # The caller's random numbers are left alone.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return _load(text, options)


def _load(text: str, options: LoadOptions) -> Encoder:
    if text.startswith((TIMM, PACKAGE)):
        kind, _, name = text.partition(":")
        more = ("pretrained",) if text.startswith(TIMM) else ()
        _only(options, text, "image_size", "mean", "std", "backbone", "stem", "partial", *more)
        encoder = (from_timm if f"{kind}:" == TIMM else from_package)(name, options)
        return replace(_adjusted(_refitted(encoder, options), options), source=with_query(text, options))
    check_there(text)
    path = Path(text).expanduser()
    source = with_query(os.path.abspath(path), options)
    own = _own(path)
    if own is not None:
        _only(options, text, "image_size", "mean", "std", "backbone", "stem", "partial")
        return replace(_adjusted(_refitted(own, options), options), source=source)
    _only(options, text, "image_size", "mean", "std", "backbone", "stem", "prefix", "partial")
    return replace(_from_foreign(path, options), source=source)


def _own(path: Path) -> Encoder | None:
    """What this program wrote; None for a file of another's."""
    if path.is_dir():
        run = RunDir(path)
        if run.encoder_file.is_file():
            return replace(_from_safetensors(run.encoder_file, run.encoder_spec_file), name=str(path))
        if (path / HUB_WEIGHTS).is_file() and (path / HUB_SPEC).is_file():
            return replace(_from_safetensors(path / HUB_WEIGHTS, path / HUB_SPEC), name=str(path))
        if weights_in(path) is not None:
            return None
        state, problems = run.newest_checkpoint()
        if state is None:
            detail = f" ({'; '.join(problems)})" if problems else ""
            raise CheckpointError(f"{path} has no encoder.safetensors and no checkpoint yet{detail}.")
        step = state["progress"]["step"]
        return replace(_from_state(state, str(path)), name=f"{path} (unfinished: step {step:,})")
    if path.name == "encoder.safetensors" or (path.suffix == ".safetensors" and is_spec(path.with_suffix(".json"))):
        return _from_safetensors(path, path.with_suffix(".json"))
    if is_torch_file(path):
        return None
    if path.suffix == ".ckpt":
        return _from_state(load_checkpoint(path), str(path))
    return None


def _from_safetensors(path: Path, spec_file: Path) -> Encoder:
    spec, weights = _read_safetensors(path, spec_file)
    return assemble(spec, weights, str(path))


def _read_safetensors(path: Path, spec_file: Path) -> tuple[EncoderSpec, dict[str, Tensor]]:
    try:
        fields: dict[str, Any] = json.loads(spec_file.read_text(encoding="utf-8"))
        if fields.get("format") != FORMAT:
            raise CheckpointError(f"{spec_file} is not of format {FORMAT!r}.")
        spec = EncoderSpec.of(fields)
        weights = load_file(path)
    except (OSError, SafetensorError, AttributeError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}.") from error
    return spec, weights


def _of_own_network(path: Path, network: nn.Module) -> Encoder:
    """A run's encoder in a copy of the caller's own network."""
    weights_file = RunDir(path).encoder_file if path.is_dir() else path
    spec, weights = _read_safetensors(weights_file, weights_file.with_suffix(".json"))
    backbone = copy.deepcopy(network)
    try:
        backbone.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit a {type(network).__name__}: {error}") from error
    declare_num_features(backbone, spec.num_features)
    return replace(encoder_of(backbone, spec, str(path)), spec=None)


def _from_state(state: dict[str, Any], origin: str) -> Encoder:
    config = base_config(None).replace(**to_look_at(state["config"]))
    weights = backbone_weights(state["method"])
    return assemble(spec_of(config, 0), weights, origin)


def _from_foreign(path: Path, options: LoadOptions) -> Encoder:
    file = weights_in(path) if path.is_dir() else path
    assert file is not None
    tensors, texts = read_weights(file)
    card = None if options.backbone is not None else described(file)
    found: Recognised | None = None
    if card is not None:
        try:
            found = recognise(tensors, replace(options, backbone=card.backbone), str(path))
            found = replace(found, usual=card.usual or found.usual, told_by=f"as {card.where.name} says")
        except CheckpointError:
            # A config.json of something else may lie beside a file, not in a folder of one network.
            if path.is_dir():
                raise
    found = found or recognise(tensors, options, str(path), hint_of(texts))
    spec = found.usual.spec(found.backbone, found.stem, num_features(found.module), options)
    words = f"{found.words}; {spec.image_size} px"
    if found.usual.of:
        words += f", mean {triple_words(spec.mean)}, std {triple_words(spec.std)}"
    return encoder_of(found.module, spec, f"{path} ({words})")


def _refitted(encoder: Encoder, options: LoadOptions) -> Encoder:
    """An encoder's weights in another network, as far as they fit, where that is requested."""
    spec = encoder.spec
    assert spec is not None
    backbone, stem = options.backbone or spec.backbone, options.stem or spec.stem
    others = backbone.partition(".")[0] != spec.backbone.partition(".")[0]
    if not others and stem == spec.stem:
        return encoder
    if not options.partial:
        raise ConfigError(
            f"{encoder.name}: {'backbone' if others else 'stem'} cannot be chosen here, it is a {spec.backbone} with "
            f"{spec.stem} stem. What fits another network is taken with --partial (partial=True in Python)."
        )
    module, fit = fill(backbone, stem, spec.image_size, encoder.backbone.state_dict(), encoder.name, partial=True)
    spec = replace(spec, backbone=backbone, stem=stem, num_features=num_features(module))
    stem_words = "" if stem == "standard" else f" with {stem} stem"
    part = f"; {fit.part_words}" if fit.part_words else ""
    return encoder_of(module, spec, f"{encoder.name} ({backbone}{stem_words}{part})")


def _adjusted(encoder: Encoder, options: LoadOptions) -> Encoder:
    """An encoder of ours for images of another size or normalisation than it was trained on."""
    assert encoder.spec is not None
    spec = replace(encoder.spec, mean=options.mean or encoder.spec.mean, std=options.std or encoder.spec.std)
    if options.image_size not in (None, spec.image_size):
        spec = replace(spec, image_size=options.image_size, resize=eval_resize(options.image_size))
        try:
            set_image_size(encoder.backbone, spec.backbone, spec.image_size, spec.patch_size)
        except ValueError as error:
            raise ConfigError(f"{encoder.name}: {error}") from error
    return replace(encoder, spec=spec, preprocess=spec.preprocess())


def _only(options: LoadOptions, origin: str, *allowed: str) -> None:
    """Refuse options that do not apply to this kind of encoder."""
    if idle := [name for name in options.given() if name not in allowed]:
        raise ConfigError(f"{origin}: {idle[0]} cannot be chosen here; what can: {', '.join(allowed)}.")


def backbone_weights(method_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of a method's state."""
    prefix = "encoder.0."
    return {name.removeprefix(prefix): t for name, t in method_state.items() if name.startswith(prefix)}


def assemble(spec: EncoderSpec, weights: dict[str, Tensor], origin: str) -> Encoder:
    """An encoder of a spec and a backbone's weights; raises `CheckpointError` naming `origin` where they do not fit."""
    if spec.backbone.startswith(OWN):
        raise CheckpointError(
            f"{origin} is of a network of your own, {spec.backbone.removeprefix(OWN)}: load it in Python, by "
            "load_encoder(RUN, backbone=NETWORK)."
        )
    try:
        backbone = spec.build()
        backbone.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{origin} does not fit backbone {spec.backbone!r}: {error}") from error
    return encoder_of(backbone, replace(spec, num_features=num_features(backbone)), origin)
