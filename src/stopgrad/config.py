"""Every setting of a run: frozen dataclasses, checked on construction, in and out of TOML.

The sections order the TOML file; the setting names are unique across sections, so that a flag, a keyword
argument and a TOML key are the same word.
"""

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stopgrad.errors import ConfigError, did_you_mean
from stopgrad.removed import removed_words, without_removed

# Kept here as literals so that a misspelt name is caught without importing torch; a test holds them
# against METHODS and GUIDES.
METHOD_NAMES = ("simsiam", "byol", "simclr", "moco", "barlow_twins", "vicreg", "dino")
SIAMESE_METHODS = ("simsiam", "byol")
GUIDE_NAMES = ("symmetric", "nearest_views", "random_views", "farthest_views")
PARTNERED_GUIDES = ("nearest_views", "farthest_views")


def is_plugin(name: str) -> bool:
    """Whether a guide or method is one of the user's own, `package.module:name`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), attribute))


def _setting(default: Any, help: str, *, choices: tuple[Any, ...] = (), or_plugin: bool = False,
             low: float | None = None, high: float | None = None) -> Any:  # fmt: skip
    return field(default=default, metadata={"help": help, "choices": choices, "or_plugin": or_plugin, "low": low,
                                            "high": high})  # fmt: skip


@dataclass(frozen=True)
class Data:
    """What is trained on, and how it is read."""

    path: str = _setting("", "folder, parquet file or folder of them; empty: scikit-learn's digits")
    image_size: int = _setting(32, "side in pixels of the views the network sees", low=4)
    eval_size: int = _setting(0, "side of the images that the monitors, the final figures and the encoder see; 0: "
                              "image_size", low=0)  # fmt: skip
    early_size: int = _setting(0, "side of the views in the first part of the run, for speed; 0: image_size "
                               "throughout", low=0)  # fmt: skip
    early_share: float = _setting(0.75, "early_size: how large a part of the run that is", low=0.0, high=1.0)
    holdout: int = _setting(0, "training images kept out of training and used as k-NN queries in place of the "
                            "test split (for choosing settings)", low=0)  # fmt: skip
    workers: int = _setting(0, "threads that decode and crop; 0: one per core", low=0)
    cache: str = _setting("auto", "where decoded images are kept for this run and later ones. auto: $STOPGRAD_CACHE, "
                          "or the user's cache folder (sets of under 64 MB in memory); off; or a folder")  # fmt: skip
    cache_gb: float = _setting(50.0, "most that all decoded images in the cache may take; the least recently used go "
                               "first", low=0.0)  # fmt: skip
    memory_gb: float = _setting(4.0, "images that are not cached are held in memory up to this size, else decoded "
                                "anew every epoch", low=0.0)  # fmt: skip
    strict: bool = _setting(False, "refuse a data set with unreadable files instead of skipping them")


@dataclass(frozen=True)
class Augmentation:
    """How an image becomes a view; every parameter is drawn anew for every image and view."""

    geometry: str = _setting("resized_crop", "resized_crop: random area and aspect, resized; affine: small rotation, "
                             "scale and shift of the whole image", choices=("resized_crop", "affine"))  # fmt: skip
    crop_scale_min: float = _setting(0.2, "smallest crop, as a share of the image's area", low=0.01, high=1.0)
    crop_scale_max: float = _setting(1.0, "largest crop, as a share of the image's area", low=0.01, high=1.0)
    rotation_degrees: float = _setting(15.0, "affine: largest rotation either way", low=0.0, high=180.0)
    zoom: float = _setting(0.2, "affine: largest change of scale either way, as a share", low=0.0, high=0.9)
    shift: float = _setting(0.1, "affine: largest shift either way, as a share of the side", low=0.0, high=1.0)
    flip_probability: float = _setting(0.5, "horizontal flip", low=0.0, high=1.0)
    jitter_probability: float = _setting(0.8, "colour jitter", low=0.0, high=1.0)
    jitter_form: str = _setting("exact", "exact: torchvision's four steps in random order; single_affine: one "
                                "affine map of the colours, faster and approximate",
                                choices=("exact", "single_affine"))  # fmt: skip
    brightness: float = _setting(0.4, "colour jitter: factor within 1 +- this", low=0.0, high=1.0)
    contrast: float = _setting(0.4, "colour jitter: factor within 1 +- this", low=0.0, high=1.0)
    saturation: float = _setting(0.4, "colour jitter: factor within 1 +- this", low=0.0, high=1.0)
    hue: float = _setting(0.1, "colour jitter: shift within +- this share of the circle", low=0.0, high=0.5)
    gray_probability: float = _setting(0.2, "conversion to grey", low=0.0, high=1.0)
    blur_probability: float = _setting(0.0, "Gaussian blur", low=0.0, high=1.0)
    blur_sigma_min: float = _setting(0.1, "Gaussian blur: smallest sigma, pixels", low=0.01)
    blur_sigma_max: float = _setting(2.0, "Gaussian blur: largest sigma, pixels", low=0.01)
    mean: tuple[float, float, float] = _setting((0.485, 0.456, 0.406), "channel means, of pixels in 0..1")
    std: tuple[float, float, float] = _setting((0.229, 0.224, 0.225), "channel deviations, of pixels in 0..1")


@dataclass(frozen=True)
class Network:
    """Backbone and heads."""

    backbone: str = _setting("resnet18", "a timm model name, or one of our small ResNets")
    stem: str = _setting("standard", "standard: the backbone's own; small: 3x3 convolution without max-pool, "
                         "stride 1 (ResNets, images of 64 pixels and less); small_stride2: the same at stride 2",
                         choices=("standard", "small", "small_stride2"))  # fmt: skip
    init: str = _setting("random", "what the backbone starts from. random; timm:NAME; a run folder, a .ckpt or a file "
                         "of weights; pretrained: timm's weights of the backbone")  # fmt: skip
    init_partial: bool = _setting(False, "take of init what fits the backbone, and say what does not")
    norm: str = _setting("batch", "the backbone's BatchNorms. batch: as they are (synchronised on several GPUs); "
                         "frozen: by their running statistics, which stay as they came; group: GroupNorms instead",
                         choices=("batch", "frozen", "group"))  # fmt: skip
    pool: str = _setting("default", "what features are pooled from. default: as the network has it; avg: the mean over "
                         "places; token: the class token", choices=("default", "avg", "token"))  # fmt: skip
    patch_size: int = _setting(0, "side of a ViT's patches; 0: its own", low=0)
    drop_path: float = _setting(0.0, "stochastic depth while training, never in targets of their own pass and monitors",
                                low=0.0, high=0.9)  # fmt: skip
    projector_layers: int = _setting(2, "layers of the projector", low=1)
    projector_width: int = _setting(2048, "hidden width of the projector; 0: the backbone's", low=0)
    projection_dim: int = _setting(2048, "dimensions of a projection", low=1)
    projector_norm: str = _setting("all", "BatchNorm in the projector. all: after every layer (SimSiam); hidden: not "
                                   "at the output (BYOL); none (MoCo v2)",
                                   choices=("all", "hidden", "none"))  # fmt: skip
    predictor: bool = _setting(True, "with a predictor on the source branch, or without")
    predictor_width: int = _setting(512, "hidden width of the predictor", low=1)


@dataclass(frozen=True)
class Objective:
    """Where targets come from, and which views carry the gradient."""

    method: str = _setting("simsiam", "simsiam: targets from the online encoder; byol: from its moving average; to "
                           "compare with: simclr, moco, barlow_twins, vicreg, dino; or your own, as "
                           "package.module:function", choices=METHOD_NAMES, or_plugin=True)  # fmt: skip
    guide: str = _setting("nearest_views", "how each image's source view is chosen; or your own, as "
                          "package.module:name", choices=GUIDE_NAMES, or_plugin=True)  # fmt: skip
    views: int = _setting(2, "views an image and step: 2, or the authors' 4", choices=(2, 4))
    guide_keep: float = _setting(1.0, "share of the images that give a gradient", low=0.05, high=1.0)
    guide_keep_by: str = _setting("decided", "which ones. decided: whose views' distances differ most; random: the "
                                  "control", choices=("decided", "random"))  # fmt: skip
    partners: str = _setting("auto", "which image is whose reference. mutual: a perfect matching; derangement: a "
                             "permutation without fixed points; permutation: the authors' plain one; auto: mutual "
                             "for 2 views, derangement for 4",
                             choices=("auto", "mutual", "derangement", "permutation"))  # fmt: skip
    targets: str = _setting("other", "what a source is pulled toward. other: the other view of its pair; "
                            "mean_of_others: the mean of all other views (FastSiam)",
                            choices=("other", "mean_of_others"))  # fmt: skip
    source_first: bool = _setting(False, "encode targets, choose the sources, and run the online encoder on those "
                                  "alone: fewer passes, other BatchNorm statistics")  # fmt: skip
    temperature: float = _setting(0.2, "simclr, moco: temperature of the softmax", low=1e-3)
    queue_size: int = _setting(4096, "moco: targets of earlier batches that are remembered", low=1)
    prototypes: int = _setting(4096, "dino: directions that images are assigned to", low=2)
    ema_momentum: float = _setting(0.99, "byol, moco, dino: momentum of the moving average", low=0.0, high=1.0)
    ema_schedule: str = _setting("constant", "byol, dino: constant, or cosine: rising to 1",
                                 choices=("constant", "cosine"))  # fmt: skip


@dataclass(frozen=True)
class Optimization:
    """Optimizer and schedule."""

    optimizer: str = _setting("sgd", "sgd with momentum; adamw; or lars, for large batches (SimCLR, BYOL)",
                              choices=("sgd", "adamw", "lars"))  # fmt: skip
    lr: float = _setting(0.03, "peak learning rate for a batch of 256; scaled by batch_size / 256", low=0.0)
    momentum: float = _setting(0.9, "sgd, lars: momentum", low=0.0, high=0.999)
    weight_decay: float = _setting(5e-4, "weight decay, on all weights as in the SimSiam paper; lars, adamw: not on "
                                   "biases and norms", low=0.0)  # fmt: skip
    lr_schedule: str = _setting("cosine", "cosine: every step; cosine_per_epoch: the authors'; constant",
                                choices=("cosine", "cosine_per_epoch", "constant"))  # fmt: skip
    warmup_epochs: float = _setting(0.0, "linear warm-up of the learning rate", low=0.0)
    head_warmup: float = _setting(0.0, "share of the run in which the heads train and the backbone waits", low=0.0,
                                  high=1.0)  # fmt: skip
    backbone_lr: float = _setting(1.0, "the backbone's learning rate as a share of the heads'", low=0.0)
    layer_decay: float = _setting(1.0, "factor on the learning rate from each layer of the backbone to the one before",
                                  low=0.01, high=1.0)  # fmt: skip
    freeze_layers: int = _setting(0, "the backbone's first layers (as timm groups them; 1: the stem) that keep their "
                                  "weights", low=0)  # fmt: skip
    predictor_lr_fixed: bool = _setting(False, "hold the predictor's learning rate at its peak")


@dataclass(frozen=True)
class Training:
    """Length, machine and safety of a run."""

    epochs: int = _setting(100, "passes over the training images", low=1)
    steps: int = _setting(0, "optimizer steps; 0: as many as the epochs take", low=0)
    batch_size: int = _setting(256, "images a step, over all devices", low=2)
    seed: int = _setting(0, "every random draw of the run follows from it", low=0)
    device: str = _setting("auto", "auto, cpu, cuda, cuda:N or mps")
    devices: int = _setting(0, "processes to train on, one device each; 0: one, but two on a CPU of two cores or more "
                            "for batches of 128 and more", low=0)  # fmt: skip
    precision: str = _setting("auto", "auto: bf16 where the hardware is fast at it; fp32; bf16",
                              choices=("auto", "fp32", "bf16"))  # fmt: skip
    compile: bool = _setting(False, "compile the networks with torch.compile, which takes a minute or more at the "
                             "start; on CPUs it hardly pays")  # fmt: skip
    checkpoint_every_steps: int = _setting(0, "0: about every tenth of the run, and never rarer than an epoch "
                                           "of 2,000 steps", low=0)  # fmt: skip
    checkpoint_keep: int = _setting(2, "checkpoints kept, the newest", low=1)
    keep: str = _setting("last", "the encoder that is kept. last: the one at the end; best: the best of the start, of "
                         "those that the monitor measured on the way, and of the end",
                         choices=("last", "best"))  # fmt: skip
    log_every_steps: int = _setting(0, "steps a line of metrics.jsonl; 0: chosen by the run's length", low=0)
    time_limit_seconds: float = _setting(0.0, "stop after this much training, saved; 0: no limit", low=0.0)


@dataclass(frozen=True)
class Monitoring:
    """What is measured while training; none of it reaches the loss."""

    monitor_every_epochs: int = _setting(0, "0: about ten times a run; the end is always measured", low=0)
    monitor_images: int = _setting(5000, "most images a monitor embeds while training (bank and queries); the "
                                   "end uses all", low=16)  # fmt: skip
    final_images: int = _setting(0, "most images that the final figures embed; 0: as many as take no longer than the "
                                 "training did", low=0)  # fmt: skip
    knn_k: int = _setting(200, "neighbours that vote", low=1)
    knn_temperature: float = _setting(0.2, "temperature of the vote", low=1e-3)
    baselines: bool = _setting(True, "at the end, measure raw pixels and the untrained network too; without them the "
                               "verdict knows no more than without labels")  # fmt: skip
    report: bool = _setting(True, "write report.html, the page of the run: in full at the end, its curves about once a "
                            "minute while training")  # fmt: skip


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
            return f"{o.method}, {o.views} views"
        return f"{o.method}, guide {o.guide}, {o.views} views{'' if self.network.predictor else ', no predictor'}"

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
    if isinstance(value, list):
        return tuple(float(v) if isinstance(v, int) else v for v in value)
    if isinstance(value, Path):
        return str(value)
    return value


def _check(name: str, value: Any) -> None:
    setting = SETTINGS[name]
    choices, low, high = (setting.metadata[key] for key in ("choices", "low", "high"))
    if setting.type in (str, int, float, bool):
        if type(value) is not setting.type:
            raise ConfigError(f"{name} = {value!r}: needs a value of type {setting.type.__name__}.")
    elif not (isinstance(value, tuple) and len(value) == 3 and all(isinstance(v, float) for v in value)):
        raise ConfigError(f"{name} = {value!r}: needs three numbers.")
    or_plugin = setting.metadata["or_plugin"]
    if choices and value not in choices and not (or_plugin and is_plugin(value)):
        hint = did_you_mean(value, choices) if isinstance(value, str) else f"valid: {choices}."
        more = " One of your own goes by 'package.module:name'." if or_plugin else ""
        raise ConfigError(removed_words(name, value) or f"{name} = {value!r} is unknown: {hint}{more}")
    # Written so that NaN fails too.
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
        raise ConfigError(f"{name} = {value!r}: must be {bounds}.")


def _check_together(config: Config) -> None:
    aug, objective = config.augmentation, config.objective
    for low, high in (("crop_scale_min", "crop_scale_max"), ("blur_sigma_min", "blur_sigma_max")):
        if getattr(aug, low) > getattr(aug, high):
            raise ConfigError(f"{low} = {getattr(aug, low)} is above {high} = {getattr(aug, high)}.")
    if config.data.cache.strip().lower() in ("", "no", "none", "false", "true", "yes", "on", "0", "1"):
        raise ConfigError(
            f"cache = {config.data.cache!r}: give 'auto', 'off' or a folder (one of that name as "
            f"{'./' + config.data.cache!r})."
        )
    if min(aug.std) <= 0:
        raise ConfigError(f"std = {aug.std!r}: all three must be above 0.")
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
    if config.training.devices and config.training.batch_size % config.training.devices:
        raise ConfigError(
            f"batch_size = {config.training.batch_size} does not divide among devices = {config.training.devices}."
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
        ConfigError: a file that is not there or not TOML, an unknown section or name.
    """
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"config {str(path)!r} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
