"""The scikit-learn transformer: scikit-learn's own checks, and what an image is to it."""

import copy
import pickle
import pickletools
import warnings

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from stopgrad import PretrainedFeatures
from stopgrad.data.arrays import to_pixels
from stopgrad.errors import ConfigError, DataError, Interrupted

pytestmark = pytest.mark.filterwarnings("ignore:.*(collapsed|batch_size = )", "ignore:lbfgs failed")
MORE = {"steps": 1, "projector_width": 8, "projection_dim": 8, "predictor_width": 4, "precision": "fp32",
        "source_first": False}  # fmt: skip


def tiny(**parameters):
    given = {"recipe": "digits", "batch_size": 16, "method": "simsiam", "image_size": 8, "device": "cpu",
             "settings": MORE}  # fmt: skip
    return PretrainedFeatures(**(given | parameters))


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:60], y[:60]


@pytest.fixture(scope="module")
def fitted(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tiny(image_shape=(8, 8)).fit(digits[0])


@parametrize_with_checks([tiny(image_shape=(1, -1))])
@pytest.mark.slow
def test_scikit_learns_own_checks(estimator, check):
    """All of them; the rows, of any length there, are images one pixel high."""
    threads = torch.get_num_threads()
    # On one thread, kernels for one row and for many differ by 4e-7 in features of 0.002: more than the check allows.
    torch.set_num_threads(max(2, threads))
    try:
        check(estimator)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_in_a_pipeline(digits):
    X, y = digits
    model = make_pipeline(tiny(image_shape=(8, 8)), LogisticRegression(max_iter=20))
    assert cross_val_score(model, X, y, cv=2, error_score="raise").shape == (2,)
    lrs = np.array([0.1, 0.2])  # numpy's numbers, as searches give them
    grid = {"pretrainedfeatures__lr": lrs, "pretrainedfeatures__epochs": np.array([1])}
    search = GridSearchCV(model.set_params(pretrainedfeatures__settings={**MORE, "steps": 0}), grid, cv=2,
                          error_score="raise").fit(X, y)  # fmt: skip
    assert search.best_params_["pretrainedfeatures__lr"] in lrs
    assert search.predict(X).shape == y.shape


def test_after_fit(fitted, digits):
    X, _ = digits
    assert fitted.encoder_.embed([Image.fromarray(to_pixels(X[0].reshape(8, 8), (0, 16)))]).shape == (1, 128)
    assert fitted.metrics_["steps"] == 1
    assert fitted.verdict_ == fitted.metrics_["verdict_words"]
    assert (fitted.n_features_in_, fitted.n_features_out_) == (64, 128)
    assert (fitted.image_shape_, fitted.value_range_) == ((8, 8), (0, 16))
    assert fitted.get_feature_names_out()[[0, -1]].tolist() == ["pretrainedfeatures0", "pretrainedfeatures127"]
    features = fitted.transform(X)
    assert features.dtype == np.float32
    assert features.shape == (60, 128)


@pytest.mark.slow
def test_a_seed_repeats_and_labels_change_nothing(fitted, digits):
    X, y = digits
    assert np.array_equal(tiny(image_shape=(8, 8)).fit(X, y).transform(X), fitted.transform(X))
    other = tiny(image_shape=(8, 8), random_state=1).fit(X).transform(X)
    assert not np.allclose(other, fitted.transform(X))
    states = [np.random.RandomState(3) for _ in range(2)]
    first, second = (tiny(image_shape=(8, 8), random_state=state).fit(X).transform(X) for state in states)
    assert np.array_equal(first, second)


def test_fitting_leaves_torchs_random_numbers_alone(digits):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny(image_shape=(8, 8)).fit(digits[0])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, lambda x: clone(x).fit(load_digits().data[:60])]
)
def test_pickled_copied_cloned(fitted, digits, again):
    assert np.array_equal(again(fitted).transform(digits[0]), fitted.transform(digits[0]))
    assert again(fitted).get_params() == fitted.get_params()


def test_joblib_and_what_a_pickle_names(fitted, digits, tmp_path):
    joblib.dump(fitted, tmp_path / "f.joblib")
    assert np.array_equal(joblib.load(tmp_path / "f.joblib").transform(digits[0]), fitted.transform(digits[0]))
    names = [value for op, value, _ in pickletools.genops(pickle.dumps(fitted)) if isinstance(value, str)]
    assert not [name for name in names if name.startswith(("torch", "timm"))]


