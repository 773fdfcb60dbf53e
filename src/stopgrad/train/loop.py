"""The training loop: steps, the log, monitors, checkpoints, stopping and resuming."""

import math
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stopgrad.artifacts.checkpoint import save_checkpoint
from stopgrad.artifacts.run_dir import RunDir
from stopgrad.config import Config
from stopgrad.distributed.group import any_of, mean_of, others_wait, wait_for_all
from stopgrad.distributed.rank import Rank
from stopgrad.errors import Interrupted, NonFiniteLossError
from stopgrad.hardware import autocast, share_cores
from stopgrad.loader.loader import Loader
from stopgrad.loggers.background import Loggers
from stopgrad.methods.protocol import Method
from stopgrad.methods.together import Together
from stopgrad.metrics.verdict import UNTRAINED, find_collapse
from stopgrad.reporter import Reporter
from stopgrad.stop import StopRequest
from stopgrad.train.live_page import LivePage
from stopgrad.train.monitor import CHOSEN_BY, Monitor
from stopgrad.train.optim import build_optimizer, load_optimizer_state, lr_factor, peak_lr, set_lr
from stopgrad.train.progress import LossWindow, Progress


class Training:
    """One run's training, from wherever its checkpoint stands to the end.

    Args:
        config: the run's.
        method: on its device, with initial weights.
        loader: the training images.
        monitor: what is measured on the way.
        run: where everything goes.
        device, precision, rank: what it runs on.
        reporter, stop: who is told, and who may stop it.
        start_is: what the network before training is called.
    """

    def __init__(
        self, config: Config, method: Method, loader: Loader, monitor: Monitor, run: RunDir, *, device: torch.device,
        precision: str, rank: Rank, reporter: Reporter, stop: StopRequest, start_is: str = UNTRAINED,
    ) -> None:  # fmt: skip
        self.config, self.loader, self.monitor, self.run_dir = config, loader, monitor, run
        self.device, self.precision, self.rank = device, precision, rank
        self.reporter, self.stop = reporter, stop
        self.method, self.start_is = method, start_is
        t, per_epoch, self.total_steps = config.training, loader.steps_per_epoch, loader.total_steps
        self.together = Together(
            method, rank, device, statistics=loader.statistics, groups=loader.groups, accumulate=t.accumulate
        )
        self.gradients = self.together.gradients
        self.optimizer = build_optimizer(method, config)
        self.peak_lr = peak_lr(config, loader.batch_size)
        self.log_every = t.log_every_steps or max(1, min(50, self.total_steps // 100))
        self.checkpoint_every = t.checkpoint_every_steps or max(1, min(math.ceil(self.total_steps / 10), 2000))
        epochs = self.total_steps / per_epoch
        self.monitor_every = per_epoch * (config.monitoring.monitor_every_epochs or max(1, round(epochs / 10)))
        self.progress = Progress()
        self.page = LivePage(run, config, reporter, is_on=rank.leads and config.monitoring.report)
        self.generator = torch.Generator()
        self._losses, self._num_images = LossWindow(device), 0
        self._window_start = (0, 0.0)
        # Whether a process was asked to stop, as all of them learnt in the last step.
        self._others_stop = False
        self._warned_of: str | None = None
        self._last_knn = ""

    def state(self) -> dict[str, Any]:
        """All that going on needs."""
        return {
            "config": self.config.flat(),
            "recipe": self.config.recipe,
            "fingerprint": self.loader.store.fingerprint(),
            "batch_size": self.loader.batch_size,
            "statistics": self.loader.statistics,
            "precision": self.precision,
            "progress": asdict(self.progress),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up where `state` was saved."""
        self.method.load_state_dict(state["method"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.progress = Progress.from_state(state["progress"])

    def run(self, loggers: Loggers | None = None) -> None:
        """Train to the end.

        Args:
            loggers: sent each line of the log, by the first process.

        Raises:
            Interrupted: stopped on request, with everything saved.
            NonFiniteLossError: the loss is no number any more; the last good checkpoint is kept.
        """
        if self.rank.leads:
            self.run_dir.forget_metrics_after(self.progress.step)
        self.method.train()
        batches = self.loader.batches(self.progress.step, self.total_steps)
        self._window_start = (self.progress.step, self.progress.working_seconds)
        try:
            while self.progress.step < self.total_steps:
                with self.progress.phase("loading"):
                    batch = next(batches)
                with self.progress.phase("augmentation"):
                    views = self.loader.all_views(batch, self.device)
                with self.progress.phase("network"):
                    rows, most = self.loader.rows(batch, self.progress.step)
                    self._num_images = self.method.batch.begin(rows, most)
                    lr, diagnostics = self._step(views, rows)
                self._after_step(lr, diagnostics, loggers)
        finally:
            batches.close()

    def _step(self, views: tuple[Tensor, ...], rows: list[int]) -> tuple[float, dict[str, Tensor]]:
        step = self.progress.step
        factor = lr_factor(self.config, step, self.total_steps, self.loader.steps_per_epoch)
        heads_only = step < self.config.optimization.head_warmup * self.total_steps
        lr = set_lr(self.optimizer, self.peak_lr, factor, heads_only=heads_only)
        self.method.watch = self._is_logged(step + 1)
        self.method.progress = step / self.total_steps
        if self.gradients is None:
            self.optimizer.zero_grad(set_to_none=True)
        else:
            self.gradients.clear()
        context = partial(autocast, self.device, self.precision)
        seed_of = partial(_seed, self.config.training.seed, step)
        loss, diagnostics = self.together.backward(views, self.generator, context, rows, seed_of)
        self._note_loss(loss, step + 1)
        self.optimizer.step()
        self.method.after_step((step + 1) / self.total_steps)
        return lr, diagnostics

    def _note_loss(self, loss: Tensor, step: int) -> None:
        """Add to the window and watch for NaN, on the device: without synchronising, except on the CPU."""
        self._losses.add(loss, step)
        if self.gradients is not None:
            is_bad, self._others_stop = self.gradients.average(
                self._losses.first_bad >= 0, self.stop.requested() is not None
            )
            self._raise_if(is_bad, step)
        elif self.device.type == "cpu":
            self._check_finite()

    def _check_finite(self) -> None:
        self._raise_if(any_of(self._losses.first_bad >= 0, self.rank), self.progress.step)

    def _raise_if(self, is_bad: bool, step: int) -> None:
        if is_bad:
            bad = self._losses.first_bad
            raise NonFiniteLossError(
                f"the loss is no longer finite at step {bad if bad >= 0 else step}. {self._way_out()}"
            )

    def _way_out(self) -> str:
        return (
            f"Stopped; the last good checkpoint is kept in {self.run_dir.checkpoint_dir}. Lower the learning rate "
            f"(lr = {self.config.optimization.lr:g}), add warmup_epochs, or use precision = 'fp32', in another run."
        )

    def _after_step(self, lr: float, diagnostics: dict[str, Tensor], loggers: Loggers | None) -> None:
        p = self.progress
        p.step += 1
        p.images_seen += self._num_images * self.together.batches
        p.loss_count += 1
        line: dict[str, Any] = {}
        measures = self._is_due(p.step, self.monitor_every)
        if self._is_logged(p.step):
            line = self._log_line(lr, diagnostics)
        if measures:
            self._check_weights()
            with others_wait(self.rank):
                line |= self._measure() if self.rank.leads else {}
        if line and self.rank.leads:
            self.run_dir.append_metrics(line)
            if loggers is not None:
                loggers.log(line)
        reason = self._stop_reason()
        saves = self._is_due(p.step, self.checkpoint_every) or reason is not None
        if saves:
            self._save()
        if (saves or measures) and not reason and p.step < self.total_steps:
            with self.progress.phase("monitoring"):
                self.page.renew(p.start)
        if reason:
            raise Interrupted(
                f"by {reason} after step {p.step} of {self.total_steps}, with everything saved in {self.run_dir.path}; "
                "resume continues from there."
            )
        self._show(line)

    def _is_logged(self, step: int) -> bool:
        return self._is_due(step, self.log_every) or self._is_due(step, self.monitor_every)

    def _is_due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.total_steps

    def _stop_reason(self) -> str | None:
        if self.progress.step == self.total_steps:
            return None
        if self.gradients is not None:
            return (self.stop.requested() or "another process") if self._others_stop else None
        # Several processes have to agree, which takes a round of messages: not at every step.
        if self.rank.world > 1 and self.progress.step % 10:
            return None
        reason = self.stop.requested()
        return (reason or "another process") if any_of(reason is not None, self.rank) else None

    def _log_line(self, lr: float, diagnostics: dict[str, Tensor]) -> dict[str, Any]:
        with self.progress.phase("network"):
            # Here a device is waited for: its time is the network's.
            self._check_finite()
            self._collect_loss()
        p = self.progress
        step_before, time_before = self._window_start
        time_now = self.progress.working_seconds
        views = (p.step - step_before) * self.loader.batch_size * self.config.objective.num_views
        line = {
            "step": p.step,
            "epoch": p.step / self.loader.steps_per_epoch,
            "images_seen": p.images_seen,
            "seconds": round(p.seconds, 3),
            "loss": p.loss_sum / max(1, p.loss_count),
            "lr": lr,
            "views_per_second": round(views / max(time_now - time_before, 1e-9), 1),
            **{name: float(mean_of(value.float().cpu(), self.rank)) for name, value in diagnostics.items()},
        }
        p.loss_sum, p.loss_count = 0.0, 0
        self._window_start = (p.step, time_now)
        return line

    def _measure(self) -> dict[str, float]:
        with self.progress.phase("monitoring"):
            on_cpu = self.device.type == "cpu" and self.rank.world > 1
            if on_cpu:
                share_cores(1)  # the other processes wait
            try:
                measured = self.monitor.measure(self.method)
            except NonFiniteLossError as error:
                raise NonFiniteLossError(f"step {self.progress.step}: {error}. {self._way_out()}") from None
            self._keep_if_best(measured)
            if on_cpu:
                share_cores(self.rank.world)
        if "knn_top1" in measured:
            self._last_knn = f"k-NN {measured['knn_top1']:.1%}"
        collapse = find_collapse(measured, self.progress.start, self.start_is)
        if collapse is not None and collapse.state != self._warned_of:
            self.reporter.warn(f"step {self.progress.step}: {collapse.words}")
        self._warned_of = collapse.state if collapse is not None else None
        return measured

    def _keep_if_best(self, measured: dict[str, float]) -> None:
        """Write down the encoder if it is better than all before, the start included."""
        score = measured.get(CHOSEN_BY)
        if not self.monitor.chooses or score is None or score <= self.progress.best_score:
            return
        self.progress.best_step, self.progress.best_score = self.progress.step, score
        if self.progress.step < self.total_steps:
            state = {"step": self.progress.step, "encoder": self.method.encoder.state_dict()}
            save_checkpoint(self.run_dir.best_file, state)

    def _save(self) -> None:
        self._check_finite()
        self._check_weights()
        self._collect_loss()
        if self.rank.leads:
            self.run_dir.save_checkpoint(self.progress.step, self.state(), keep=self.config.training.checkpoint_keep)
        wait_for_all(self.rank)

    def _check_weights(self) -> None:
        # One answer for all: a device is waited for once.
        if not bool(torch.stack([parameter.isfinite().all() for parameter in self.method.parameters()]).all()):
            step = self.progress.step
            raise NonFiniteLossError(f"the weights are no longer finite after step {step}. {self._way_out()}")

    def _collect_loss(self) -> None:
        """Bring the window's loss over from the devices of all processes."""
        self.progress.loss_sum += float(mean_of(self._losses.take(), self.rank))

    def _show(self, line: dict[str, Any]) -> None:
        if not self.rank.leads:
            return
        details = ""
        if line:
            parts = [f"loss {line['loss']:+.3f}", f"{line['views_per_second']:,.0f} views/s", self._last_knn]
            details = "  ".join(part for part in parts if part)
        self.reporter.progress("training", self.progress.step, self.total_steps, details)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
