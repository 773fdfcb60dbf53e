"""A folder to publish: weights, how to build and to feed the network, and a model card."""

import json
import re
from pathlib import Path
from typing import Any

import timm

from stopgrad.artifacts.hub_folder import HUB_CARD, HUB_CONFIG, HUB_PREPROCESSING, HUB_SPEC, HUB_WEIGHTS
from stopgrad.artifacts.names import variant_name
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.data.place import SCIKIT, scikit_name
from stopgrad.data.shards.place import without_query
from stopgrad.encoder.encoder import Encoder
from stopgrad.encoder.load import load_encoder
from stopgrad.errors import ConfigError
from stopgrad.exports.timm import has_timm_name, no_name_words, timm_config, timm_lines, timm_loads
from stopgrad.exports.verify import Written, compare, preprocess_words, quoted, spec_of, write_own, write_text
from stopgrad.visible import visible
from stopgrad.weights.options import place_of

GUIDES = {
    "nearest_views": "guided stop-gradient (Lee and Lee, NeurIPS 2023, arXiv 2503.09058)",
    "symmetric": "symmetric weights, as published",
    "random_views": "the source view chosen at random",
    "farthest_views": "the source views chosen the farthest apart, the paper's reversed ablation",
}
METHODS = {"simsiam": "SimSiam (arXiv 2011.10566)", "byol": "BYOL (arXiv 2006.07733)"}


def model_card(encoder: Encoder, name: str, run: RunDir | None, licence: str = "", trained_on: str = "") -> str:
    """The card as Markdown.

    Args:
        encoder: the backbone.
        name: what to call it.
        run: the run that trained it, if it is one's own.
        licence: of the weights, as the Hub and SPDX write it, such as apache-2.0; empty: none chosen.
        trained_on: what the images are, where they are from and on what terms, in words; empty: what the run knows.

    Raises:
        ConfigError: a licence that is not one word.
    """
    spec = spec_of(encoder)
    timm_too = has_timm_name(spec)
    parts = [_front_matter(timm_too, licence), f"# {prose(name)}\n", _summary(encoder)]
    if run is None:
        known = f"Converted from {code(_tail(encoder.name))}. Trained on: {prose(trained_on)}." if trained_on else (
            f"Not known here: the weights were converted from {code(_tail(encoder.name))}. Say what they were trained "
            "on, and by whom."
        )  # fmt: skip
        parts.append(f"## Training\n\n{known}\n")
    else:
        config, summary = run.read_config(), run.found_json(run.summary_file.name)
        parts += [_training(run, config, summary, trained_on), _worth(run, summary)]
    parts += [_loading(encoder, name), f"## Preprocessing\n\n{preprocess_words(encoder.preprocess)}.\n"]
    parts += [_limits(encoder, run), _licence(licence)]
    return "\n".join(parts)


def code(text: Any) -> str:
    """A name as code in Markdown, whatever backticks it has."""
    shown = visible(str(text)).replace("\n", " ")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if "`" in shown[:1] + shown[-1:] else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def prose(text: Any) -> str:
    """Words as they are in Markdown: no links, code, HTML, tables or lines of their own."""
    return re.sub(r"[\\`\[\]|]|<(?=[A-Za-z/!?])", r"\\\g<0>", visible(str(text)).replace("\n", " "))


def check_licence(licence: str) -> None:
    """Refuse what would not stand as one word in the head of the card."""
    if not re.fullmatch(r"[\w.+-]*", licence):
        raise ConfigError(f"licence {licence!r}: an identifier of one word is needed, such as apache-2.0 or cc-by-4.0.")


def _front_matter(timm_too: bool, licence: str) -> str:
    check_licence(licence)
    # Without a choice there is no key: nobody may assume one.
    key = f"license: {licence.lower()}\n" if licence else ""
    library = "timm" if timm_too else "stopgrad"
    tags = "".join(f"- {tag}\n" for tag in ("image-feature-extraction", "self-supervised-learning", "stopgrad"))
    return f"---\n{key}library_name: {library}\ntags:\n{tags}---\n"


def _summary(encoder: Encoder) -> str:
    spec = spec_of(encoder)
    num = sum(p.numel() for p in encoder.backbone.parameters())
    stem = "" if spec.stem == "standard" else f" with a {spec.stem} stem (3x3 convolution, no max-pool)"
    return (
        f"A `{spec.backbone}`{stem} that turns images of {spec.image_size} x {spec.image_size} pixels into "
        f"{spec.num_features} features each. {num / 1e6:.2f} million weights, no classifier.\n"
    )


