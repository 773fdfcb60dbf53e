"""The end of a run: the encoder chosen and saved, the final figures and the verdict."""

from dataclasses import asdict
from typing import Any

from stopgrad.artifacts.checkpoint import load_checkpoint
from stopgrad.cache.store import ImageStore
from stopgrad.encoder.load import save_encoder, spec_of
from stopgrad.errors import Interrupted
from stopgrad.methods.protocol import Initial
from stopgrad.metrics.verdict import START, UNTRAINED, Kept, is_harmless, judge
from stopgrad.nets.backbones import num_features
from stopgrad.reporter import Reporter
from stopgrad.train.baselines import Rows, Table, measure_table
from stopgrad.train.build import build_start
from stopgrad.train.loop import Training
from stopgrad.train.monitor import CHOSEN_BY
from stopgrad.train.progress import Progress


def finish(training: Training, queries: ImageStore | None, initial: Initial | None, reporter: Reporter) -> None:
    """Write encoder.safetensors, encoder.json, summary.json and, if the config says so, report.html.

    The encoder and a summary without the table come first: stopped while the figures are measured, the run is finished.

    Args:
        training: at its end.
        queries: the images that the final k-NN asks about; None takes them out of the training images.
        initial: what the backbone started from; None: drawn weights.
        reporter: told of the wait.
    """
    config, run = training.config, training.run_dir
    kept, final = _choose(training)
    is_start = kept is not None and kept.is_start
    start = None
    if config.monitoring.baselines or is_start:
        start = build_start(config, training.loader.store, training.device, initial).backbone
    backbone = training.method.backbone.eval()
    save_encoder(run, start if is_start and start is not None else backbone, spec_of(config, num_features(backbone)))
    run.write_json(run.summary_file.name, _summary(training, queries, None, final, kept, initial))
    rows = Rows(
        backbone, start, "untrained" if initial is None else "start", pixels=config.monitoring.baselines
    )  # fmt: skip
    table = _measure(training, queries, rows, reporter)
    run.write_json(run.summary_file.name, _summary(training, queries, table, final, kept, initial))
    if config.monitoring.report:
        _draw_page(training, queries, reporter)


def _choose(training: Training) -> tuple[Kept | None, dict[str, float]]:
    """The encoder to keep, its weights now the method's unless it is the start, and what it measures.

    No encoder is named where there was no choice.
    """
    progress, monitor = training.progress, training.monitor
    if training.config.training.keep == "best" and monitor.protocol is None and training.start_is == START:
        end = monitor.measure(training.method)
        kept = _chosen_without_labels(end, progress)
        return kept, progress.start if kept.is_start else end
    if not monitor.chooses or CHOSEN_BY not in progress.start:
        return None, monitor.measure(training.method)
    if progress.best_step not in (0, progress.step):
        _load_best(training)
    kept = Kept(
        progress.best_step, progress.step, monitor.chosen_by, progress.best_score, progress.start[CHOSEN_BY]
    )  # fmt: skip
    return kept, progress.start if kept.is_start else monitor.measure(training.method)


def _chosen_without_labels(end: dict[str, float], progress: Progress) -> Kept:
    """The end, where nothing measured without labels speaks against it; else the start."""
    if is_harmless(end, progress.start):
        why = "judged without labels: views of an image lie closer, standard deviation and rank above half the start's"
        return Kept(progress.step, progress.step, why)
    why = "judged without labels: views lie no closer, or standard deviation or rank fell below half the start's"
    return Kept(0, progress.step, why)


def _load_best(training: Training) -> None:
    training.method.encoder.load_state_dict(load_checkpoint(training.run_dir.best_file)["encoder"])


def _measure(training: Training, queries: ImageStore | None, rows: Rows, reporter: Reporter) -> Table | None:
    config, store = training.config, training.loader.store
    if rows.pixels and len(store.source.class_names) > 1:
        before = "the start" if rows.before_key == "start" else "the untrained one"
        reporter.say(f"Measuring the trained network, {before} and raw pixels (Ctrl-C leaves the run finished) ...")
    return measure_table(
        config, store, queries, rows, training.device, seconds=training.progress.seconds, reporter=reporter
    )


def _summary(
    training: Training, queries: ImageStore | None, table: Table | None, final: dict[str, float], kept: Kept | None,
    initial: Initial | None,
) -> dict[str, Any]:  # fmt: skip
    config, progress, store = training.config, training.progress, training.loader.store
    scores = table.scores if table is not None and "pixels" in table.scores else {}
    few = table.few_label_scores if table is not None else {}
    verdict = judge(
        final, progress.start, scores, table.paired if table is not None else None,
        {name: mean for name, (mean, _) in few.items()},
        before_is=UNTRAINED if initial is None else START, kept=kept,
    )  # fmt: skip
    skipped = {**store.skipped, **(queries.skipped if queries else {})}
    working = progress.seconds - progress.time_spent["monitoring"]
    views = progress.images_seen * config.objective.num_views
    return {
        "verdict": verdict.state,
        "verdict_words": verdict.words,
        **_table_entries(table, kept),
        "kept": None if kept is None else {
            "step": kept.step, "score": kept.score, "start_score": kept.start_score, "chosen_by": kept.chosen_by,
        },
        "final": final,
        "start_is": UNTRAINED if initial is None else START,
        "untrained": progress.start,
        "steps": progress.step,
        "epochs": progress.step / training.loader.steps_per_epoch,
        "images_seen": progress.images_seen,
        "num_images": len(store),
        "seconds": round(progress.seconds, 1),
        "seconds_by_phase": {name: round(value, 1) for name, value in progress.time_spent.items()},
        "views_per_second": round(views / max(working, 1e-9), 1),
        "skipped": [{"name": name, "reason": reason} for name, reason in skipped.items()],
    }  # fmt: skip


def _draw_page(training: Training, queries: ImageStore | None, reporter: Reporter) -> None:
    """Write report.html; a failure to draw is told of and does not fail the run."""
    config, run = training.config, training.run_dir
    reporter.say("Drawing the page of the run ...")
    try:
        from stopgrad.report.parts.images import RunImages, test_name_of
        from stopgrad.report.run import draw_page

        images = RunImages(training.loader.store, queries, test_name_of(config))
        draw_page(run, config, lambda: images, path=run.report_file, device=str(training.device), reporter=reporter)
    except Interrupted:
        raise
    except Exception as error:
        reporter.warn(f"{run.report_file} could not be drawn: {type(error).__name__}: {error}. The run itself is "
                      "complete; `stopgrad report` tries again.")  # fmt: skip


def _table_entries(table: Table | None, kept: Kept | None) -> dict[str, Any]:
    if table is None:
        return {"knn": None}
    paired = table.paired
    is_start = kept is not None and kept.is_start and "start" in table.scores
    return {
        "knn_top1": table.scores["start" if is_start else "trained"],
        "knn": table.scores,
        "knn_few_labels": {name: {"mean": m, "std": s} for name, (m, s) in table.few_label_scores.items()},
        "knn_protocol": table.protocol,
        "knn_queries": table.num_queries,
        "knn_is_sample": table.is_sample,
        "knn_paired": None if paired is None else asdict(paired),
    }  # fmt: skip
