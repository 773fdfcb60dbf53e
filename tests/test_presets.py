"""Augmentation presets: complete, with a reason each, and in their place among recipe, file and flags."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recorder import Recorder

import stopgrad
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.cli.main import run
from stopgrad.config import SECTION_OF, Config
from stopgrad.errors import ConfigError
from stopgrad.presets import PRESETS, preset_of, preset_toml
from stopgrad.recipes import RECIPES, base_config, resolve

ROOT = Path(__file__).parents[1]
LEFT_TO_RECIPES = {"mean", "std", "jitter_form", "rotation_degrees", "zoom", "shift"}
FACING_NO_WAY = ("microscopy", "satellite")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_whole_valid_augmentation(name):
    preset = preset_of(name)
    assert {n for n, section in SECTION_OF.items() if section == "augmentation"} - preset.keys() == LEFT_TO_RECIPES
    config = Config().replace(**preset)
    for recipe in RECIPES:
        other = base_config(recipe).replace(**preset)
        assert all(other.flat()[setting] == value for setting, value in preset.items())
    assert config.flat().items() >= preset.items()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_why(name):
    first, *rest = PRESETS[name].__doc__.splitlines()
    assert len(first) < 120
    assert "arXiv" in " ".join(rest)


def test_what_the_kinds_of_images_ask_for():
    for name in PRESETS:
        preset = preset_of(name)
        assert (preset["turn_probability"], preset["vertical_flip_probability"]) == (
            (0.75, 0.5) if name in FACING_NO_WAY else (0.0, 0.0)
        )
        assert preset["hue"] == (0.1 if name in ("photo", "small_image") else 0.0)
        assert preset["flip_probability"] == (0.0 if name == "document" else 0.5)


def test_names():
    assert preset_of(None) == {}
    assert preset_of("small-image") == preset_of("small_image")
    with pytest.raises(ConfigError, match="unknown augmentation 'satelite': did you mean 'satellite'"):
        preset_of("satelite")


def test_order_of_precedence(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('recipe = "photos_small"\n[augmentation]\nhue = 0.02\nbrightness = 0.1\n')
    recipe, given = resolve(None, file, {"brightness": 0.3}, "satellite")
    config = RECIPES[recipe]().replace(**given)
    a = config.augmentation
    assert (a.turn_probability, a.blur_sigma_max) == (0.75, 2.0)  # the preset's, not the recipe's 0 and 1
    assert a.hue == 0.02  # the file's, not the preset's 0
    assert a.brightness == 0.3  # the flag's
    assert config.network == RECIPES["photos_small"]().network


def test_a_file_that_gives_all_of_it_is_told(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text(preset_toml(preset_of("photo")))
    with pytest.raises(ConfigError, match=r"'satellite' has no effect: config .* gives all settings of it"):
        resolve(None, file, {}, "satellite")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_as_printed_is_a_file_of_settings(name, tmp_path, capsys):
    assert run(["recipes", name.replace("_", "-")]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# {PRESETS[name].__doc__.splitlines()[0]}")
    (tmp_path / "c.toml").write_text(text)
    assert resolve(None, tmp_path / "c.toml", {})[1] == preset_of(name)
    assert run(["recipes", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == preset_of(name)


def test_presets_are_listed(capsys):
    assert run(["recipes"]) == 0
    output = capsys.readouterr().out
    assert all(f"\n{name} " in output for name in PRESETS)
    assert "--augmentation NAME" in output


@pytest.mark.slow
def test_a_run_s_config_has_the_settings_and_repeats_it(tmp_path, tiny):
    recorder = Recorder()
    settings = {**tiny, "recipe": "digits", "steps": 1, "baselines": False, "devices": 1}
    first = stopgrad.pretrain(
        out=tmp_path / "a", augmentation="microscopy", blur_probability=0.1, reporter=recorder, **settings
    )
    # What a preset sets without effect is not the user's word.
    assert not [text for text in recorder.warned if "has no effect" in text]
    with open(first.path / "config.toml", "rb") as file:
        written = tomllib.load(file)["augmentation"]
    assert written.items() >= {**preset_of("microscopy"), "blur_probability": 0.1}.items()
    assert written["mean"] == list(RECIPES["digits"]().augmentation.mean)

    again = Recorder()
    second = stopgrad.pretrain(out=tmp_path / "b", config=first.path / "config.toml", reporter=again)
    assert not [text for text in again.warned if "has no effect" in text]
    assert RunDir(second.path).read_config() == RunDir(first.path).read_config()


@pytest.mark.slow
def test_resuming_with_another_preset_is_another_config(tmp_path, tiny):
    settings = {**tiny, "recipe": "digits", "steps": 1, "baselines": False, "devices": 1, "reporter": Recorder()}
    stopgrad.pretrain(out=tmp_path / "a", augmentation="photo", **settings)
    stopgrad.pretrain(out=tmp_path / "a", augmentation="photo", resume=True, reporter=Recorder())
    with pytest.raises(stopgrad.errors.CheckpointError, match=r"turn_probability = 0\.0 there, 0\.75 now"):
        stopgrad.pretrain(out=tmp_path / "a", augmentation="satellite", resume=True, reporter=Recorder())


def test_preview_draws_a_preset_with_local_views(tmp_path, capsys, rng):
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (60 + i, 80, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    out = tmp_path / "sheet.png"
    flags = ["--recipe", "photos_small", "--augmentation", "satellite", "--local-views", "3", "--image-size", "48"]
    assert run(["preview", str(tmp_path), "--out", str(out), "--images", "3", "--columns", "4", *flags]) == 0
    assert "recipe photos_small, augmentation satellite" in capsys.readouterr().out
    with Image.open(out) as sheet:
        # Tiles of 96 pixels and local ones of twice 24, gaps of 4, and 8 more before the views and the local ones.
        assert sheet.size == (4 + 5 * 100 + 8 + 8 + 3 * 52, 3 * 100 + 4)
    assert run(["preview", "--augmentation", "photos"]) == 2
    assert "did you mean 'photo'" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*PRESETS, "multicrop"])
def test_its_sheet_is_in_the_documents(name):
    page = (ROOT / "docs" / "augmentation.md").read_text()
    (file,) = (ROOT / "docs" / "images").glob(f"views_{name}.*")
    assert f"images/{file.name}" in page
    assert file.stat().st_size < 150_000
    assert name in page


def test_the_table_of_the_page_is_that_of_the_code():
    rows = [line.split("|")[1:-1] for line in (ROOT / "docs" / "augmentation.md").read_text().splitlines()]
    table = {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows if len(row) == len(PRESETS) + 1}
    for setting in preset_of("photo"):
        if setting == "geometry":
            continue
        assert table[setting] == [f"{preset_of(name)[setting]:g}" for name in PRESETS], setting
