"""An encoder in the formats of other programs."""

import copy
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import ConfigError
from stopgrad.exports.hub import write_hub_folder
from stopgrad.exports.onnx import write_onnx
from stopgrad.exports.paths import check_place, default_place
from stopgrad.exports.timm import write_timm
from stopgrad.exports.torchvision import write_torchvision
from stopgrad.exports.verify import preprocess_words, write_own


@dataclass(frozen=True)
class Exported:
    """What was written, and how to load it."""

    to: str
    path: Path
    files: tuple[str, ...]
    """Names of the files, in `path` or beside it."""
    load: str
    """Lines of Python that load it."""
    notes: tuple[str, ...]
    """What else there is to know."""
    max_difference: float | None
    """Largest absolute difference between features of the loaded file and of the encoder; None: not comparable here."""
    feature_scale: float | None
    """Largest absolute feature in that comparison."""
    preprocess: str
    """What an image needs before, in words."""
    encoder: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {**asdict(self), "path": str(self.path)}


def export(
    encoder: str | Path | Encoder, *, to: str, out: str | Path | None = None, with_preprocess: bool = False,
    overwrite: bool = False, license: str = "", trained_on: str = "",
) -> Exported:  # fmt: skip
    """Write a backbone for another program, load it there, and compare the features.

    Args:
        encoder: an encoder, or what `load_encoder` takes.
        to: `timm` (.safetensors for timm's own loader), `torchvision` (.pth, a state dict), `onnx` (.onnx, any batch
            size), `safetensors` (our own format, with a .json beside), or `hub-folder` (a folder with a model card, in
            the layout that timm and the Hugging Face Hub know where timm can build the network).
        out: the file or folder; None: beside the encoder, named after it and the format.
        with_preprocess: onnx: take uint8 pixels and normalise them inside.
        overwrite: replace an earlier export.
        license: hub-folder: the licence of the weights, for the model card, as SPDX writes it (apache-2.0).
        trained_on: hub-folder: what the images are, where they are from and on what terms, for the model card.

    Raises:
        ConfigError: a place that is taken or has a wrong name, a format that cannot hold this network, or a package
            missing.
        CheckpointError: no encoder there.
        OSError: the place cannot be written.
    """
    began = time.perf_counter()
    source = None if isinstance(encoder, Encoder) else encoder
    out = out or default_place(to, encoder.source if isinstance(encoder, Encoder) else encoder)
    path = check_place(to, out, source, overwrite=overwrite)
    if with_preprocess and to != "onnx":
        raise ConfigError(f"with_preprocess is for onnx only: {to} holds weights, which cannot preprocess.")
    if (license or trained_on) and to != "hub-folder":
        raise ConfigError(f"license and trained_on are for the model card of hub-folder: {to} has none.")
    loaded = _on_cpu(encoder) if isinstance(encoder, Encoder) else load_encoder(encoder)
    if loaded.spec is None and to != "onnx":
        raise ConfigError(
            f"a network of your own can be exported to onnx alone, not to {to}: other programs cannot build it."
        )
    if loaded.spec is not None and loaded.spec.norm == "group" and to not in ("onnx", "safetensors"):
        raise ConfigError(
            f"this network has GroupNorms in place of BatchNorms (norm = 'group'), which {to} cannot build by name: "
            "export it to onnx or safetensors."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if to == "onnx":
        written = write_onnx(loaded, path, with_preprocess=with_preprocess)
    elif to == "timm":
        written = write_timm(loaded, path)
    elif to == "torchvision":
        written = write_torchvision(loaded, path)
    elif to == "hub-folder":
        written = write_hub_folder(loaded, path, source, license, trained_on)
    else:
        written = write_own(loaded, path)
    return Exported(
        to=to, path=path, files=written.files, load=written.load, notes=written.notes,
        max_difference=written.max_difference, feature_scale=written.feature_scale,
        preprocess=preprocess_words(loaded.preprocess), encoder=loaded.name,
        seconds=round(time.perf_counter() - began, 1),
    )  # fmt: skip


def _on_cpu(encoder: Encoder) -> Encoder:
    """A copy, so that the caller's own stays where it is."""
    return replace(encoder, backbone=copy.deepcopy(encoder.backbone).cpu().eval())
