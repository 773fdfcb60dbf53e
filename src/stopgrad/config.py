"""The configuration of a run: all settings together, checked on construction, in and out of TOML."""

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.removed import removed_words, without_removed
from stopgrad.settings import (
    LOCAL_VIEW_METHODS,
    NO_LOGGER,
    PARTNERED_GUIDES,
    SIAMESE_METHODS,
    Augmentation,
    Data,
    Monitoring,
    Network,
    Objective,
    Optimization,
    Training,
    is_plugin,
)
from stopgrad.sharing import sharing_problem


@dataclass(frozen=True)
class Config:
    """All settings of a run, by section."""

    recipe: str = ""
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    objective: Objective = Objective()
    optimization: Optimization = Optimization()
    training: Training = Training()
    monitoring: Monitoring = Monitoring()

    def __post_init__(self) -> None:
        for name, value in self.flat().items():
            _check(name, value)
        _check_together(self)

    def flat(self) -> dict[str, Any]:
        """The settings by their unique names."""
        return {name: getattr(getattr(self, section), name) for name, section in SECTION_OF.items()}

    @property
    def method_words(self) -> str:
        """Method and views, for people; of Siamese methods guide and whether there is a predictor too."""
        o = self.objective
        if o.method not in SIAMESE_METHODS:
            return f"{o.method}, {o.views_words}"
        return f"{o.method}, guide {o.guide}, {o.views_words}{'' if self.network.predictor else ', no predictor'}"

    def replace(self, **settings: Any) -> "Config":
        """A copy with some settings changed, by their unique names.

        Raises `ConfigError` for an unknown name, a wrong type or a value out of range.
        """
        check_names(settings)
        changed: dict[str, Any] = {}
        for section in SECTIONS:
            own = {n: _coerce(n, v) for n, v in settings.items() if SECTION_OF[n] == section}
            changed[section] = dataclasses.replace(getattr(self, section), **own)
        return Config(recipe=self.recipe, **changed)


SECTIONS: Mapping[str, type] = MappingProxyType(
    {f.name: f.default.__class__ for f in fields(Config) if f.name != "recipe"}
)
SETTINGS: Mapping[str, "dataclasses.Field[Any]"] = MappingProxyType(
    {f.name: f for section in SECTIONS.values() for f in fields(section)}
)
SECTION_OF: Mapping[str, str] = MappingProxyType(
    {f.name: name for name, section in SECTIONS.items() for f in fields(section)}
)


def check_names(settings: Iterable[str]) -> None:
    """Raise `ConfigError` for a name that is no setting, with the nearest that is."""
    for name in settings:
        if name not in SETTINGS:
            raise ConfigError(removed_words(name) or f"unknown setting {name!r}: {did_you_mean(name, SETTINGS)}")


def _coerce(name: str, value: Any) -> Any:
    """Whole numbers where floats are meant, lists where tuples are; anything else as it is."""
    wanted = SETTINGS[name].type
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted == tuple[str, ...]:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    if isinstance(value, (list, tuple)) and wanted not in (int, float, str, bool):
        whole = wanted == tuple[int, ...]
        return tuple(float(v) if type(v) is int and not whole else v for v in value)
    if isinstance(value, Path):
        return str(value)
    return value


def _check(name: str, value: Any) -> None:
    setting = SETTINGS[name]
    choices, low, high = (setting.metadata[key] for key in ("choices", "low", "high"))
    if setting.type == tuple[str, ...]:
        _check_each(name, value, choices)
        return
    if setting.type in (str, int, float, bool):
        if type(value) is not setting.type:
            raise ConfigError(f"{name} = {value!r}: needs a value of type {setting.type.__name__}.")
    else:
        _check_numbers(name, value, int if setting.type == tuple[int, ...] else float)
        return
    or_plugin = setting.metadata["or_plugin"]
    if choices and value not in choices and not (or_plugin and is_plugin(str(value))):
        hint = did_you_mean(value, choices) if isinstance(value, str) else f"valid: {choices}."
        more = " One of your own goes by 'package.module:name'." if or_plugin else ""
        raise ConfigError(removed_words(name, value) or f"{name} = {value!r} is unknown: {hint}{more}")
    # Written so that NaN fails too.
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
        raise ConfigError(f"{name} = {value!r}: must be {bounds}.")


def _check_numbers(name: str, value: Any, kind: type) -> None:
    (least, most), low, high = (SETTINGS[name].metadata[key] for key in ("length", "low", "high"))
    fits = isinstance(value, tuple) and least <= len(value) <= most and all(type(v) is kind for v in value)
    if fits and all((low is None or v >= low) and (high is None or v <= high) for v in value):
        return
    count = f"{least}" if least == most else f"{least} to {most}"
    within = "" if low is None else f" from {low:g} to {high:g}"
    raise ConfigError(f"{name} = {value!r}: needs {count} {'whole ' if kind is int else ''}numbers{within}.")


