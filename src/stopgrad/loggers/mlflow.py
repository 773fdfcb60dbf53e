"""MLflow: a server, or a database in the run folder."""

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.loggers.protocol import FAILED, FINISHED, STOPPED, keep_id, kept_id, numbers_of

PARAMS_AT_ONCE = 100
"""The most that MLflow takes in a call."""
STATES = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}


class MLflow:
    """A run in the experiment `stopgrad`, or $MLFLOW_EXPERIMENT_NAME.

    It is kept where $MLFLOW_TRACKING_URI says; without it, in the SQLite database `RUN/mlflow/mlflow.db`.
    """

    def start(self, run: RunDir, config: Mapping[str, Any], step: int) -> str:
        """Begin a run, or go on with the one whose id is in `RUN/mlflow/run_id`."""
        folder = run.mlflow_id_file.parent.resolve()
        folder.mkdir(exist_ok=True)
        # It tells of each table that it makes.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        earlier = self._found(kept_id(run.mlflow_id_file))
        if earlier is not None:
            self._id = earlier
            self._client.update_run(self._id, status="RUNNING")
            return uri
        name = run.path.resolve().name
        self._id = self._client.create_run(self._experiment(), run_name=name).info.run_id
        keep_id(run.mlflow_id_file, self._id)
        params = [Param(name, str(value)) for name, value in config.items()]
        for i in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[i : i + PARAMS_AT_ONCE])
        return uri

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a value to each metric."""
        self._step = step
        now = time.time_ns() // 1_000_000
        # As names MLflow takes these characters alone.
        metrics = [Metric(re.sub(r"[^\w\-./ ]", "_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def finish(self, state: str, summary: Mapping[str, Any]) -> None:
        """Write the summary, with the verdict as tags, and end the run."""
        numbers = numbers_of(summary)
        if numbers:
            self.log(int(numbers["steps"]), {f"summary/{name}": value for name, value in numbers.items()})
        words = {name: summary[name] for name in ("verdict", "verdict_words") if name in summary}
        self._client.log_batch(self._id, tags=[RunTag(name, value) for name, value in words.items()])
        self._client.set_terminated(self._id, STATES[state])

    def _found(self, run_id: str | None) -> str | None:
        """The id, if the store knows the run."""
        try:
            return self._client.get_run(run_id).info.run_id if run_id else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _experiment(self) -> str:
        """The id of the experiment, made where there is none."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "stopgrad")
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found is not None else self._client.create_experiment(name)