def _training(run: RunDir, config: Config, summary: dict[str, Any], trained_on: str) -> str:
    c, environment = config, run.read_environment()
    images = f"{summary['num_images']:,} images" if "num_images" in summary else "images"
    if trained_on:
        origin = f"without labels: {prose(trained_on)}."
    elif c.data.path.startswith(SCIKIT):
        origin = f"of {scikit_name(c.data.path)}, without their labels."
    elif c.data.path:
        name = Path(without_query(c.data.path)).name
        origin = f"of {code(name)}, without labels. Describe them here: the run knows no more."
    elif run.images_were_in_memory:
        origin = "that were handed over in memory, without labels. Describe them here: the run knows no more."
    else:
        origin = "of scikit-learn's handwritten digits, without their labels."
    init = {"random": "random weights", "pretrained": "timm's pretrained weights"}.get(
        c.network.init, f"the weights of {code(Path(c.network.init).name)}"
    )
    lines = [
        f"- **Data**: {images} {origin}",
        f"- **Method**: {method_words(c)}.",
        f"- **Begun from** {init}, seed {c.training.seed}.",
    ]
    if "steps" in summary:
        lines.append(
            f"- **Length**: {summary['steps']:,} steps of {c.training.batch_size} images, {summary['epochs']:g} epochs"
            + (f", {summary['seconds']:,.0f} s on {prose(environment['device'])}." if "device" in environment else ".")
        )
    if versions := environment.get("versions"):
        lines.append("- **Versions**: " + ", ".join(f"{k} {prose(v)}" for k, v in versions.items() if k in (
            "stopgrad", "torch", "timm", "python")) + ".")  # fmt: skip
    return "## Training\n\n" + "\n".join(lines) + "\n"


def method_words(config: Config) -> str:
    """Method, guide, views and predictor, with where they are published."""
    o = config.objective
    if o.method not in METHODS:
        return config.method_words
    predictor = "with a predictor" if config.network.predictor else "without a predictor"
    return f"{METHODS[o.method]}, {GUIDES.get(o.guide, f'guide {code(o.guide)}')}; {o.views_words}, {predictor}"


def _worth(run: RunDir, summary: dict[str, Any]) -> str:
    text = "## What it is worth\n\n"
    if not summary:
        return text + "Not measured: the run has no summary.json, so it is not finished.\n"
    text += f"{prose(summary.get('verdict_words', 'No verdict.'))}\n"
    if knn := summary.get("knn"):
        text += "\n| features | k-NN top-1, % |\n|---|---|\n"
        text += "".join(f"| {prose(variant_name(k))} | {100 * v:.1f} |\n" for k, v in knn.items())
        text += f"\n{prose(summary.get('knn_protocol', ''))}.\n"
    else:
        text += "\nWithout labels there is no accuracy to report.\n"
    for name, found in run.read_evaluations().items():
        if "accuracy" in found and "protocol" in found:
            command = code(f"stopgrad evaluate {name}")
            text += f"\n{command}: {100 * found['accuracy']:.1f}%. {prose(found['protocol'])}.\n"
    return text


def _loading(encoder: Encoder, name: str) -> str:
    spec = spec_of(encoder)
    text = "## Use\n\nIn the folder above this one:\n\n```python\nimport stopgrad\n\n"
    text += f"encoder = stopgrad.load_encoder({quoted(name)})\n"
    text += f'features = encoder.embed("photos/")  # float32 [n, {spec.num_features}]\n```\n'
    if has_timm_name(spec):
        return text + (
            "\nWith timm alone:\n\n```python\nimport timm\n\n"
            f"model = timm.create_model({quoted(f'local-dir:{name}')}, pretrained=True, num_classes=0).eval()\n"
            "config = timm.data.resolve_model_data_config(model)  # size, mean, std\n"
            "transform = timm.data.create_transform(**config, is_training=False)\n```\n\n"
            "Once published, `hf-hub:OWNER/NAME` in place of `local-dir:...`. `num_classes=10` adds a new classifier.\n"
        )
    lines = timm_lines(spec, f"{name}/{HUB_WEIGHTS}")
    return f"{text}\nWith timm alone. {no_name_words(spec)}\n\n```python\n{lines}```\n"


