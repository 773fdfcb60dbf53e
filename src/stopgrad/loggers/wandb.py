"""Weights & Biases, online or offline."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from stopgrad.artifacts.run_dir import RunDir
from stopgrad.loggers.protocol import FAILED, FINISHED, STOPPED, keep_id, kept_id, numbers_of

START_SECONDS, FINISH_SECONDS = 30.0, 20.0
"""How long its server may take. The end of the process waits for that too."""
EXIT_CODES = {FINISHED: 0, FAILED: 1, STOPPED: 3}
"""As the command ends."""


class WeightsAndBiases:
    """A run in the project `stopgrad`, or $WANDB_PROJECT; its files are in `RUN/wandb`.

    Without an API key, and without $WANDB_MODE that says otherwise, it is offline.
    """

    def start(self, run: RunDir, config: Mapping[str, Any], step: int) -> str:
        """Begin a run, or go on with the one whose id is in `RUN/wandb/run_id`."""
        run_id = kept_id(run.wandb_id_file) or uuid.uuid4().hex[:12]
        keep_id(run.wandb_id_file, run_id)
        # Without a key it would ask for one on a terminal.
        offline = "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "stopgrad"),
            name=run.path.resolve().name,
            id=run_id,
            resume="allow",
            # Leaves a run of the caller's own alone.
            reinit="create_new",
            dir=run.path,
            config=dict(config),
            allow_val_change=True,
            mode="offline" if offline else None,
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=START_SECONDS, finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
            ),
        )  # fmt: skip
        if self._run.offline:
            return f"offline; to upload: wandb sync {Path(self._run.dir).parent}"
        return self._run.url or ""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Steps that were logged before an interruption and are taken again are dropped by wandb."""
        self._run.log(dict(values), step=step)

    def finish(self, state: str, summary: Mapping[str, Any]) -> None:
        """Write the summary and end the run, with the exit code of the command."""
        self._run.summary.update({f"summary/{name}": value for name, value in numbers_of(summary).items()})
        words = {name: summary[name] for name in ("verdict", "verdict_words") if name in summary}
        self._run.summary.update({"state": state, **words})
        self._run.finish(exit_code=EXIT_CODES[state])
