"""A folder to publish: weights, how to build and to feed the network, and a model card."""

import json
from pathlib import Path
from typing import Any

import timm

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.encoder.asked import place_of
from stopgrad.encoder.embed import Encoder
from stopgrad.encoder.export_card import model_card
from stopgrad.encoder.export_place import HUB_CARD, HUB_CONFIG, HUB_PREPROCESSING, HUB_SPEC, HUB_WEIGHTS
from stopgrad.encoder.export_timm import has_timm_name, no_name_words, timm_config, timm_lines, timm_loads
from stopgrad.encoder.load import load_encoder
from stopgrad.encoder.written import Written, compare, quoted, spec_of, write_own, write_text


def write_hub_folder(encoder: Encoder, path: Path, source: str | Path | None) -> Written:
    """Write the folder and load it again, by timm where timm can build the network.

    Args:
        encoder: what to export.
        path: the folder.
        source: where the encoder is from; a run folder fills the model card.
    """
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
    card = model_card(encoder, path.resolve().name, run if run is not None and run.is_run else None)
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
    return Written(files, load, (*notes, f"Read {HUB_CARD} before you publish it: the licence is yours to choose."),
                   difference, scale)  # fmt: skip


def preprocessing(encoder: Encoder) -> dict[str, Any]:
    """The steps before the backbone, for programs."""
    p = encoder.preprocess
    return {
        "color": "RGB", "resize_shorter_side": p.resize, "interpolation": "bilinear", "antialias": True,
        "center_crop": [p.size, p.size], "rescale": 1 / 255, "mean": list(p.mean), "std": list(p.std),
        "layout": "image, channel, height, width",
    }  # fmt: skip