def _limits(encoder: Encoder, run: RunDir | None) -> str:
    size = encoder.preprocess.size
    lines = [
        f"- It has seen images of {size} x {size} pixels; features of other sizes are worth less.",
        "- Features say how alike images are to this network. They are no labels, and they carry whatever bias the "
        "images had.",
        "- Accuracies hold for the images named with them. On images of another kind, measure again: "
        "`stopgrad evaluate knn`.",
    ]
    if run is not None:
        lines.append("- One run with one seed: another seed moves the figures.")
    return "## Limits\n\n" + "\n".join(lines) + "\n"


def _licence(licence: str) -> str:
    if licence:
        return (
            f"## Licence\n\n{licence}, chosen by those who exported it. (stopgrad itself is Apache-2.0, which says "
            "nothing of weights made with it.)\n"
        )
    return (
        "## Licence\n\nNone chosen yet. The weights belong to those who trained them, within the terms of the images "
        "they were trained on; until a licence stands here, nobody else may assume one. (stopgrad itself is "
        "Apache-2.0, which says nothing of weights made with it.)\n"
    )


def _tail(name: str) -> str:
    """A name without the folders before it."""
    return name.rsplit("/", 1)[-1]


def write_hub_folder(
    encoder: Encoder, path: Path, source: str | Path | None, licence: str = "", trained_on: str = ""
) -> Written:
    """Write the folder and load it again, by timm where timm can build the network.

    Args:
        encoder: what to export.
        path: the folder.
        source: where the encoder is from; a run folder fills the model card.
        licence, trained_on: for the model card.
    """
    check_licence(licence)
    spec = spec_of(encoder)
    path.mkdir(parents=True, exist_ok=True)
    named = has_timm_name(spec)
    own = write_own(encoder, path / HUB_WEIGHTS, path / HUB_SPEC)
    write_text(path / HUB_PREPROCESSING, json.dumps(preprocessing(encoder), indent=2) + "\n")
    # Of an earlier export, it would tell timm to build another network.
    (path / HUB_CONFIG).unlink(missing_ok=True)
    if named:
        write_text(path / HUB_CONFIG, timm_config(encoder))
    run = None if source is None else RunDir(place_of(str(source)))
    run = run if run is not None and run.is_run else None
    card = model_card(encoder, path.resolve().name, run, licence, trained_on)
    write_text(path / HUB_CARD, card)
    load = own.load.replace(quoted(path / HUB_WEIGHTS), quoted(path))
    compared = [compare(encoder, load_encoder(path).backbone, path)]
    notes: tuple[str, ...] = ()
    if named:
        place = f"local-dir:{path}"
        compared.append(compare(encoder, timm.create_model(place, pretrained=True, num_classes=0), path))
        load += f"import timm\nmodel = timm.create_model({quoted(place)}, pretrained=True, num_classes=0).eval()\n"
    else:
        compared.append(compare(encoder, timm_loads(spec, path / HUB_WEIGHTS), path))
        load += timm_lines(spec, str(path / HUB_WEIGHTS))
        notes = (no_name_words(spec), f"There is no {HUB_CONFIG}, therefore: it would promise more than timm can do.")
    difference, scale = (max(values) for values in zip(*compared, strict=True))
    files = (HUB_CARD, *own.files, HUB_PREPROCESSING, *((HUB_CONFIG,) if named else ()))
    open_ones = {"the licence (--license)": licence, "what the images are (--trained-on)": trained_on}
    missing = " and ".join(words for words, given in open_ones.items() if not given)
    advice = f"Read {HUB_CARD} before you publish it" + (f": {missing} can be given." if missing else ".")
    return Written(files, load, (*notes, advice), difference, scale)


def preprocessing(encoder: Encoder) -> dict[str, Any]:
    """The steps before the backbone, for programs."""
    p = encoder.preprocess
    return {
        "color": str(p.pixels), "resize_shorter_side": p.resize, "interpolation": "bilinear", "antialias": True,
        "center_crop": [p.size, p.size], "rescale": 1 / (2**p.pixels.depth - 1), "mean": list(p.mean),
        "std": list(p.std), "layout": "image, channel, height, width",
    }  # fmt: skip
