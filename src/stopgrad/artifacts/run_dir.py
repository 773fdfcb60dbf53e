"""The run folder: the one place that knows its file names. Torch is imported where tensors are read or written."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import stopgrad.caching as caching
from stopgrad.artifacts.files import checkpoint_path, checkpoints_in, temporaries_in, write_atomically
from stopgrad.config import Config, from_toml, to_toml
from stopgrad.data.place import IN_MEMORY, check_there
from stopgrad.errors import CheckpointError, ConfigError, DataError, StopgradError
from stopgrad.recipes import base_config
from stopgrad.removed import to_look_at, without_removed


class RunDir:
    """A run folder.

    Args:
        path: the folder; made by `create`, not here.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.expanduser(path))
        self.config_file = self.path / "config.toml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.summary_file = self.path / "summary.json"
        self.environment_file = self.path / "environment.json"
        self.encoder_file = self.path / "encoder.safetensors"
        self.encoder_spec_file = self.path / "encoder.json"
        self.start_file = self.path / "start.safetensors"
        self.start_spec_file = self.path / "start.json"
        self.best_file = self.path / "checkpoints" / "best.ckpt"
        self.checkpoint_dir = self.path / "checkpoints"
        self.tensorboard_dir = self.path / "tensorboard"
        self.wandb_id_file = self.path / "wandb" / "run_id"
        self.mlflow_id_file = self.path / "mlflow" / "run_id"
        self.evaluations_dir = self.path / "evaluations"
        self.embeddings_dir = self.path / "embeddings"
        self.report_file = self.path / "report.html"
        self.lock_file = self.path / ".lock"

    @property
    def is_run(self) -> bool:
        """Whether a run was begun here."""
        return self.config_file.is_file()

    def check_run(self) -> None:
        """Raise `ConfigError` where no run was begun."""
        if not self.is_run:
            raise ConfigError(f"{self.path} holds no run: it has no config.toml.")

    def check_free(self, *, overwrite: bool = False) -> None:
        """Raise `ConfigError` if the folder holds a run or other files and `overwrite` is not set."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file: name another folder.")
        if not overwrite and self.path.is_dir() and not self._is_empty():
            if self.is_run:
                raise ConfigError(
                    f"{self.path} holds a run already: use --resume to continue it, --overwrite to start over.",
                    topic="run-folder-in-use",
                )
            raise ConfigError(
                f"{self.path} holds other files: use --overwrite to write beside them, or another folder.",
                topic="run-folder-in-use",
            )
        if overwrite and (taken := [file.name for file in self._own_files() if file.exists()]) and not self._is_ours():
            raise ConfigError(
                f"{self.path} holds a {taken[0]} that is not a run's; --overwrite would replace it. Name another one."
            )

    def create(self, *, overwrite: bool = False) -> None:
        """Make the folder ready for a new run; with `overwrite`, an earlier run's own files go, foreign ones stay.

        Raises:
            ConfigError: the folder is taken, or cannot be made.
        """
        self.check_free(overwrite=overwrite)
        self.make()
        self._remove_own_files()

    def make(self) -> None:
        """Make the folder, empty, if it does not exist; raise `ConfigError` if it cannot be made."""
        try:
            self.checkpoint_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run folder {self.path} cannot be made: {error.strerror}.") from error

    @contextmanager
    def held(self) -> Iterator[caching.FileLock | None]:
        """The folder for this process alone, made if it does not exist, while within; a killed one's half-files go.

        A process that ends, however, lets go of it, and so must those that have the lock's descriptor. Where the system
        or the file system has no locks nothing is held.

        Raises:
            ConfigError: another process trains in it, or it cannot be made.
        """
        self.make()
        lock = None
        with suppress(OSError):
            lock = self._lock() if caching.AVAILABLE else None
        try:
            # Without a lock they may be another process's that writes now.
            for path in self._litter() if lock is not None else ():
                path.unlink(missing_ok=True)
            yield lock
        finally:
            if lock is not None:
                self.lock_file.unlink(missing_ok=True)
                lock.close()

    def _lock(self) -> caching.FileLock:
        while True:
            lock = caching.try_lock(self.lock_file, create=True)
            if lock is None:
                raise ConfigError(
                    f"another process is training in {self.path}: wait for its end, or name another folder.",
                    topic="run-folder-in-use",
                )
            # The process that held it before may have removed the file meanwhile.
            if lock.is_on(self.lock_file):
                return lock
            lock.close()

    def _is_empty(self) -> bool:
        """Whether nothing is there but what `held` makes and a killed process leaves."""
        left = {self.lock_file, self.checkpoint_dir, *self._litter()}
        return not {*self.path.iterdir(), *self.checkpoint_dir.glob("*")} - left

    def _litter(self) -> list[Path]:
        """What a killed training process had begun to write. (Pages are written by others too, perhaps now.)"""
        names = {file.name for file in self._own_files()} - {self.report_file.name}
        return [*temporaries_in(self.path, names), *temporaries_in(self.checkpoint_dir)]

    def _own_files(self) -> list[Path]:
        """The files that a run of ours writes by these names."""
        return [self.config_file, self.metrics_file, self.summary_file, self.encoder_file, self.encoder_spec_file,
                self.environment_file, self.report_file, self.start_file, self.start_spec_file, self.best_file,
                self.wandb_id_file, self.mlflow_id_file,
                *sorted(self.evaluations_dir.glob("*.json")),
                *sorted(self.embeddings_dir.glob("*.parquet*"))]  # fmt: skip

    def _is_ours(self) -> bool:
        """Whether config.toml is a run's, and not another program's."""
        try:
            self.read_config()
        except ConfigError:
            return False
        return True

    def _remove_own_files(self) -> None:
        events = self.tensorboard_dir.glob("events.out.tfevents.*")
        for file in (*self._own_files(), *checkpoints_in(self.checkpoint_dir), *events):
            file.unlink(missing_ok=True)

    def write_config(self, config: Config) -> None:
        """Write config.toml."""
        write_atomically(self.config_file, lambda path: path.write_text(to_toml(config), encoding="utf-8"))

    def read_config(self, *, to_train: bool = False) -> Config:
        """The config the run was begun with; `to_train` refuses what earlier versions had and this one has not."""
        recipe, settings = from_toml(self.config_file, without_removed if to_train else to_look_at)
        return base_config(recipe).replace(**settings)

    @property
    def images_were_in_memory(self) -> bool:
        """Whether it was trained on an `ImageSource`; its config has no path then, as with scikit-learn's digits."""
        return not self.read_config().data.path and self.read_environment().get("data") == IN_MEMORY

    def images_path(self, flag: str) -> str:
        """Where the images are that the run was trained on; empty for scikit-learn's digits.

        Args:
            flag: how a caller gives others, for the message.

        Raises:
            ConfigError: no run, or its images are gone.
        """
        if not self.is_run:
            raise ConfigError(
                f"{self.path} is no run that knows its images: give {flag}, a folder of images or a parquet file."
            )
        path = self.read_config().data.path
        if self.images_were_in_memory:
            raise ConfigError(f"the run was trained on images in memory, which are not stored: give {flag}.")
        try:
            if path:
                check_there(path)
        except (ConfigError, DataError) as error:
            raise ConfigError(f"the run's own images, {path!r}, no longer exist: give {flag}. ({error})") from error
        return path

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file into the folder."""
        text = json.dumps(content, indent=2, allow_nan=True) + "\n"
        write_atomically(self.path / name, lambda path: path.write_text(text, encoding="utf-8"))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder; raises `ValueError` where it holds no JSON object."""
        try:
            content: Any = json.loads((self.path / name).read_text(encoding="utf-8"))
        except RecursionError as error:
            raise ValueError(f"{self.path / name} is nested too deeply") from error
        if not isinstance(content, dict):
            raise ValueError(f"{self.path / name} is no JSON object")
        return content

    def found_json(self, name: str) -> dict[str, Any]:
        """As `read_json`; nothing where it is missing or damaged."""
        try:
            return self.read_json(name)
        except (OSError, ValueError):
            return {}

    def read_summary(self) -> dict[str, Any]:
        """What summary.json says."""
        return self.read_json(self.summary_file.name)

    def read_environment(self) -> dict[str, Any]:
        """What environment.json says; nothing where it is missing or damaged."""
        return self.found_json(self.environment_file.name)

    def write_evaluation(self, name: str, content: dict[str, Any]) -> None:
        """Write evaluations/NAME.json."""
        self.evaluations_dir.mkdir(exist_ok=True)
        self.write_json(f"{self.evaluations_dir.name}/{name}.json", content)

    def read_evaluations(self) -> dict[str, dict[str, Any]]:
        """Name -> content of the evaluations kept here, those that can be read."""
        found = {}
        for file in sorted(self.evaluations_dir.glob("*.json")):
            try:
                found[file.stem] = self.read_json(f"{self.evaluations_dir.name}/{file.name}")
            except (OSError, ValueError):
                continue
        return found

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl.

        Raises:
            StopgradError: it cannot be written.
        """
        try:
            with open(self.metrics_file, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise StopgradError(
                f"{self.metrics_file} cannot be written: {error.strerror}. Checkpoints are intact: resume goes on from "
                "the newest."
            ) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, without one that was cut off in writing."""
        if not self.metrics_file.is_file():
            return []
        lines = []
        for text in self.metrics_file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line: Any = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict):
                lines.append(line)
        return lines

    def forget_metrics_after(self, step: int) -> None:
        """Drop the lines of steps that will be taken again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.metrics_file, lambda path: path.write_text(text, encoding="utf-8"))

    def save_checkpoint(self, step: int, state: dict[str, Any], *, keep: int) -> None:
        """Write a step's checkpoint, then delete older ones but for the newest `keep` in all.

        Later ones, which were passed over as unreadable, stay until their step comes again.
        """
        from stopgrad.artifacts.checkpoint import save_checkpoint

        written = checkpoint_path(self.checkpoint_dir, step)
        save_checkpoint(written, state)
        paths = checkpoints_in(self.checkpoint_dir)
        for path in paths[paths.index(written) + keep :]:
            path.unlink(missing_ok=True)

    def newest_checkpoint(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest checkpoint that can be read, or None, and what was wrong with newer ones."""
        from stopgrad.artifacts.checkpoint import load_checkpoint

        problems: list[str] = []
        for path in checkpoints_in(self.checkpoint_dir):
            try:
                return load_checkpoint(path), problems
            except CheckpointError as error:
                problems.append(str(error))
        return None, problems
