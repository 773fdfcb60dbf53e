import pytest

from stopgrad.config import SECTIONS, SETTINGS, Config, from_toml, to_toml, without_effect
from stopgrad.errors import ConfigError
from stopgrad.methods import METHODS
from stopgrad.nets.backbones import STEMS
from stopgrad.recipes import RECIPES, resolve
from stopgrad.settings import METHOD_NAMES


def test_names_are_unique_across_sections():
    assert len(SETTINGS) == sum(len(section.__dataclass_fields__) for section in SECTIONS.values())


def test_literal_names_agree_with_the_code():
    assert tuple(METHODS) == METHOD_NAMES
    assert SETTINGS["stem"].metadata["choices"] == STEMS


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_toml(name, tmp_path):
    config = RECIPES[name]()
    (tmp_path / "c.toml").write_text(to_toml(config))
    recipe, settings = from_toml(tmp_path / "c.toml")
    assert recipe == name == config.recipe
    assert Config(recipe=recipe).replace(**settings) == config


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_make_a_claim(name):
    first, *rest = RECIPES[name].__doc__.splitlines()
    assert len(first) < 120
    text = " ".join(rest)
    assert f"--recipe {name}" in text
    assert "Not run by us" in first or ("devices = 2" in text and "seed" in text and "k = 2" in text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epohcs": 3}, "did you mean 'epochs'"),
        ({"epochs": 2.5}, "type int"),
        ({"epochs": True}, "type int"),
        ({"epochs": 0}, "at least 1"),
        ({"lr": "fast"}, "type float"),
        ({"lr": float("nan")}, "at least 0"),
        ({"guide": "nearest_view"}, "did you mean 'nearest_views'"),
        ({"views": 3}, r"valid: \(2, 4\)"),
        ({"hue": 0.6}, "from 0 to 0.5"),
        ({"mean": (0.1, 0.2)}, "each channel needs both"),
        ({"mean": ("a", 0.2, 0.1)}, "needs 1 to 16 numbers"),
        ({"value_range": (3.0, 1.0)}, "the smaller first"),
        ({"value_range": (0.0,)}, "needs 2 numbers"),
        ({"channels": 17}, "from 0 to 16"),
        ({"depth": 12}, "depth = 12"),
        ({"shown_channels": (0, 1)}, "three channels"),
        ({"shown_channels": (0, 1, 16)}, "from 0 to 15"),
        ({"std": (0.1, 0.0, 0.1)}, "above 0"),
        ({"crop_scale_min": 0.9, "crop_scale_max": 0.5}, "is above"),
        ({"partners": "permutation"}, "need mutual partners"),
        ({"batch_size": 9, "devices": 2}, "does not divide"),
        ({"batch_size": 4, "devices": 5, "batch_statistics": "global"}, "less than an image for each of devices = 5"),
        ({"batch_size": 1}, "at least 2"),
        ({"cache": "none"}, "give 'auto', 'off' or a folder"),
        ({"cache": ""}, "give 'auto', 'off' or a folder"),
        ({"cache_gb": -1.0}, "at least 0"),
    ],
)
def test_bad_settings_are_refused_in_words(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config().replace(**settings)


def test_shares_of_a_batch_may_be_unequal_where_the_whole_batch_counts():
    assert Config().replace(batch_size=9, devices=2, batch_statistics="global").training.batch_size == 9


def test_whole_numbers_and_lists_are_taken_where_they_fit():
    config = Config().replace(lr=1, mean=[0, 0.5, 1])
    assert config.optimization.lr == 1.0
    assert config.augmentation.mean == (0.0, 0.5, 1.0)


def test_four_views_take_any_partners():
    assert Config().replace(views=4, partners="permutation").objective.partners == "permutation"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "not TOML"),
        ("[training]\nepoch = 3", "did you mean 'epochs'"),
        ("[trainin]\nepochs = 3", "did you mean 'training'"),
        ("[network]\nepochs = 3", r"belongs in \[training\]"),
        ("training = 3", "must be a table"),
        ("recipe = 3", "must be a name"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        from_toml(tmp_path / "c.toml")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        from_toml(tmp_path / "none.toml")


def test_order_of_precedence(tmp_path):
    (tmp_path / "c.toml").write_text('recipe = "digits"\n[training]\nepochs = 5\nseed = 5\n')
    recipe, given = resolve(None, tmp_path / "c.toml", {"seed": 9})
    config = RECIPES[recipe]().replace(**given)
    assert config.recipe == "digits"
    assert config.network == RECIPES["digits"]().network
    assert (config.training.epochs, config.training.seed) == (5, 9)
    assert resolve("cifar10", tmp_path / "c.toml", {})[0] == "cifar10"


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"method": "simsiam", "ema_momentum": 0.9}, "ema_momentum"),
        ({"guide": "symmetric", "partners": "mutual"}, "partners"),
        ({"guide": "symmetric", "source_first": True}, "source_first"),
        ({"predictor": False, "predictor_width": 8}, "predictor_width"),
        ({"steps": 5, "epochs": 5}, "epochs"),
        ({"cache": "off", "cache_gb": 5.0}, "cache_gb"),
        ({"optimizer": "adamw", "momentum": 0.5}, "momentum"),
        ({"jitter_probability": 0.0, "hue": 0.2}, "hue"),
        ({"blur_probability": 0.0, "blur_sigma_max": 1.0}, "blur_sigma_max"),
        ({"geometry": "affine", "crop_scale_min": 0.3}, "crop_scale_min"),
        ({"geometry": "resized_crop", "zoom": 0.3}, "zoom"),
    ],
)
def test_settings_without_effect_are_told(settings, idle):
    (text,) = without_effect(Config().replace(**settings), settings)
    assert text.startswith(f"{idle} has no effect")


def test_settings_with_effect_are_not_told():
    settings = {"method": "byol", "ema_momentum": 0.9, "epochs": 3, "hue": 0.2}
    assert without_effect(Config().replace(**settings), settings) == []
