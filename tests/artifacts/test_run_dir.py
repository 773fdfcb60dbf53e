import subprocess
import sys

import pytest

import stopgrad.caching as caching
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.errors import ConfigError, StopgradError


def test_a_new_folder(tmp_path):
    run = RunDir(tmp_path / "a" / "b")
    run.create()
    assert run.checkpoint_dir.is_dir()
    assert not run.is_run


def test_an_empty_folder_is_taken(tmp_path):
    run = RunDir(tmp_path)
    run.create()
    assert run.checkpoint_dir.is_dir()


def test_a_run_is_refused(tmp_path):
    run = RunDir(tmp_path)
    run.create()
    run.write_config(Config())
    with pytest.raises(ConfigError, match="holds a run already"):
        run.create()


def test_foreign_files_are_refused_and_never_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.pt").write_text("mine")
    run = RunDir(tmp_path)
    with pytest.raises(ConfigError, match="other files"):
        run.create()
    run.create(overwrite=True)
    run.write_config(Config())
    run.save_checkpoint(3, {"step": 3}, keep=2)
    run.append_metrics({"step": 1})
    run.create(overwrite=True)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["mine.pt", "thesis.txt"]


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        RunDir(tmp_path / "x").create()


def test_config_round_trip(tmp_path):
    config = Config(recipe="digits").replace(epochs=3, lr=0.25, mean=(0.1, 0.2, 0.3), predictor=False)
    run = RunDir(tmp_path)
    run.create()
    run.write_config(config)
    assert run.read_config() == config


def test_metrics_of_steps_to_be_taken_again_are_dropped(tmp_path):
    run = RunDir(tmp_path)
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
    with open(run.metrics_file, "a") as file:
        file.write('{"step": 4, "los')
    run.forget_metrics_after(2)
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]


def test_only_the_newest_checkpoints_are_kept_and_the_newest_valid_is_taken(tmp_path):
    run = RunDir(tmp_path)
    run.create()
    for step in (1, 2, 3):
        run.save_checkpoint(step, {"step": step}, keep=2)
    assert len(list(run.checkpoint_dir.iterdir())) == 2
    (run.checkpoint_dir / "step-00000003.ckpt").write_bytes(b"cut off")
    state, problems = run.newest_checkpoint()
    assert state == {"step": 2}
    assert len(problems) == 1
    assert "step-00000003" in problems[0]


def test_another_programs_files_of_our_names_are_not_replaced(tmp_path):
    (tmp_path / "config.toml").write_text("[server]\nport = 80\n")
    with pytest.raises(ConfigError, match=r"holds a config\.toml that is not a run's"):
        RunDir(tmp_path).check_free(overwrite=True)


def test_a_checkpoint_just_written_is_kept_beside_later_unreadable_ones(tmp_path):
    run = RunDir(tmp_path)
    run.create()
    for step in (90, 100):
        (run.checkpoint_dir / f"step-{step:08}.ckpt").write_bytes(b"damaged")
    run.save_checkpoint(5, {"step": 5}, keep=1)
    run.save_checkpoint(10, {"step": 10}, keep=1)
    state, problems = run.newest_checkpoint()
    assert state == {"step": 10}
    assert len(problems) == 2
    assert len(list(run.checkpoint_dir.iterdir())) == 3


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    run = RunDir(tmp_path / "run")
    lines = (
        "import sys",
        "from stopgrad.artifacts.run_dir import RunDir",
        "with RunDir(sys.argv[1]).held():",
        "    print('held', flush=True)",
        "    input()",
    )
    command = [sys.executable, "-c", "\n".join(lines), run.path]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match="another process is training in"), run.held():
        pytest.fail("held twice")
    # However it ends, it lets go.
    other.kill()
    other.communicate()
    with run.held():
        run.check_free()
        assert run.lock_file.exists()
    assert not run.lock_file.exists()


def test_without_locks_nothing_is_held(tmp_path, monkeypatch):
    def none(*_, **__):
        raise OSError("no locks")

    monkeypatch.setattr(caching, "try_lock", none)
    with RunDir(tmp_path / "run").held() as held:
        assert held is None


def test_a_full_disk_is_named_with_what_is_safe(tmp_path):
    run = RunDir(tmp_path)
    run.metrics_file.symlink_to("/dev/full")
    with pytest.raises(StopgradError, match=r"metrics.jsonl cannot be written: No space left .* resume goes on"):
        run.append_metrics({"step": 1})