class TestWhatAnImageIs:
    def test_one_image_in_all_its_forms(self, fitted, digits, tmp_path):
        """Rows, arrays grey and in colour, Pillow images and files of the same pixels have the same features."""
        expected = fitted.transform(digits[0][:4])
        numbers = digits[0][:4].reshape(4, 8, 8)
        pixels = to_pixels(numbers, (0, 16))
        pictures = [Image.fromarray(image) for image in pixels]
        paths = [tmp_path / f"{i}.png" for i in range(4)]
        for picture, path in zip(pictures, paths, strict=True):
            picture.save(path)
        for images in (numbers, numbers[..., None], np.stack([numbers] * 3, axis=3), list(numbers), pictures, paths,
                       np.array([str(path) for path in paths]), tmp_path, str(tmp_path)):  # fmt: skip
            np.testing.assert_allclose(fitted.transform(images), expected, rtol=1e-5, atol=1e-5)

    def test_fitted_on_pictures_arrays_or_files(self, digits, tmp_path):
        pixels = to_pixels(digits[0].reshape(-1, 8, 8), (0, 16))
        expected = tiny().fit(pixels)
        pictures = [Image.fromarray(image) for image in pixels]
        for i, picture in enumerate(pictures):
            picture.save(tmp_path / f"{i:02}.png")
        for images in (pictures, sorted(tmp_path.iterdir()), tmp_path, np.stack([pixels] * 3, axis=3)):
            other = tiny().fit(images)
            assert other.value_range_ == (0, 255)
            np.testing.assert_allclose(other.transform(pixels), expected.transform(pixels), rtol=1e-4, atol=1e-4)
        assert not hasattr(tiny().fit(pictures), "n_features_in_")

    def test_a_column_of_paths_in_a_table(self, fitted, digits, tmp_path):
        pandas = pytest.importorskip("pandas")
        Image.fromarray(to_pixels(digits[0][0].reshape(8, 8), (0, 16))).save(tmp_path / "0.png")
        table = pandas.DataFrame({"path": [str(tmp_path / "0.png")] * 2}, index=[7, 9])
        assert fitted.transform(table["path"]).shape == (2, 128)

    def test_of_several_sizes(self, rng):
        images = [rng.integers(0, 256, (8 + i, 9, 3), dtype=np.uint8) for i in range(6)]
        assert tiny().fit(images).transform(images[:2]).shape == (2, 128)
        with pytest.raises(ValueError, match="several shapes"):
            tiny().fit([image / 255 for image in images])

    def test_another_fit_forgets_the_first(self, digits):
        transformer = tiny(image_shape=(8, 8)).fit(digits[0])
        transformer.fit([Image.fromarray(to_pixels(row.reshape(8, 8), (0, 16))) for row in digits[0]])
        assert not hasattr(transformer, "n_features_in_")
        assert transformer.value_range_ == (0, 255)

    def test_rows_after_pictures(self, digits):
        pictures = [Image.fromarray(to_pixels(row.reshape(8, 8), (0, 16))) for row in digits[0]]
        transformer = tiny().fit(pictures)
        with pytest.raises(ValueError, match=r"give image_shape = \(8, 8\)"):
            transformer.transform(digits[0])
        rows = to_pixels(digits[0], (0, 16))
        features = transformer.set_params(image_shape=(8, 8)).transform(rows)
        np.testing.assert_allclose(features, transformer.transform(pictures), rtol=1e-5, atol=1e-5)

    def test_a_fit_that_fails_leaves_nothing_fitted(self, digits):
        transformer = tiny(image_shape=(8, 8)).fit(digits[0]).set_params(backbone="resnet81")
        with pytest.raises(ConfigError):
            transformer.fit(digits[0])
        with pytest.raises(NotFittedError):
            transformer.transform(digits[0])


class TestValueRange:
    def test_the_range_is_fits_and_not_transforms(self, fitted, digits):
        dim = digits[0][:5] / 2
        assert not np.allclose(fitted.transform(dim), fitted.transform(dim * 2))
        given = tiny(image_shape=(8, 8), value_range=(0, 32)).fit(digits[0])
        assert given.value_range_ == (0, 32)

    def test_numbers_of_another_range_are_warned_of(self, digits):
        transformer = tiny().fit(to_pixels(digits[0].reshape(-1, 8, 8), (0, 16)))
        with pytest.warns(UserWarning, match="nearly black"):
            transformer.transform(digits[0].reshape(-1, 8, 8) / 16)


