"""What the paper on scale computes."""

from dataclasses import replace

import pytest
import scale

SMALL = scale.Step(weights=1000, norms=2, channels=30, views=2, dim=8)


def test_bytes_by_hand():
    sent = scale.bytes_sent(SMALL, gpus=4, batch=16)
    assert sent["gradients"] == 2 * 3 / 4 * 1000 * 4
    # Three passes gather mean, deviation and count; one has a backward pass.
    assert sent["batchnorm"] == 3 * (2 * 30 + 2) * 3 * 4 + 2 * 3 / 4 * 2 * 30 * 4
    # The three others get this process's 4 images.
    assert sent["guide"] == 3 * (4 * 2 * 8 * 4)
    assert set(scale.bytes_sent(SMALL, gpus=1, batch=16).values()) == {0.0}


def test_passes_of_an_image():
    assert SMALL.passes == pytest.approx(2 / 3 + 1)
    assert replace(SMALL, views=4).passes == pytest.approx(4 / 3 + 2)


def test_the_network_of_the_tables():
    step = scale.resnet50(2)
    # ResNet-50 without its classifier has 23,508,032 weights and 26,560 channels in 53 BatchNorms.
    heads = 2048 * 4096 + 2 * 4096 + 4096 * 256 + 256 + 256 * 4096 + 2 * 4096 + 4096 * 256 + 256
    assert (step.weights, step.norms, step.channels) == (23_508_032 + heads, 55, 26_560 + 2 * 4096)


def test_one_gpu_runs_at_its_rate_and_more_are_less_efficient():
    machine = scale.Machine()
    step = scale.resnet50(2)
    alone = scale.run(scale.IMAGENET, step, 1, 512, machine)
    assert alone["efficiency"] == pytest.approx(1)
    assert alone["hours"] == pytest.approx(scale.IMAGENET * 5 / 3 / 2470 / 3600)
    found = [scale.run(scale.IMAGENET, step, gpus, 4096, machine)["efficiency"] for gpus in (8, 64, 512)]
    assert found == sorted(found, reverse=True)
    half = replace(machine, dollars_per_hour=machine.dollars_per_hour / 2)
    assert scale.run(1e6, step, 8, 4096, half)["dollars"] * 2 == pytest.approx(
        scale.run(1e6, step, 8, 4096, machine)["dollars"]
    )


def test_the_tables_are_those_of_the_document(pytestconfig):
    document = (pytestconfig.rootpath / "docs" / "scale.md").read_text()
    for line in scale.tables(scale.Machine()).splitlines():
        assert line in document


@pytest.mark.slow
def test_what_is_computed_is_what_two_processes_send():
    found, step = scale.count(2), scale.step_of(scale.small())
    assert found["gradients"]["counted"] == pytest.approx(found["gradients"]["computed"], rel=0.02)
    # A gather is one message to the other process, an all-reduce two. gloo adds 288 bytes to each.
    for name, messages in (("batchnorm", step.norms * (step.views + step.sources + 2 * step.sources)), ("guide", 1)):
        extra = found[name]["counted"] - found[name]["computed"]
        assert 0 <= extra <= 400 * messages