def _check_each(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Of a setting that takes several names: each of the choices, and once."""
    if not (isinstance(value, tuple) and value and all(isinstance(v, str) for v in value)):
        raise ConfigError(f"{name} = {value!r}: needs one or more names of {', '.join(choices)}.")
    for each in value:
        if each not in choices:
            raise ConfigError(f"{name} = {each!r} is unknown: {did_you_mean(each, choices)}")
    if len(set(value)) < len(value):
        raise ConfigError(f"{name} = {value!r}: each once.")


def _check_together(config: Config) -> None:
    aug, objective = config.augmentation, config.objective
    for low, high in (
        ("crop_scale_min", "crop_scale_max"),
        ("local_scale_min", "local_scale_max"),
        ("blur_sigma_min", "blur_sigma_max"),
    ):
        if getattr(aug, low) > getattr(aug, high):
            raise ConfigError(f"{low} = {getattr(aug, low)} is above {high} = {getattr(aug, high)}.")
    if config.data.cache.strip().lower() in ("", "no", "none", "false", "true", "yes", "on", "0", "1"):
        raise ConfigError(
            f"cache = {config.data.cache!r}: give 'auto', 'off' or a folder (one of that name as "
            f"{'./' + config.data.cache!r})."
        )
    if min(aug.std) <= 0:
        raise ConfigError(f"std = {aug.std!r}: all must be above 0.")
    if len(aug.mean) != len(aug.std):
        raise ConfigError(f"mean has {len(aug.mean)} numbers and std {len(aug.std)}: each channel needs both.")
    black, white = config.data.value_range
    if (black, white) != (0, 0) and not (isfinite(black) and isfinite(white) and black < white):
        raise ConfigError(f"value_range = ({black:g}, {white:g}): needs black and white, the smaller first.")
    if len(config.data.shown_channels) == 2:
        raise ConfigError("shown_channels: needs three channels, for red, green and blue, or one.")
    if objective.local_views:
        _check_local_views(config)
    logger = config.monitoring.logger
    if NO_LOGGER in logger and len(logger) > 1:
        raise ConfigError(f"logger = {logger!r}: {NO_LOGGER!r} goes with no other.")
    decides = objective.guide_keep < 1 and objective.guide_keep_by == "decided"
    if decides and objective.guide != "nearest_views":
        raise ConfigError(
            f"guide = {objective.guide!r} ranks no views: guide_keep with guide_keep_by = 'decided' needs guide = "
            "'nearest_views'."
        )
    if (
        objective.guide in PARTNERED_GUIDES
        and (objective.views == 2 or decides)
        and objective.partners not in ("auto", "mutual")
    ):
        raise ConfigError(
            f"partners = {objective.partners!r} with views = {objective.views} and guide = {objective.guide!r}: they "
            f"need mutual partners; use partners = 'mutual'{'' if decides else ', or views = 4'}."
        )
    if problem := sharing_problem(objective, config.training):
        raise ConfigError(problem)


def _check_local_views(config: Config) -> None:
    objective, data = config.objective, config.data
    if objective.method not in LOCAL_VIEW_METHODS and not is_plugin(objective.method):
        raise ConfigError(
            f"local_views = {objective.local_views} with method = {objective.method!r}: only "
            f"{', '.join(LOCAL_VIEW_METHODS)} take local views. Use one of them, or local_views = 0."
        )
    if data.local_size and not 4 <= data.local_size <= data.image_size:
        raise ConfigError(
            f"local_size = {data.local_size}: must be from 4 to image_size = {data.image_size}, or 0 for "
            f"{dataclasses.replace(data, local_size=0).local_side}."
        )


def without_effect(config: Config, given: Iterable[str]) -> list[str]:
    """Of the settings a user gave, those the rest of the config leaves without effect, each with the reason."""
    o, a, t = config.objective, config.augmentation, config.training

    def no_method_of(*names: str) -> bool:
        return o.method not in names and not is_plugin(o.method)

    rules: list[tuple[bool, tuple[str, ...], str]] = [
        (no_method_of("byol", "moco", "dino"), ("ema_momentum",), f"method = {o.method!r} has no moving average"),
        (no_method_of("byol", "dino"), ("ema_schedule",),
         f"method = {o.method!r} has no moving average that could rise"),
        (no_method_of(*SIAMESE_METHODS),
         ("guide", "guide_keep", "guide_keep_by", "partners", "source_first", "targets", "predictor",
          "predictor_width", "predictor_lr_fixed"),
         f"method = {o.method!r} has no sources to choose and no predictor"),
        (no_method_of("simclr", "moco"), ("temperature",), f"method = {o.method!r} has no softmax"),
        (no_method_of("dino"), ("prototypes",), f"method = {o.method!r} assigns images to nothing"),
        (no_method_of("moco") and not is_plugin(o.guide), ("queue_size",), "nothing is remembered"),
        (o.local_views == 0, ("local_size", "local_scale_min", "local_scale_max"), "local_views = 0"),
        (o.guide_keep == 1, ("guide_keep_by",), "guide_keep = 1 keeps all images"),
        (o.views == 2, ("targets",), "views = 2 leave one other view"),
        (o.guide == "symmetric", ("source_first",), "guide = 'symmetric' makes every view a source: none is left out"),
        (o.guide not in PARTNERED_GUIDES and not is_plugin(o.guide), ("partners",),
         f"guide = {o.guide!r} looks at no partner"),
        (not config.network.predictor, ("predictor_width", "predictor_lr_fixed"), "predictor = false"),
        (config.network.projector_layers == 1, ("projector_width",), "projector_layers = 1 has no hidden layer"),
        (config.optimization.optimizer == "adamw", ("momentum",), "optimizer = 'adamw' has moments of its own"),
        (config.optimization.lr_schedule == "constant", ("predictor_lr_fixed",), "lr_schedule = 'constant'"),
        (config.data.early_size == 0, ("early_share",), "early_size = 0"),
        (config.data.cache == "off", ("cache_gb",), "cache = 'off'"),
        (config.network.init == "random", ("init_partial",), "init = 'random' has no weights that could fit"),
        (config.data.eval_size == config.data.image_size, ("eval_size",), "it is image_size"),
        (config.optimization.head_warmup == 1, ("backbone_lr", "layer_decay"), "head_warmup = 1 leaves the backbone"),
        (t.steps > 0, ("epochs",), f"steps = {t.steps} sets the length"),
        (a.geometry != "affine", ("rotation_degrees", "zoom", "shift"), f"geometry = {a.geometry!r}"),
        (a.geometry != "resized_crop", ("crop_scale_min", "crop_scale_max"), f"geometry = {a.geometry!r}"),
        (a.jitter_probability == 0, ("jitter_form", "brightness", "contrast", "saturation", "hue"),
         "jitter_probability = 0"),
        (a.blur_probability == 0, ("blur_sigma_min", "blur_sigma_max"), "blur_probability = 0"),
    ]  # fmt: skip
    given = set(given)
    return [f"{n} has no effect: {why}" for off, names, why in rules if off for n in names if n in given]


def from_toml(
    path: str | Path, clean: Callable[[Mapping[str, Any]], dict[str, Any]] = without_removed
) -> tuple[str | None, dict[str, Any]]:
    """Read a TOML file -> (its recipe or None, the settings it gives by their unique names).

    Args:
        path: the file.
        clean: what to do with settings that earlier versions had.

    Raises:
        ConfigError: a file that does not exist or not TOML, an unknown section or name.
    """
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"config {str(path)!r} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"config {str(path)!r} is not TOML: {error}.") from error
    recipe = document.pop("recipe", None)
    if recipe is not None and not isinstance(recipe, str):
        raise ConfigError(f"config {str(path)!r}: recipe = {recipe!r} must be a name.")
    settings: dict[str, Any] = {}
    for section, table in document.items():
        if section not in SECTIONS:
            raise ConfigError(f"config {str(path)!r}: unknown section {section!r}: {did_you_mean(section, SECTIONS)}")
        if not isinstance(table, dict):
            raise ConfigError(f"config {str(path)!r}: {section!r} must be a table, [{section}].")
        for name, value in clean(table).items():
            if name not in SETTINGS:
                raise ConfigError(f"config {str(path)!r}: unknown setting {name!r}: {did_you_mean(name, SETTINGS)}")
            if SECTION_OF[name] != section:
                raise ConfigError(f"config {str(path)!r}: {name!r} belongs in [{SECTION_OF[name]}], not [{section}].")
            settings[name] = value
    return recipe or None, settings


def to_toml(config: Config) -> str:
    """The whole config as TOML text; `from_toml` of it gives the same config."""
    import tomli_w

    tables = {section: dataclasses.asdict(getattr(config, section)) for section in SECTIONS}
    return tomli_w.dumps({"recipe": config.recipe, **tables})
