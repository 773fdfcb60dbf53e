"""The end of a run: the encoder saved, the table measured, the verdict pronounced."""

from typing import Any

from stopgrad.data.store import ImageStore
from stopgrad.encoder.load import save_encoder, spec_of
from stopgrad.errors import Interrupted
from stopgrad.metrics.verdict import judge
from stopgrad.nets.backbones import num_features
from stopgrad.reporter import Reporter
from stopgrad.train.baselines import Table, measure_table
from stopgrad.train.build import build_untrained
from stopgrad.train.loop import Training


def finish(training: Training, queries: ImageStore | None, reporter: Reporter) -> None:
    """Write encoder.safetensors, encoder.json, summary.json and, if the config says so, report.html.

    Args:
        training: at its end.
        queries: the images that the final k-NN asks about; None takes them out of the training images.
        reporter: told of the wait.
    """
    config, run, progress, store = training.config, training.run_dir, training.progress, training.loader.store
    backbone = training.method.backbone.eval()
    save_encoder(run, backbone, spec_of(config, num_features(backbone)))
    untrained = None
    if config.monitoring.baselines:
        if len(store.source.class_names) > 1:
            reporter.say("Measuring the trained network, the untrained one and raw pixels ...")
        untrained = build_untrained(config, store, training.device).backbone
    table = measure_table(config, store, queries, backbone, untrained, training.device)
    final = training.monitor.measure(training.method)
    verdict = (
        judge(final, progress.untrained, {}, 0)
        if table is None or untrained is None
        else judge(
            final, progress.untrained, table.scores, table.num_queries,
            {name: mean for name, (mean, _) in table.few_label_scores.items()},
        )
    )  # fmt: skip
    skipped = {**store.skipped, **(queries.skipped if queries else {})}
    working = progress.seconds - progress.time_spent["monitoring"]
    views = progress.images_seen * config.objective.views
    summary = {
        "verdict": verdict.state,
        "verdict_words": verdict.words,
        **_table_entries(table),
        "final": final,
        "untrained": progress.untrained,
        "steps": progress.step,
        "epochs": progress.step / training.loader.steps_per_epoch,
        "images_seen": progress.images_seen,
        "num_images": len(store),
        "seconds": round(progress.seconds, 1),
        "seconds_by_phase": {name: round(value, 1) for name, value in progress.time_spent.items()},
        "views_per_second": round(views / max(working, 1e-9), 1),
        "skipped": [{"name": name, "reason": reason} for name, reason in skipped.items()],
    }
    run.write_json(run.summary_file.name, summary)
    if config.monitoring.report:
        _draw_page(training, queries, reporter)


def _draw_page(training: Training, queries: ImageStore | None, reporter: Reporter) -> None:
    """Write report.html; a failure to draw is told of and does not fail the run."""
    config, run = training.config, training.run_dir
    reporter.say("Drawing the page of the run ...")
    try:
        from stopgrad.report.images import RunImages, test_name_of
        from stopgrad.report.run import draw_page

        images = RunImages(training.loader.store, queries, test_name_of(config))
        draw_page(run, config, lambda: images, path=run.report_file, device=str(training.device), reporter=reporter)
    except Interrupted:
        raise
    except Exception as error:
        reporter.warn(f"{run.report_file} could not be drawn: {type(error).__name__}: {error}. The run itself is "
                      "complete; `stopgrad report` tries again.")  # fmt: skip


def _table_entries(table: Table | None) -> dict[str, Any]:
    if table is None:
        return {"knn": None}
    return {
        "knn_top1": table.scores["trained"],
        "knn": table.scores,
        "knn_few_labels": {name: {"mean": m, "std": s} for name, (m, s) in table.few_label_scores.items()},
        "knn_protocol": table.protocol,
        "knn_queries": table.num_queries,
    }