class TestRunFolder:
    def test_it_stays_and_is_not_written_over(self, digits, tmp_path):
        transformer = tiny(image_shape=(8, 8), run_dir=tmp_path / "run").fit(digits[0])
        assert (tmp_path / "run" / "encoder.safetensors").is_file()
        with pytest.raises(ConfigError, match="name another"):
            transformer.fit(digits[0])

    def test_a_temporary_one_goes(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        tiny(image_shape=(8, 8)).fit(digits[0])
        assert list(tmp_path.iterdir()) == []

    def test_a_page_is_drawn_where_it_stays_or_is_asked_for(self, tmp_path):
        assert tiny()._given()["report"] is False
        assert "report" not in tiny(run_dir=tmp_path / "run")._given()
        assert tiny(settings={"report": True})._given()["report"] is True


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"image_shape": None}, ValueError, r"rows of 64 numbers .* image_shape = \(8, 8\)"),
        ({"image_shape": (8, 9)}, ValueError, "does not fit rows of 64 numbers"),
        ({"image_shape": (8, 4, 2)}, ValueError, "does not fit"),
        ({"image_shape": "8x8"}, ValueError, "does not fit"),
        ({"value_range": (1, 0)}, ConfigError, "what is black"),
        ({"value_range": 255}, ConfigError, "two numbers"),
        ({"value_range": (0, float("nan"))}, ConfigError, "two numbers"),
        ({"settings": {"epoch": 3}}, ConfigError, "did you mean 'epochs'"),
        ({"settings": {"seed": 3}}, ConfigError, "random_state"),
        ({"settings": {"lr": 3.0}}, ConfigError, "the parameter of that name"),
        ({"settings": {"path": "x"}}, ConfigError, "give the images to fit"),
        ({"guide": "nearest"}, ConfigError, "guide"),
        ({"epochs": "3"}, ConfigError, "type int"),
        ({"recipe": "digit"}, ConfigError, "did you mean 'digits'"),
        ({"backbone": "resnet81"}, ConfigError, "did you mean"),
        ({"device": "cuda:99"}, ConfigError, "not available"),
        ({"random_state": "a"}, ValueError, "seed"),
    ],
)
def test_parameters_are_checked_by_fit(digits, parameters, error, words):
    transformer = tiny(**({"image_shape": (8, 8)} | parameters))
    with pytest.raises(error, match=words):
        transformer.fit(digits[0])


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (np.zeros((4, 3, 8, 8)), ValueError, "channels to the end"),
        (np.zeros((4, 8, 8, 2)), ValueError, "height, width"),
        (np.zeros((4, 2, 8, 8, 3)), ValueError, "height, width"),
        (np.full((4, 8, 8), np.nan), ValueError, "NaN"),
        (np.zeros((1, 8, 8)), ValueError, "minimum of 2"),
        ([], ValueError, "array"),
        (["no/such/a.png", "no/such/b.png"], DataError, "no/such/a.png"),
        ("no/such/folder", DataError, "does not exist"),
    ],
)
def test_images_that_cannot_be_used(images, error, words):
    with pytest.raises(error, match=words):
        tiny().fit(images)


def test_before_fit_and_files_that_are_gone(fitted, tmp_path):
    with pytest.raises(NotFittedError):
        tiny().transform([tmp_path / "a.png"])
    (tmp_path / "a.png").write_bytes(b"no image")
    for name in ("a.png", "b.png"):
        with pytest.raises(DataError, match=name):
            fitted.transform([tmp_path / name])


def test_ctrl_c_ends_a_search_and_not_only_one_candidate(digits, monkeypatch):
    def pressed(*_, **__):
        raise Interrupted("by Ctrl-C after step 1")

    monkeypatch.setattr("stopgrad.estimator.pretrain", pressed)
    with pytest.raises(KeyboardInterrupt):
        cross_val_score(make_pipeline(tiny(image_shape=(8, 8)), LogisticRegression()), *digits, cv=2)


def test_verbose_prints(digits, capsys):
    tiny(image_shape=(8, 8)).fit(digits[0])
    assert capsys.readouterr().out == ""
    tiny(image_shape=(8, 8), verbose=True).fit(digits[0])
    assert "Backbone" in capsys.readouterr().out
