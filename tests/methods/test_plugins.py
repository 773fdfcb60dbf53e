"""Guides and methods of the user's own."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from recorder import Recorder
from safetensors.torch import load_file

import stopgrad
from stopgrad import GuidedStopGradientLoss, negative_cosine
from stopgrad.cli.main import run
from stopgrad.config import Config, to_toml, without_effect
from stopgrad.errors import ConfigError
from stopgrad.methods import build
from stopgrad.methods.plugins import guide_without_effect
from stopgrad.settings import is_plugin

GUIDES = '''
import torch
from torch import nn

def shortest(target, partners, generator):
    """One source an image: the view whose projection is the shortest."""
    return nn.functional.one_hot(target.norm(dim=2).argmin(dim=1), target.shape[1]).float()

shortest.sources = "image"

def even(target, partners, generator):
    return torch.full(target.shape[:2], 1 / target.shape[1])

def partnered(target, partners, generator):
    assert partners.shape == target.shape[:1]
    return even(target, partners, generator)

partnered.needs_partners = True

class Counting(nn.Module):
    """Counts its calls in a buffer, and notes how far the run is."""

    sources = "pair"

    def __init__(self, config):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(64))

    def forward(self, target, partners, generator):
        if self.training:
            self.seen[int(self.calls)] = self.progress
            self.calls += 1
        first = int(self.calls) % 2
        weights = torch.zeros(target.shape[:2])
        weights[:, first] = 1
        return weights

def three(target, partners, generator): return torch.ones(len(target), 3) / 3
def whole(target, partners, generator): return torch.ones(target.shape[:2], dtype=torch.int64)
def nothing(target, partners, generator): pass
def heavy(target, partners, generator): return torch.ones(target.shape[:2])
def negative(target, partners, generator): return torch.tensor([2.0, -1.0]).expand(target.shape[:2])
def nan(target, partners, generator): return even(target, None, None) * torch.nan
def fails(target, partners, generator): raise KeyError("mine")
def late(target, partners, generator): return even(target, None, None) * (1 if len(target) == 8 else 2)
def odd(target, partners, generator): return even(target, None, None)
odd.sources = "views"
number, one = 3, nn.Linear(2, 2)
class Plain: pass
class Demanding(nn.Module):
    def __init__(self): super().__init__()
'''
METHODS = """
import torch
from torch import nn
from stopgrad.methods.protocol import initial_backbone, projector_of
from stopgrad.methods.protocol import Method
from stopgrad.nets.backbones import num_features

class Alike(Method):
    def __init__(self, backbone, projector):
        super().__init__()
        self.encoder = nn.Sequential(backbone, projector)

    def forward(self, views, generator):
        first, second = (self.encoder(view) for view in views)
        return (first - second).square().mean(), {}

def alike(config, initial=None):
    backbone = initial_backbone(config, initial)
    return Alike(backbone, projector_of(config, num_features(backbone)))

