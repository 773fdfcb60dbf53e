"""The surface is pinned: adding is free, renaming is not."""

import inspect

import pytest

import stopgrad


def test_names():
    assert set(stopgrad.__all__) >= {
        "pretrain", "load_encoder", "GuidedStopGradientLoss", "negative_cosine", "choose_partners", "knn_predict",
    }  # fmt: skip
    for name in stopgrad.__all__:
        assert getattr(stopgrad, name) is not None
    assert set(dir(stopgrad)) == set(stopgrad.__all__)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        ("pretrain", "data, *, out, recipe, augmentation, config, resume, overwrite, reporter, **overrides"),
        ("load_encoder", "run_or_checkpoint, *, image_size, mean, std, backbone, stem, prefix, pretrained, partial"),
        (
            "embed_to_file",
            "encoder, images, out, *, split, normalise, batch_size, device, precision, strict, overwrite, stop, "
            "reporter",
        ),
        (
            "search",
            "run_or_embeddings, query, *, data, top, index, split, encoder, batch_size, device, precision, keep, "
            "reporter",
        ),
        (
            "find_duplicates",
            "run_or_embeddings, *, threshold, data, split, batch_size, device, precision, keep, reporter",
        ),
        ("read_embeddings", "path"),
        ("write_report", "run, data, *, out, points, overwrite, device, reporter"),
        (
            "write_encoder_report",
            "encoder, data, *, out, points, duplicates, num_images, seed, overwrite, device, reporter",
        ),
        ("negative_cosine", "prediction, target"),
        ("choose_partners", "num_images, generator, *, mutual"),
        ("knn_predict", "bank, bank_labels, queries, *, k, temperature, num_classes, memory_budget_bytes"),
    ],
)
def test_parameters(function, parameters):
    found, keywords_begun = [], False
    for parameter in inspect.signature(getattr(stopgrad, function)).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords_begun:
            found.append("*")
            keywords_begun = True
        found.append(f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else parameter.name)
    assert ", ".join(found) == parameters


def test_public_things_have_docstrings():
    for name in stopgrad.__all__:
        if name != "__version__":
            assert inspect.getdoc(getattr(stopgrad, name))


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'pretran'"):
        stopgrad.pretran  # noqa: B018
