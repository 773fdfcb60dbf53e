"""Shards in S3, served by moto over HTTP."""

import pytest
import torch
from sharded import write_tars

from stopgrad.cache.store import load_images
from stopgrad.config import Config
from stopgrad.data.open import open_images
from stopgrad.data.shards import remote
from stopgrad.distributed.rank import Rank
from stopgrad.errors import DataError
from stopgrad.loader.loader import Loader
from stopgrad.settings import Data

pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A bucket with five shards, and the folder with the same."""
    import boto3
    from moto.server import ThreadedMotoServer

    folder = tmp_path_factory.mktemp("set")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="photos")
        for path in write_tars(folder, [6] * 5):
            client.upload_file(str(path), "photos", f"set/{path.name}")
        yield "s3://photos/set", folder
    server.stop()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "BACKOFF_SECONDS", 0.01)


def batches(path):
    source = open_images(path, Data(shuffle_buffer=20)).train
    loader = Loader(load_images(source, shortest=64), Config().replace(image_size=12, batch_size=6, workers=2), Rank())
    return [loader.views(batch, torch.device("cpu")) for batch in loader.batches(0, 10)]


@pytest.mark.parametrize("name", ["", "/train-{000..004}.tar", "/train-*.tar"])
def test_batches_are_those_of_local_shards(bucket, name):
    address, folder = bucket
    for a, b in zip(batches(str(folder)), batches(address + name), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "message"), [
    ("/train-009.tar", "'s3://photos/set/train-009.tar' cannot be read: .*Credentials come from"),
    ("/none-*.tar", r"'s3://photos/set/none-\*.tar' matches no .tar or .parquet file"),
])  # fmt: skip
def test_what_is_not_there(bucket, name, message):
    with pytest.raises(DataError, match=message):
        batches(bucket[0] + name)


def test_without_credentials(bucket, monkeypatch, tmp_path):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"Unable to locate credentials. Credentials come from .*FSSPEC_S3_ANON"):
        batches(f"{bucket[0]}/train-000.tar")
