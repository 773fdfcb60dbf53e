"""A fine-tuned network on disk: the encoder's own format, with the linear layer and the classes beside it."""

from collections.abc import Sequence
from pathlib import Path

from stopgrad.artifacts.checkpoint import write_weights
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.load import save_encoder
from stopgrad.errors import ConfigError
from stopgrad.evaluate.shared.tuning import Classifier

FORMAT = "stopgrad-classifier-1"
HEAD_FILE, HEAD_SPEC_FILE = "head.safetensors", "head.json"


def check_free(encoder: Encoder, out: str | Path, *, overwrite: bool) -> None:
    """Raise `ConfigError` where the network could not be written in the end: before it is trained."""
    folder = Path(out).expanduser()
    if encoder.spec is None:
        raise ConfigError("out: the encoder is a network of your own, which cannot be rebuilt from a file.")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out = {folder} is a file: name a folder.")
    names = ("encoder.safetensors", "encoder.json", HEAD_FILE, HEAD_SPEC_FILE)
    if RunDir(folder).is_run:
        raise ConfigError(f"out = {folder} is a run, whose encoder it would replace: name another folder.")
    if not overwrite and (there := [name for name in names if (folder / name).exists()]):
        raise ConfigError(f"{folder} holds {there[0]} already: use --overwrite, or another folder.")


def save_classifier(
    out: str | Path, encoder: Encoder, network: Classifier, class_names: Sequence[str], *, overwrite: bool = False
) -> None:
    """Write a fine-tuned network into a folder, made if need be.

    encoder.safetensors and encoder.json are the backbone, as `load_encoder` takes it; head.safetensors holds `weight`
    `[class, dim]` and `bias` `[class]` of the linear layer on its features, and head.json the names of the classes.

    Args:
        out: the folder.
        encoder: what was fine-tuned.
        network: what came of it.
        class_names: in the order of the layer's rows.
        overwrite: replace files that are there.

    Raises:
        ConfigError: the folder is taken, or the encoder a network of the caller's own.
    """
    check_free(encoder, out, overwrite=overwrite)
    folder = RunDir(out)
    folder.path.mkdir(parents=True, exist_ok=True)
    assert encoder.spec is not None
    save_encoder(folder, network.backbone, encoder.spec)
    write_weights(folder.path / HEAD_FILE, network.head)
    folder.write_json(HEAD_SPEC_FILE, {"format": FORMAT, "class_names": list(class_names)})
