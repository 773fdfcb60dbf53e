import json
import re
import subprocess
import sys

import pytest
from PIL import Image

from stopgrad.cli.main import run

PRETRAIN_FLAGS = """
--backbone --batch-size --blur-probability --blur-sigma-max --blur-sigma-min --brightness --cache --cache-gb
--checkpoint-every-steps --checkpoint-keep --compile --config --contrast --crop-scale-max --crop-scale-min --device
--devices --ema-momentum --ema-schedule --epochs --flip-probability --geometry --gray-probability --guide
--holdout --hue --image-size --init --jitter-form --jitter-probability --json --knn-k --knn-temperature
--log-every-steps --logger --lr --lr-schedule --mean --memory-gb --method --momentum --monitor-every-epochs
--monitor-images --no-predictor --no-predictor-lr-fixed --no-report --no-strict --optimizer --out --overwrite
--partners
--precision --predictor --predictor-lr-fixed --predictor-width --projection-dim --projector-layers
--projector-width --recipe --report --resume --rotation-degrees --saturation --seed --shift --std --stem --steps
--strict
--time-limit-seconds --views --warmup-epochs --weight-decay --workers --zoom
"""


TRAINING_FLAGS = """
--baselines --batch-size --cache --crop-scale-min --device --epochs --flip --json --lr --no-baselines --no-flip
--optimizer --precision --seed --test --train --weight-decay --workers
"""
FINETUNE_FLAGS = "--head-lr --label-smoothing --labels --out --overwrite --warmup-epochs"


def flags_of(*command):
    done = subprocess.run(
        [sys.executable, "-m", "stopgrad", *command, "--help"], capture_output=True, text=True, check=True
    )
    return set(re.findall(r"--[a-z][a-z0-9-]+", done.stdout))


def test_the_flags_of_pretrain_are_pinned():
    """Names that users rely on: adding is free, renaming is not."""
    assert flags_of("pretrain") >= set(PRETRAIN_FLAGS.split())