def nothing(config, initial=None): return nn.Linear(2, 2)
def fails(config, initial=None): raise KeyError("mine")
"""
TINY = {"backbone": "test_resnet", "projector_width": 16, "projection_dim": 16, "predictor_width": 8}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with modules in it that no other test has imported."""
    (tmp_path / "own_guides.py").write_text(GUIDES)
    (tmp_path / "own_methods.py").write_text(METHODS)
    (tmp_path / "own_broken.py").write_text("x = 1\nraise RuntimeError('out of luck')\n")
    (tmp_path / "own_lacking.py").write_text("import no_such_dependency\n")
    (tmp_path / "own_quitting.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own_guides", "own_methods", "own_broken", "own_lacking", "own_quitting"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("own_guides", "own_methods"):
        sys.modules.pop(name, None)


def config_of(**settings):
    return Config().replace(**TINY, **settings)


@pytest.mark.parametrize(
    ("name", "plugin"),
    [("a:b", True), ("a.b_2.c:D", True), ("nearest_views", False), ("a:", False), (":b", False), ("a:b:c", False),
     ("a-b:c", False), ("a/b.py:c", False), ("a..b:c", False)],
)  # fmt: skip
def test_what_goes_for_a_plugin(name, plugin):
    assert is_plugin(name) is plugin
    if not plugin and name != "nearest_views":
        with pytest.raises(ConfigError, match=r"goes by 'package\.module:name'"):
            Config().replace(guide=name)


def test_a_name_is_no_import(folder):
    """A config may name what does not exist: only whoever trains imports it."""
    config = Config().replace(guide="no_such_module:mine", method="own_broken:mine")
    assert "own_broken" not in sys.modules
    assert 'guide = "no_such_module:mine"' in to_toml(config)


@pytest.mark.parametrize(
    ("name", "views"),
    [("shortest", 2), ("shortest", 4), ("even", 4), ("partnered", 2), ("partnered", 4), ("Counting", 2)],
)
def test_a_guide_of_ones_own(folder, name, views, generator):
    method = build(config_of(guide=f"own_guides:{name}", views=views))
    loss, _ = method(torch.randn(views, 6, 3, 32, 32, generator=generator), generator)
    loss.backward()
    assert torch.isfinite(loss)


def test_source_first_takes_the_sources_alone(folder, generator):
    sizes = []
    method = build(config_of(method="byol", guide="own_guides:shortest", source_first=True))
    method.encoder.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    method(torch.randn(2, 6, 3, 32, 32, generator=generator), generator)
    assert sizes == [6]
    assert not build(config_of(guide="own_guides:even", source_first=True)).source_first


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (
            "own_guide:shortest",
            "there is no module 'own_guide'. Start where it lies, or put its folder into PYTHONPATH",
        ),
        ("own_guides.sub:shortest", "there is no module 'own_guides.sub'|there is no module"),
        ("own_guides:shortes", "own_guides has no 'shortes': did you mean 'shortest'"),
        ("own_guides:number", "is a int: it must be a function or a class"),
        ("own_guides:one", "is one module, which runs would share"),
        ("own_guides:Plain", "is no torch.nn.Module"),
        ("own_guides:Demanding", "cannot be made of a config: TypeError"),
        ("own_guides:odd", "sources = 'views': must be 'all', 'pair' or 'image'"),
        ("own_broken:mine", r"fails when it is imported: RuntimeError: out of luck \(.*own_broken.py, line 2\)"),
        ("own_lacking:mine", "fails when it is imported: ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("own_quitting:mine", "fails when it is imported: SystemExit"),
        ("own_guides:three", r"gives torch.float32 \(8, 3\): needs floating-point weights \[image, view\] \(8, 2\)"),
        ("own_guides:whole", "gives torch.int64"),
        ("own_guides:nothing", "gives NoneType"),
        ("own_guides:heavy", "off by 1: they must sum to one over an image's views"),
        ("own_guides:negative", "negative or not finite"),
        ("own_guides:nan", "negative or not finite"),
        ("own_guides:fails", r"fails on targets \(8, 2, 16\): KeyError: 'mine' \(.*own_guides.py, line"),
    ],
)
def test_what_is_wrong_with_a_guide_is_said_before_training(folder, guide, message):
    with pytest.raises(ConfigError, match=message):
        build(config_of(guide=guide))


def test_what_is_wrong_at_the_first_batch_is_said_there(folder, generator):
    method = build(config_of(guide="own_guides:late"))
    with pytest.raises(ConfigError, match="off by 1"):
        method(torch.randn(2, 6, 3, 32, 32, generator=generator), generator)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("own_methods:nothing", "makes a Linear: needs a stopgrad.methods.protocol.Method"),
        ("own_methods:fails", "cannot be built: KeyError: 'mine'"),
        ("own_methods:alik", "did you mean 'alike'"),
        ("no_such_module:alike", "there is no module 'no_such_module'"),
    ],
)
def test_what_is_wrong_with_a_method(folder, method, message):
    with pytest.raises(ConfigError, match=message):
        build(config_of(method=method))


def test_settings_that_a_guide_leaves_without_effect(folder):
    config = config_of(guide="own_guides:even", source_first=True, partners="mutual")
    given = {"source_first", "partners", "queue_size"}
    assert without_effect(config, given) == []  # known without importing
    first, second = guide_without_effect(config, given)
    assert "partners has no effect: guide = 'own_guides:even' looks at no partner" in first
    assert "source_first has no effect" in second
    assert guide_without_effect(config_of(guide="own_guides:partnered", partners="mutual"), given) == [second.replace(
        "even", "partnered")]  # fmt: skip


