"""Pretraining as a scikit-learn transformer."""

import math
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import check_names
from stopgrad.data.arrays import PIXEL_RANGE, check_value_range, image_list, row_shape, to_pixels, value_range_of
from stopgrad.data.python import as_source
from stopgrad.data.sources import ArraySource, ImageSource
from stopgrad.encoder.serialize import pack, unpack
from stopgrad.errors import ConfigError, Interrupted
from stopgrad.hardware import choose_device
from stopgrad.reporter import QuietReporter, Reporter
from stopgrad.train.pretrain import pretrain

# Parameters that are settings of the same name; None leaves them to the recipe.
SETTING_PARAMETERS = ("epochs", "batch_size", "method", "guide", "views", "backbone", "image_size", "lr")
ELSEWHERE = {
    "seed": "give random_state",
    "device": "give the parameter device",
    "path": "give the images to fit",
    **dict.fromkeys(SETTING_PARAMETERS, "give the parameter of that name"),
}


class PretrainedFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features of a backbone that `fit` pretrains on the images themselves, without labels.

    Images are: rows of numbers `[image, feature]` with `image_shape`; an array `[image, height, width]` or `[image,
    height, width, 1 or 3]`; a sequence of paths, Pillow images or arrays; or the path of a folder.

    Parameters
    ----------
    recipe : str, default=None
        Settings to start from; None: chosen by the images, as by `pretrain`.
    epochs, batch_size, method, guide, views, backbone, image_size, lr : default=None
        Settings of these names; None: the recipe's.
    settings : dict, default=None
        Any other settings by name, such as `{"steps": 500, "precision": "fp32"}`.
    image_shape : tuple, default=None
        How a row of numbers makes an image: `(height, width)` or `(height, width, 3)`; one of them may be -1, as in
        numpy's `reshape`. Needed for rows, without effect on other images.
    value_range : tuple, default=None
        Which numbers are black and white, such as `(0, 1)` or `(0, 16)`. None: 0 and 255 in uint8, else the least and
        the most that `fit` sees. Numbers outside become black or white.
    run_dir : str or Path, default=None
        A new folder for the run: log, checkpoints, encoder. It stays. None: a temporary folder.
    random_state : int, RandomState instance or None, default=0
        The seed. An int makes fits repeatable; None draws one from numpy.
    device : str, default="auto"
        As the setting: auto, cpu, cuda, cuda:1 or mps.
    verbose : bool, default=False
        Print what happens.

    Attributes
    ----------
    encoder_ : Encoder
        The trained backbone.
    metrics_ : dict
        What the run's summary.json says. Without labels, there is no k-NN in it.
    verdict_ : str
        Whether it learnt or collapsed, in words.
    value_range_ : tuple
        The numbers taken for black and white.
    image_shape_ : tuple
        The shape of an image. Only after rows of numbers and arrays of images.
    n_features_in_ : int
        Numbers an image. Only after rows of numbers and arrays of images.
    feature_names_in_ : ndarray
        Names of the columns, `n_features_in_` of them. Only after rows of numbers with names that are all strings.
    n_features_out_ : int
        Features an image.

    Notes
    -----
    A fitted transformer pickles as its parameters, the backbone's name and the weights' bytes, and embeds on another
    machine whatever the device it was fitted on.
    """

    def __init__(
        self, recipe: str | None = None, *, epochs: int | None = None, batch_size: int | None = None,
        method: str | None = None, guide: str | None = None, views: int | None = None, backbone: str | None = None,
        image_size: int | None = None, lr: float | None = None, settings: Mapping[str, Any] | None = None,
        image_shape: tuple[int, ...] | None = None, value_range: tuple[float, float] | None = None,
        run_dir: str | Path | None = None, random_state: Any = 0, device: str = "auto", verbose: bool = False,
    ) -> None:  # fmt: skip
        # As they come: scikit-learn's clone compares them by identity.
        self.recipe = recipe
        self.epochs = epochs
        self.batch_size = batch_size
        self.method = method
        self.guide = guide
        self.views = views
        self.backbone = backbone
        self.image_size = image_size
        self.lr = lr
        self.settings = settings
        self.image_shape = image_shape
        self.value_range = value_range
        self.run_dir = run_dir
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: object = None) -> "PretrainedFeatures":
        """Pretrain a backbone on the images.

        Args:
            X: at least two images.
            y: not looked at.

        Raises:
            ValueError: a parameter or images that cannot be used as given (`ConfigError` is one).
            DataError: no or too few readable images.
            NonFiniteLossError: the loss became NaN.
            KeyboardInterrupt: stopped by Ctrl-C or SIGTERM.
        """
        settings = self._given()
        source = self._fit_source(X)
        place = choose_device(self.device)
        with ExitStack() as stack:
            if self.run_dir is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stopgrad-"))) / "run"
            else:
                folder = _free(self.run_dir)
            # Nobody's random numbers change because a transformer was fitted.
            stack.enter_context(torch.random.fork_rng(devices=[place] if place.type == "cuda" else []))
            reporter: Reporter = _Printing() if self.verbose else QuietReporter()
            try:
                run = pretrain(source, out=folder, recipe=self.recipe, reporter=reporter, **settings)
            except Interrupted as error:
                if settings.get("time_limit_seconds") and "time limit" in str(error):
                    raise
                # A search goes on with its next candidate after any other error.
                state = str(error) if self.run_dir else "stopped before the end; nothing is kept."
                raise KeyboardInterrupt(state) from error
            # A temporary folder says nothing afterwards.
            name = str(folder) if self.run_dir else type(self).__name__
            self.encoder_, self.metrics_ = replace(run.encoder, name=name), run.metrics
        self.verdict_: str = self.metrics_["verdict_words"]
        assert self.encoder_.spec is not None
        self.n_features_out_ = self._n_features_out = self.encoder_.spec.num_features
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embed images.

        Args:
            X: images, as `fit` takes them; of any number.

        Returns:
            float32 `[image, n_features_out_]`, not normalised.

        Raises:
            NotFittedError: before `fit`.
            ValueError: images that cannot be used as given.
            DataError: an image that cannot be read; the message names it.
        """
        check_is_fitted(self, "encoder_")
        images = image_list(X)
        if images is not None:
            return self._embedded(images)
        values = self._values(X, reset=False)
        low, high = self.value_range_
        if (low, high) == PIXEL_RANGE and values.dtype.kind == "f" and 0 < values.max() <= 1:
            warnings.warn(
                f"X goes up to {values.max():g}, and white is 255, by what fit saw: nearly black images. Give "
                "value_range, or numbers of the same range.",
                stacklevel=2,
            )
        shape = values.shape[1:]
        if values.ndim == 2:
            # Files and pictures, where fit saw those, have no shape in common.
            shape = getattr(self, "image_shape_", None) or row_shape(values.shape[1], self.image_shape)
        source = ArraySource(to_pixels(values, (low, high)).reshape(len(values), *shape))
        return self._embedded(source)

    def _embedded(self, images: Any) -> np.ndarray:
        precision = (self.settings or {}).get("precision", "auto")
        return self.encoder_.embed(images, device=self.device, precision=precision).numpy()

    def _given(self) -> dict[str, Any]:
        """The settings for `pretrain`."""
        more = dict(self.settings or {})
        check_names(more)
        for name in more:
            if name in ELSEWHERE:
                raise ConfigError(f"{name!r} in settings: {ELSEWHERE[name]} instead.")
        # A page in a folder that goes would be seen by nobody, and takes as long to draw as a short run.
        usual = {"report": False} if self.run_dir is None else {}
        given = usual | {name: getattr(self, name) for name in SETTING_PARAMETERS} | more
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31)
        given |= {"seed": int(seed), "device": self.device}
        # A search over a range gives numpy's numbers.
        return {n: v.item() if isinstance(v, np.generic) else v for n, v in given.items() if v is not None}

    def _fit_source(self, X: Any) -> str | ImageSource:
        """The images to train on; what they say of themselves is kept for `transform`."""
        for name in ("encoder_", "n_features_in_", "feature_names_in_", "image_shape_"):
            # Of an earlier fit; should this one fail, nothing is left of both.
            self.__dict__.pop(name, None)
        wanted = None if self.value_range is None else check_value_range(self.value_range)
        images = image_list(X)
        if images is not None:
            self.value_range_ = wanted or PIXEL_RANGE
            return images if isinstance(images, str) else as_source(images)
        values = self._values(X, reset=True)
        self.value_range_ = wanted or value_range_of(values)
        shape = row_shape(values.shape[1], self.image_shape) if values.ndim == 2 else values.shape[1:]
        self.image_shape_ = tuple(map(int, shape))
        self.n_features_in_ = math.prod(self.image_shape_)
        return ArraySource(to_pixels(values, self.value_range_).reshape(len(values), *shape))

    def _values(self, X: Any, *, reset: bool) -> np.ndarray:
        """Finite numbers, `[image, feature]` or `[image, height, width ...]`."""
        # A model needs two images to compare, an embedding none.
        fewest = 2 if reset else 1
        if np.ndim(X) <= 2 if isinstance(X, (list, tuple)) else getattr(X, "ndim", 2) <= 2:
            return _validated(self, X, reset=reset, dtype="numeric", ensure_min_samples=fewest)
        values: np.ndarray = check_array(X, dtype="numeric", allow_nd=True, ensure_min_samples=fewest)
        if values.ndim > 4 or (values.ndim == 4 and values.shape[3] not in (1, 3)):
            raise ValueError(
                f"an array of shape {values.shape}: images are [image, height, width] or [image, height, width, 1 or 3]"
                f"{'; move the channels to the end' if values.ndim == 4 and values.shape[1] in (1, 3) else ''}."
            )
        return values

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "encoder_" in state:
            state["encoder_"] = pack(state["encoder_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "encoder_" in state:
            state["encoder_"] = unpack(state["encoder_"])
        super().__setstate__(state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _more_tags(self) -> dict[str, Any]:
        """The same for scikit-learn before 1.6."""
        return {"X_types": ["2darray", "3darray"], "preserves_dtype": [np.float32]}


class _Printing(QuietReporter):
    """Prints lines, as scikit-learn's estimators do where they are asked to be verbose."""

    def say(self, text: str) -> None:
        print(text)


def _free(run_dir: str | Path) -> Path:
    folder = Path(run_dir).expanduser()
    if RunDir(folder).is_run:
        raise ConfigError(
            f"run_dir = {str(folder)!r} holds a run already, and each fit needs a folder of its own: name another; in "
            "a search or a cross-validation, use run_dir = None."
        )
    return folder


def _validated(estimator: Any, X: Any, **options: Any) -> np.ndarray:
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:  # before scikit-learn 1.6
        return estimator._validate_data(X, **options)
    return validate_data(estimator, X, **options)