def test_the_flags_of_evaluations_that_train_are_pinned():
    assert flags_of("evaluate", "linear-augmented") >= set(TRAINING_FLAGS.split())
    assert flags_of("evaluate", "finetune") >= {*TRAINING_FLAGS.split(), *FINETUNE_FLAGS.split()}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--help"], 0, "Train a backbone on unlabelled images"),
        (["pretrain", "--help"], 0, "--guide"),
        (["recipes"], 0, "digits"),
        (["pretrian"], 2, 'Did you mean "pretrain"?'),
        (["pretrain"], 2, "--out"),
        (["pretrain", "--out", "x", "--epoch", "3"], 2, "Did you mean --epochs?"),
        (["pretrain", "--out", "x", "--epochs", "3.5"], 2, "not a whole number"),
        (["pretrain", "--out", "x", "--guide", "nearest_view"], 2, "did you mean 'nearest_views'?"),
        (["pretrain", "--out", "x", "--guide", "my_guides:most-central"], 2, "goes by 'package.module:name'"),
        (["pretrain", "--out", "x", "--guide", "nearest_in_memory"], 2, "studies.candidates:NearestInMemory"),
        (["pretrain", "--out", "x", "--guide-softness", "0.5"], 2, "studies.candidates:soft_in_batch"),
        (["pretrain", "--out", "x", "--guide-skip=5"], 2, "guide_skip was removed"),
        (["pretrain", "--out", "x", "--logger", "wandbb"], 2, "did you mean 'wandb'?"),
        (["pretrain", "--out", "x", "--recipe", "digit"], 2, "did you mean 'digits'?"),
        (["pretrain", "--out", "x", "--lr", "-1"], 2, "at least 0"),
        (["pretrain", "--out", "x", "--config", "none.toml"], 2, "cannot be read"),
        (["recipes", "cifar"], 2, "did you mean 'cifar10'"),
        (["preview", "--images", "1"], 2, "at least 2 images"),
        (["bench", "--only", "decod"], 2, "did you mean 'decode'?"),
        (["evaluate", "linear", "--help"], 0, "--l2"),
        (["evaluate", "few-label", "--help"], 0, "--labels-per-class"),
        (["evaluate", "knn"], 2, "ENCODER"),
        (["check", "--help"], 0, "--fail-on-collapse"),
        (["pretrain", "--help"], 0, "--init"),
        (["pretrain", "--out", "x", "--init", "none.pth"], 1, "init = 'none.pth': none.pth does not exist"),
        (["pretrain", "--out", "x", "--logger", "none", "none"], 1, "'none' does not exist: give a folder of images"),
        (["pretrain", "none", "--out", "x"], 1, "'none' does not exist: give a folder of images"),
        (["pretrain", "none-{0..3}.tar", "--out", "x"], 1, "4 of 4 shards do not exist"),
        (["pretrain", "https://host/none.zip", "--out", "x"], 2, "needs addresses of .tar or .parquet files"),
        (["preview", "ftp://host/none.tar", "--out", "x.png"], 2, "shards are read from s3://"),
        (["pretrain", "--out", "/"], 2, "holds other files"),
        (["pretrain", "--out", "x", "--resume"], 2, "holds no run to resume"),
        (["embed", "none", "--out", "x.npy"], 1, "none does not exist"),
        (["evaluate", "knn", "none"], 1, "none does not exist"),
        (["evaluate", "finetune", "timm:resnet18", "--train", "none"], 1, "'none' does not exist"),
        (["check", "none"], 1, "none does not exist"),
        (["report", "none", "photos", "--out", "x.html"], 1, "none does not exist"),
        (["search", "none", "photo.jpg"], 1, "none does not exist"),
        (["export", "none", "--to", "onnx"], 1, "none does not exist"),
        (["export", "torchvision:resnet50", "--to", "onnx"], 1, "only timm's networks are fetched"),
        (["compare", "none", "nothing"], 2, "none holds no run"),
        (["preview", "none", "--out", "x.png"], 1, "'none' does not exist"),
        (["bench", "none"], 1, "'none' does not exist"),
    ],
)
def test_usage_needs_no_torch(arguments, code, message):
    """Help and errors of usage come at once: torch takes seconds to import."""
    script = (
        "import sys\n"
        "from stopgrad.cli.main import run\n"
        f"code = run({arguments!r})\n"
        "heavy = {'torch', 'timm', 'sklearn', 'pyarrow', 'torchvision'} & set(sys.modules)\n"
        "print('HEAVY', heavy) if heavy else None\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    # Versions of cyclopts differ in where they set quotation marks.
    assert message.replace('"', "") in (done.stdout + done.stderr).replace('"', "")
    assert "HEAVY" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_importing_the_package_needs_no_torch():
    script = (
        "import sys, stopgrad\n"
        "assert 'torch' not in sys.modules\n"
        "stopgrad.negative_cosine\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def tiny_flags(tiny):
    given = {name.replace("_", "-"): value for name, value in tiny.items()}
    off = [f"--no-{name}" for name, value in given.items() if value is False]
    return off + [part for name, value in given.items() if value is not False for part in (f"--{name}", str(value))]


@pytest.mark.slow
def test_pretrain_prints_the_table_and_the_verdict(tmp_path, tiny, capsys):
    assert run(["pretrain", "--out", str(tmp_path / "run"), "--steps", "3", *tiny_flags(tiny)]) == 0
    output = capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for words in ("all labels", "10 labels a class", "untrained network", "raw pixels", "views/s", "network "):
        assert words in output
    assert summary["knn_protocol"] in output
    assert summary["verdict_words"] in output


@pytest.mark.slow
def test_json_is_one_object_and_nothing_else(tmp_path, tiny, capsys):
    assert run(["pretrain", "--out", str(tmp_path / "run"), "--steps", "3", "--json", *tiny_flags(tiny)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["steps"] == 3
    assert captured.out.count("\n") == 1
    assert "Backbone" in captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no/such/folder"], 1, "does not exist"),
        (["--device", "cuda:99"], 2, "cuda"),
        (["--backbone", "resnet81"], 2, "did you mean"),
    ],
)
@pytest.mark.slow
def test_exit_codes(tmp_path, capsys, arguments, code, message):
    assert run(["pretrain", "--out", str(tmp_path / "run"), *arguments]) == code
    assert message in capsys.readouterr().err


def test_an_existing_run_folder_is_wrong_usage(tmp_path, capsys):
    (tmp_path / "thesis.txt").touch()
    assert run(["pretrain", "--out", str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err


def test_a_time_limit_exits_3(tmp_path, tiny, capsys):
    arguments = ["pretrain", "--out", str(tmp_path / "run"), "--time-limit-seconds", "0.2", "--epochs", "500"]
    assert run([*arguments, *tiny_flags(tiny)]) == 3
    assert "resume continues" in capsys.readouterr().err


def test_preview_writes_a_sheet(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert run(["preview", "--out", str(out), "--images", "3", "--columns", "5"]) == 0
    with Image.open(out) as sheet:
        # Tiles of 96 pixels and gaps of 4, the originals set apart by 8 more.
        assert sheet.size == (6 * 100 + 12, 3 * 100 + 4)
    assert "3 images, 5 views each, by recipe scattered_digits" in capsys.readouterr().out
    assert run(["preview", "--out", str(out)]) == 2
    assert run(["preview", "--out", str(out), "--overwrite", "--json"]) == 0


def test_recipes_show_their_claim_and_settings(capsys):
    assert run(["recipes", "cifar10"]) == 0
    output = capsys.readouterr().out
    assert 'recipe = "cifar10"' in output
    assert output.startswith("# CIFAR-10 at full scale")
    assert run(["recipes", "--json"]) == 0
    assert "imagenet" in json.loads(capsys.readouterr().out)
    assert run(["recipes", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["knn_k"] == 20


def test_a_recipe_as_printed_is_a_config(tmp_path, capsys):
    from stopgrad.recipes import RECIPES, resolve

    run(["recipes", "digits"])
    (tmp_path / "c.toml").write_text(capsys.readouterr().out)
    recipe, given = resolve(None, tmp_path / "c.toml", {})
    assert RECIPES[recipe]().replace(**given) == RECIPES["digits"]()


def test_ctrl_c_before_anything_is_saved_exits_3(monkeypatch, capsys):
    def press(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("stopgrad.cli.recipes.print_json", press)
    assert run(["recipes", "--json"]) == 3
    assert "by Ctrl-C before there was anything to save" in capsys.readouterr().err