def test_the_loss_alone_takes_a_function(generator):
    def first_view(target, partners, generator):
        return torch.tensor([1.0, 0.0]).expand(target.shape[:2])

    p, z = torch.randn(2, 6, 2, 8, generator=generator)
    loss = GuidedStopGradientLoss(first_view)(p, z)
    torch.testing.assert_close(loss, negative_cosine(p[:, 0], z[:, 1]).mean())


def test_a_run_with_a_module_resumes_to_the_bit(folder, tiny):
    arguments = {**tiny, "steps": 6, "checkpoint_every_steps": 3, "checkpoint_keep": 5, "guide": "own_guides:Counting"}
    whole = stopgrad.pretrain(out=folder / "whole", reporter=Recorder(), **arguments)
    before = load_file(whole.path / "encoder.safetensors")
    state = load_file(whole.path / "checkpoints" / "step-00000006.ckpt")
    calls, seen = (next(t for n, t in state.items() if n.endswith(f"guide.{b}")) for b in ("calls", "seen"))
    assert int(calls) == 6
    assert seen[:7].tolist() == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 0])
    (whole.path / "checkpoints" / "step-00000006.ckpt").unlink()
    stopgrad.pretrain(out=whole.path, resume=True, reporter=Recorder())
    after = load_file(whole.path / "encoder.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_encoder_is_loaded_without_the_plugin(folder, tiny, monkeypatch):
    """Of the run, of a checkpoint, and for its page; going on is what needs it."""
    made = stopgrad.pretrain(
        out=folder / "run", steps=2, baselines=False, guide="own_guides:shortest", reporter=Recorder(), **tiny
    )
    (folder / "own_guides.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.delitem(sys.modules, "own_guides")
    for place in (made.path, made.path / "encoder.safetensors", made.path / "checkpoints" / "step-00000002.ckpt"):
        assert stopgrad.load_encoder(place).embed([np.zeros((8, 8, 3), np.uint8)]).shape[0] == 1
    stopgrad.export(made.path, to="hub-folder", out=folder / "hub")
    assert "guide `own_guides:shortest`" in (folder / "hub" / "README.md").read_text()
    stopgrad.write_report(made.path, out=folder / "page.html", points=20)
    assert "own_guides" not in sys.modules
    with pytest.raises(ConfigError, match="imported"):
        stopgrad.pretrain(out=made.path, resume=True, reporter=Recorder())


@pytest.mark.slow
def test_a_method_of_ones_own_in_two_processes(folder, tiny):
    """Each process imports it, from the working directory too."""
    made = stopgrad.pretrain(
        out=folder / "run", steps=2, method="own_methods:alike", devices=2, device="cpu", reporter=Recorder(), **tiny
    )
    assert made.encoder.backbone.num_features > 0
    assert Config().replace(method="own_methods:alike").method_words == "own_methods:alike, 2 views"


def test_the_command_line(folder, tiny, capsys):
    flags = ["pretrain", "--out", "run", "--steps", "2", "--recipe", "digits", "--guide"]
    assert run([*flags, "own_guides:shortes"]) == 2
    assert "did you mean 'shortest'" in capsys.readouterr().err
    assert not (folder / "run").exists()
    assert run([*flags, "own_guides:late", "--devices", "1"]) == 2
    assert "off by 1" in capsys.readouterr().err


@pytest.mark.slow
def test_the_installed_program_finds_a_module_beside_it(folder):
    """Whose own folder, not the working directory, is on Python's path."""
    script = textwrap.dedent(
        """
        import sys
        sys.path[:] = [path for path in sys.path if path]
        from stopgrad.methods.plugins import find_guide
        print(find_guide("own_guides:shortest").sources)
        """
    )
    (folder / "bin").mkdir()
    (folder / "bin" / "program.py").write_text(script)
    done = subprocess.run([sys.executable, "bin/program.py"], capture_output=True, text=True)
    assert done.stdout == "image\n", done.stderr
