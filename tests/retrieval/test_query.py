"""What is found is what is nearest, the query itself left out, and duplicates are told from likenesses."""

import builtins
import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from photos import write_photos, write_run

from stopgrad import embed_to_file, find_duplicates, load_encoder, search
from stopgrad.data.sources import ArraySource, ListSource, Splits
from stopgrad.errors import ConfigError, DataError
from stopgrad.retrieval.duplicates import joined
from stopgrad.retrieval.index import nearest


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_photos(root, num=48, splits=("train", "test"))
    return root


@pytest.fixture
def run(tmp_path, data):
    return write_run(tmp_path / "run", data)


def names(answer):
    return [hit.name for hit in answer.hits]


def by_hand(run, query, paths, top):
    encoder = load_encoder(run)
    cosines = F.normalize(encoder.embed([query]), dim=1) @ F.normalize(encoder.embed(paths), dim=1).T
    return [str(paths[i]) for i in cosines[0].argsort(descending=True, stable=True)[:top]]


def test_the_nearest_in_order(run, data):
    train, test = (sorted((data / split).rglob("*.png")) for split in ("train", "test"))
    result = search(run, test[0], top=5)
    assert result.num_images == 24
    (answer,) = result.answers
    assert names(answer) == by_hand(run, test[0], train, 5)
    assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4, 5]
    assert all(hit.label == hit.name.split("/")[-2] for hit in answer.hits)
    assert answer.left_out is None
    json.dumps(result.as_json())


def test_the_query_itself_is_left_out(run, data, monkeypatch):
    train = sorted((data / "train").rglob("*.png"))
    monkeypatch.chdir(data / "train" / "a")
    answer = search(run, train[3].name, top=23).answers[0]
    assert answer.left_out == str(train[3])
    assert names(answer) == by_hand(run, train[3], [p for p in train if p != train[3]], 23)
    with pytest.raises(ConfigError, match="there are 23 images to find beside the query itself"):
        search(run, train[3], top=24)


def test_a_folder_of_queries_some_in_the_data(run, data, tmp_path):
    folder = tmp_path / "queries"
    folder.mkdir()
    train = sorted((data / "train").rglob("*.png"))
    (folder / train[0].name).symlink_to(train[0])
    shutil.copy(train[1], folder / "copied.png")
    (folder / "zz.png").write_bytes(b"no image")
    result = search(run, folder, top=3)
    copied, linked = result.answers
    assert linked.left_out == str(train[0])
    # Another file with the same bytes is found, and marked.
    assert copied.left_out is None
    assert copied.hits[0].name == str(train[1])
    assert copied.hits[0].copy
    assert not copied.hits[1].copy
    assert [item["name"] for item in result.skipped] == [str(folder / "zz.png")]


def test_one_file_twice_is_left_out_of_both_answers(run, data, tmp_path):
    train = sorted((data / "train").rglob("*.png"))
    (tmp_path / "link.png").symlink_to(train[4])
    result = search(run, [train[4], train[2], train[4], tmp_path / "link.png"], top=3)
    assert [answer.left_out for answer in result.answers] == [str(train[i]) for i in (4, 2, 4, 4)]
    assert not any(hit.name == answer.left_out for answer in result.answers for hit in answer.hits)


def in_memory(broken=()):
    """Train and test images of the same names, some that cannot be read."""
    images = np.random.default_rng(0).integers(0, 255, (12, 12, 12, 3), dtype=np.uint8)
    both = [list(images[:6]), list(images[6:])]
    for split, place in broken:
        both[split][place] = b"no image"
    return Splits("mine", *(ListSource(part) for part in both))


def test_rows_keep_their_pictures_where_names_are_the_same_twice(run):
    data = in_memory(broken=[(0, 2)])
    found = search(load_encoder(run), [data.test.images[4]], data=data, split="all", top=2)
    assert found.answers[0].hits[0].cosine > 0.9999
    assert np.array_equal(found.bank.read(found.answers[0].hits[0].row), data.test.images[4])
    assert found.bank.split(found.answers[0].hits[0].row) == "test"
    assert len(found.bank.places) == len(found.bank) == 11
    assert [item["name"] for item in found.skipped] == ["image 2"]


