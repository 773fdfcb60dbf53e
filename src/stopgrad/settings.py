"""Every setting of a run: frozen dataclasses, with what each setting means and may be.

The sections order the TOML file; the setting names are unique across sections, so that a flag, a keyword argument and a
TOML key are the same word.
"""

from dataclasses import dataclass, field, replace
from typing import Any

# Kept here as literals so that a misspelt name is caught without importing torch; a test holds them
# against METHODS and GUIDES.
METHOD_NAMES = ("simsiam", "byol", "simclr", "moco", "barlow_twins", "vicreg", "dino")
SIAMESE_METHODS = ("simsiam", "byol")
LOCAL_VIEW_METHODS = (*SIAMESE_METHODS, "dino")
# Those that remember nothing of earlier batches but weights.
GROUPED_METHODS = (*SIAMESE_METHODS, "simclr", "barlow_twins", "vicreg")
GUIDE_NAMES = ("symmetric", "nearest_views", "random_views", "farthest_views")
PARTNERED_GUIDES = ("nearest_views", "farthest_views")
LOGGER_NAMES = ("tensorboard", "wandb", "mlflow")
NO_LOGGER = "none"


def is_plugin(name: str) -> bool:
    """Whether a guide or method is one of the user's own, `package.module:name`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), attribute))


def _setting(default: Any, help: str, *, choices: tuple[Any, ...] = (), or_plugin: bool = False,
             low: float | None = None, high: float | None = None, length: tuple[int, int] = (1, 1)) -> Any:  # fmt: skip
    return field(default=default, metadata={"help": help, "choices": choices, "or_plugin": or_plugin, "low": low,
                                            "high": high, "length": length})  # fmt: skip


@dataclass(frozen=True)
class Data:
    """What is trained on, and how it is read."""

    path: str = _setting("", "folder, file or name of images (docs/data.md); empty: scikit-learn's digits")
    channels: int = _setting(0, "channels of an image, 1 to 16; 0: as the files have them, of 8-bit grey and colour "
                             "files RGB", low=0, high=16)  # fmt: skip
    depth: int = _setting(0, "bits of a pixel, 8 or 16; 0: 16 where files have more than 8", choices=(0, 8, 16))
    value_range: tuple[float, ...] = _setting((0.0, 0.0), "which values are black and white; 0 0: of 8-bit files 0 "
                                              "255, of DICOM its window, else 0.1% and 99.9% of a sample's values",
                                              length=(2, 2))  # fmt: skip
    pages: str = _setting("first", "of a TIFF with several pages: the first, or all as channels",
                          choices=("first", "channels"))  # fmt: skip
    shown_channels: tuple[int, ...] = _setting((), "channels that pictures show as red, green and blue, or one as "
                                               "grey, counted from 0; none: the first three", low=0, high=15,
                                               length=(0, 3))  # fmt: skip
    image_size: int = _setting(32, "side in pixels of the views the network sees", low=4)
    eval_size: int = _setting(0, "side of the images that the monitors, the final figures and the encoder see; 0: "
                              "image_size", low=0)  # fmt: skip
    local_size: int = _setting(0, "side in pixels of the local views; 0: about three sevenths of image_size", low=0)
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
    shuffle_buffer: int = _setting(0, "shards: images that are shuffled together, out of a few shards at a time; 0: "
                                   "all of them in sets below 1 GB, else 10,000", low=0)  # fmt: skip
    shard_cache_gb: float = _setting(50.0, "shards: most that local copies of remote and parquet shards may take; the "
                                     "least recently used go first", low=0.0)  # fmt: skip
    strict: bool = _setting(False, "refuse a data set with unreadable files instead of skipping them")

    @property
    def local_side(self) -> int:
        """Side of the local views in pixels: `local_size`, or about three sevenths of `image_size` (96 of 224).

        That is rounded to a multiple of 32, of 8 below 128 pixels, of 4 below 32, so that strides divide it.
        """
        step = 32 if self.image_size >= 128 else 8 if self.image_size >= 32 else 4
        return self.local_size or max(step, step * round(3 * self.image_size / (7 * step)))


@dataclass(frozen=True)
class Augmentation:
    """How an image becomes a view; every parameter is drawn anew for every image and view."""

    geometry: str = _setting("resized_crop", "resized_crop: random area and aspect, resized; affine: small rotation, "
                             "scale and shift of the whole image", choices=("resized_crop", "affine"))  # fmt: skip
    crop_scale_min: float = _setting(0.2, "smallest crop, as a share of the image's area", low=0.01, high=1.0)
    crop_scale_max: float = _setting(1.0, "largest crop, as a share of the image's area", low=0.01, high=1.0)
    local_scale_min: float = _setting(0.05, "smallest crop of a local view, as a share of the image's area", low=0.01,
                                      high=1.0)  # fmt: skip
    local_scale_max: float = _setting(0.2, "largest crop of a local view, as a share of the image's area", low=0.01,
                                      high=1.0)  # fmt: skip
    rotation_degrees: float = _setting(15.0, "affine: largest rotation either way", low=0.0, high=180.0)
    zoom: float = _setting(0.2, "affine: largest change of scale either way, as a share", low=0.0, high=0.9)
    shift: float = _setting(0.1, "affine: largest shift either way, as a share of the side", low=0.0, high=1.0)
    flip_probability: float = _setting(0.5, "horizontal flip", low=0.0, high=1.0)
    vertical_flip_probability: float = _setting(0.0, "vertical flip, for images without an upright", low=0.0, high=1.0)
    turn_probability: float = _setting(0.0, "turn by 90, 180 or 270 degrees, each as likely as the others; 0.75 makes "
                                       "all four directions alike", low=0.0, high=1.0)  # fmt: skip
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
    mean: tuple[float, ...] = _setting((0.485, 0.456, 0.406), "channel means, of pixels in 0..1; of others than 8-bit "
                                       "RGB, those of a sample", length=(1, 16))  # fmt: skip
    std: tuple[float, ...] = _setting((0.229, 0.224, 0.225), "channel standard deviations, of pixels in 0..1; as mean",
                                      length=(1, 16))  # fmt: skip

    @property
    def of_local_views(self) -> "Augmentation":
        """How a local view is made: a crop of its own range of areas, whatever the geometry of the other views."""
        low, high = self.local_scale_min, self.local_scale_max
        return replace(self, geometry="resized_crop", crop_scale_min=low, crop_scale_max=high)


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
    norm: str = _setting("batch", "the backbone's BatchNorms. batch: as they are (over the images of all processes); "
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
    local_views: int = _setting(0, "simsiam, byol, dino: small crops an image and step beside the views (multi-crop); "
                                "they are sources alone", low=0, high=10)  # fmt: skip
    guide_keep: float = _setting(1.0, "share of the images that give a gradient", low=0.05, high=1.0)
    guide_keep_by: str = _setting("decided", "which ones. decided: whose views' distances differ most; random: the "
                                  "control", choices=("decided", "random"))  # fmt: skip
    partners: str = _setting("auto", "each image's partner. mutual: a perfect matching; derangement: a "
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

    @property
    def num_views(self) -> int:
        """Views an image and step, local ones included."""
        return self.views + self.local_views

    @property
    def views_words(self) -> str:
        """How many views an image and step, for people."""
        return f"{self.views} views" + (f" and {self.local_views} local" if self.local_views else "")


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
    batch_size: int = _setting(
        256,
        "images a step, over all devices; auto, for pretrain: on a GPU as many as fit "
        "in its memory, elsewhere the recipe's",
        low=2,
    )
    accumulate: int = _setting(1, "simsiam, byol: parts that a batch is trained in, one after another, where memory "
                               "does not hold it at once; partners and choice are of the whole batch, BatchNorm's "
                               "statistics of each part", low=1)  # fmt: skip
    seed: int = _setting(0, "every random draw of the run follows from it", low=0)
    device: str = _setting("auto", "auto, cpu, cuda, cuda:N or mps")
    devices: int = _setting(0, "processes to train on, one device each; 0: one, but two on a CPU of two cores or more "
                            "for batches of 128 and more", low=0)  # fmt: skip
    batch_statistics: str = _setting("auto", "with several processes. global: a step computes what one process "
                                     "would; local: BatchNorm, partners and negatives are of each process's own "
                                     "images, which is faster; auto: local on a CPU, else global",
                                     choices=("auto", "global", "local"))  # fmt: skip
    batch_groups: int = _setting(0, "groups of a batch, each with BatchNorm, partners and negatives of its own images: "
                                 "as many processes with local statistics compute the same. 0: one for each process, "
                                 "or with global statistics one", low=0)  # fmt: skip
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
    hang_seconds: float = _setting(300.0, "several processes: so long may one give no sign of life or keep the others "
                                   "waiting, until the run ends and names it", low=1.0, high=1800.0)  # fmt: skip
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
    logger: tuple[str, ...] = _setting(("tensorboard",), "where figures are logged; repeat the flag for several. "
                                       "tensorboard; wandb: Weights & Biases; mlflow; none",
                                       choices=(*LOGGER_NAMES, NO_LOGGER))  # fmt: skip
    report: bool = _setting(True, "write report.html, the page of the run: in full at the end, its curves about once a "
                            "minute while training")  # fmt: skip