def test_kept_embeddings_are_of_every_pixel(run):
    query = np.zeros((12, 12, 3), dtype=np.uint8)
    images = np.random.default_rng(0).integers(0, 255, (300, 12, 12, 3), dtype=np.uint8)
    assert search(run, [query], data=ArraySource(images), top=1).answers[0].hits[0].cosine < 0.9999
    images[5] = query
    assert search(run, [query], data=ArraySource(images), top=1).answers[0].hits[0].row == 5


def test_a_second_search_does_not_embed_again(run, data, monkeypatch):
    query = next((data / "test").rglob("*.png"))
    first = search(run, query, top=4)
    assert len(list((run / "embeddings").glob("*.parquet"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr("stopgrad.retrieval.database.embed_to_file", lambda *a, **k: pytest.fail("embedded again"))
        assert search(run, query, top=4).answers == first.answers
    (run / "embeddings" / "x.parquet").unlink(missing_ok=True)
    kept = next((run / "embeddings").glob("*.parquet"))
    kept.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="written again"):
        assert search(run, query, top=4).answers == first.answers


def test_features_of_two_precisions_are_never_mixed(run, data, tmp_path):
    query = next((data / "test").rglob("*.png"))
    found = {p: search(run, query, top=4, precision=p) for p in ("fp32", "bf16")}
    assert len(list((run / "embeddings").glob("*.parquet"))) == 2
    assert [found[p].bank.precision for p in found] == list(found)
    assert found["bf16"].as_json()["precision"] == "bf16"
    cosines = {p: [hit.cosine for hit in result.answers[0].hits] for p, result in found.items()}
    assert cosines["fp32"] != cosines["bf16"]
    for precision in found:
        out = tmp_path / f"{precision}.parquet"
        embed_to_file(run, data / "train", out, precision=precision)
        # The query is embedded as the file was, whatever this machine would take.
        assert [hit.cosine for hit in search(out, query, top=4).answers[0].hits] == cosines[precision]
        assert search(out, query, top=4, precision=precision).bank.precision == precision
    with pytest.raises(ConfigError, match=r"precision = 'fp32': .* was made in bf16"):
        search(tmp_path / "bf16.parquet", query, top=4, precision="fp32")
    with pytest.raises(ConfigError, match="precision = 'fp16' is unknown"):
        find_duplicates(run, precision="fp16")


def test_a_file_that_does_not_say_its_precision_is_of_float32(run, data, tmp_path):
    out = tmp_path / "e.npy"
    embed_to_file(run, data, out, precision="fp32")
    meta = tmp_path / "e.npy.meta.json"
    content = json.loads(meta.read_text())
    del content["precision"]
    meta.write_text(json.dumps(content))
    assert search(out, next(data.rglob("*.png")), top=2).bank.precision == "fp32"


def test_other_data_and_other_splits_have_their_own(run, data):
    query = next((data / "test").rglob("*.png"))
    assert search(run, query, split="all", top=2).num_images == 48
    assert search(run, query, split="test", top=2).num_images == 24
    assert search(run, query, data=data / "test" / "a", top=2).num_images == 12
    assert len(list((run / "embeddings").glob("*.parquet"))) == 3


def test_nothing_is_kept_where_it_is_not_wanted_or_no_run(run, data):
    query = next((data / "test").rglob("*.png"))
    answers = search(run, query, top=4, keep=False).answers
    assert not (run / "embeddings").exists()
    assert search(run / "encoder.safetensors", query, data=data, top=4).answers == answers
    assert search(load_encoder(run / "encoder.safetensors"), query, data=data, top=4).answers == answers
    assert not (run / "embeddings").exists()


def test_a_new_run_takes_the_old_ones_embeddings_away(run, data):
    from stopgrad.artifacts.run_dir import RunDir

    search(run, next(data.rglob("*.png")), top=2)
    RunDir(run).create(overwrite=True)
    assert not list((run / "embeddings").iterdir())


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".csv"])
def test_a_file_of_embeddings(run, data, tmp_path, suffix):
    out = tmp_path / f"e{suffix}"
    embed_to_file(run, data, out)
    query = next((data / "test").rglob("*.png"))
    wanted = search(run, query, split="all", top=5, keep=False).answers[0]
    assert names(search(out, query, top=5).answers[0]) == names(wanted)
    assert search(out, query, split="train", top=5).num_images == 24


def test_a_file_of_embeddings_whose_run_and_data_have_moved(data, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(data, here)
    run = write_run(tmp_path / "run", here)
    embed_to_file(run, here, tmp_path / "e.parquet")
    here.rename(there)
    run.rename(tmp_path / "run2")
    query = next((there / "test").rglob("*.png"))
    with (
        pytest.warns(UserWarning, match="no longer exist: give --data"),
        pytest.raises(ConfigError, match=r"does not exist: give it \(--encoder\)"),
    ):
        search(tmp_path / "e.parquet", query, top=2)
    with pytest.warns(UserWarning, match="taken for the same because of their names"):
        result = search(tmp_path / "e.parquet", query, data=there, encoder=tmp_path / "run2", top=2)
    assert result.answers[0].left_out is not None
    with pytest.raises(DataError, match="are not the images"):
        search(tmp_path / "e.parquet", query, data=there / "test", encoder=tmp_path / "run2", top=2)


def test_a_file_of_images_in_memory_is_not_taken_for_others_of_the_same_names(run, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (9, 12, 12, 3), dtype=np.uint8)
    embed_to_file(run, ArraySource(images), tmp_path / "e.npy")
    assert len(search(tmp_path / "e.npy", [images[0]], data=ArraySource(images), top=2).answers) == 1
    images[3] = 0
    with pytest.raises(DataError, match="are not the images"):
        search(tmp_path / "e.npy", [images[0]], data=ArraySource(images), top=2)


def test_splits_of_a_file_whose_images_are_gone(run, data, tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(data, folder)
    shutil.copy(sorted((folder / "train").rglob("*.png"))[0], folder / "test" / "b" / "a copy.png")
    embed_to_file(run, folder, tmp_path / "e.parquet")
    here = find_duplicates(tmp_path / "e.parquet", threshold=0.99999)
    shutil.rmtree(folder)
    with pytest.warns(UserWarning, match="no longer exist"):
        gone = find_duplicates(tmp_path / "e.parquet", threshold=0.99999)
    assert here.num_across == gone.num_across == 1
    assert (here.num_copies, here.num_unseen) == (1, 0)
    assert (gone.num_copies, gone.num_unseen) == (0, 2)


def test_a_negative_batch_size(run, data):
    for keep in (True, False):
        with pytest.raises(ConfigError, match="batch_size = -1: must be at least 1"):
            find_duplicates(run, data=data, batch_size=-1, keep=keep)


def test_embeddings_of_another_encoder(run, data, tmp_path):
    embed_to_file(run, data, tmp_path / "e.npy")
    query = next(data.rglob("*.png"))
    with pytest.raises(ConfigError, match="made by another encoder"):
        search(tmp_path / "e.npy", query, encoder=write_run(tmp_path / "other", data, seed=1))
    wider = write_run(tmp_path / "wider", data, backbone="resnet10_32")
    with pytest.raises(ConfigError, match="makes vectors of 256 numbers, and the embeddings have 128"):
        search(tmp_path / "e.npy", query, encoder=wider)


@pytest.mark.parametrize(
    ("query", "options", "error", "message"),
    [
        ("text.png", {}, DataError, "not an image of a known format"),
        ("empty", {}, DataError, "holds no images"),
        ("nowhere.png", {}, DataError, "the query 'nowhere.png' does not exist"),
        ("good.png", {"top": 0}, ConfigError, "at least 1"),
        ("good.png", {"top": 25}, ConfigError, "there are 24 images"),
        ("good.png", {"index": "fais"}, ConfigError, "did you mean 'faiss'"),
        ("good.png", {"split": "tests"}, ConfigError, "did you mean 'test'"),
        ("good.png", {"data": "nowhere"}, DataError, "does not exist"),
    ],
)
def test_bad_input(run, data, tmp_path, monkeypatch, query, options, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "empty").mkdir()
    shutil.copy(next((data / "test").rglob("*.png")), tmp_path / "good.png")
    with pytest.raises(error, match=message):
        search(run, query, **options)


def test_faiss_finds_the_same(generator):
    pytest.importorskip("faiss")
    bank, queries = torch.randn(300, 16, generator=generator), torch.randn(9, 16, generator=generator)
    queries[2], queries[5] = bank[7] * 3, bank[8]
    for own in (torch.full((9,), -1), torch.tensor([-1, -1, 7, -1, -1, 8, -1, -1, -1])):
        exact, by_faiss = nearest(bank, queries, 20, own), nearest(bank, queries, 20, own, "faiss")
        torch.testing.assert_close(exact[0], by_faiss[0])
        assert torch.equal(exact[1], by_faiss[1])
        assert own.max() < 0 or 7 not in exact[1][2]


def test_without_faiss_the_extra_is_named(run, data, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"stopgrad\[faiss\]"):
        search(run, next(data.rglob("*.png")), index="faiss")


def components_by_hand(vectors, threshold):
    normalised = F.normalize(vectors, dim=1)
    near = (normalised @ normalised.T >= threshold - 1e-5).numpy()
    component = np.arange(len(vectors))
    while True:
        lowest = np.where(near, component[None], len(vectors)).min(axis=1)
        if (lowest == component).all():
            return component
        component = lowest


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("waiting", [0, 2**20])
def test_components_do_not_depend_on_the_tiles(generator, monkeypatch, threshold, waiting):
    centres = torch.randn(12, 6, generator=generator)
    vectors = centres[torch.arange(90) % 12] + 0.4 * torch.randn(90, 6, generator=generator)
    vectors[80] = vectors[3] * 2
    monkeypatch.setattr("stopgrad.retrieval.duplicates.TILE", 16)
    monkeypatch.setattr("stopgrad.retrieval.duplicates.MOST_WAITING", waiting)
    found, wanted = joined(vectors, threshold), components_by_hand(vectors, threshold)
    same = found[:, None] == found
    assert (same == (wanted[:, None] == wanted)).all()
    assert found[80] == found[3]


def test_duplicates_and_copies(run, data, tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(data, folder)
    first = sorted((folder / "train").rglob("*.png"))[0]
    shutil.copy(first, folder / "test" / "b" / "a copy.png")
    from PIL import Image

    # The same pixels in another file.
    Image.open(first).save(folder / "train" / "b" / "z.bmp")
    found = find_duplicates(run, data=folder, split="all", threshold=0.99999)
    (group,) = (group for group in found.groups if any(member.name == str(first) for member in group))
    assert [member.copy_of for member in group] == [None, None, str(first)]
    assert found.num_copies == 1
    assert found.num_across == 1
    assert all(member.cosine > 0.9999 for member in group)
    json.dumps(found.as_json())


def test_a_weak_encoder_is_told(run, data):
    weak = find_duplicates(run, threshold=0.01)
    assert len(weak.groups[0]) == 24
    assert "one group holds 24 of 24 images (100%)" in weak.warning
    assert "such as 0.505" in weak.warning
    assert find_duplicates(run, threshold=1).warning is None


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_thresholds_out_of_range(run, threshold):
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        find_duplicates(run, threshold=threshold)
