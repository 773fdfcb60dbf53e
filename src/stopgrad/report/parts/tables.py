"""The figures of a run: k-NN beside its baselines, kept evaluations, classes and confusions."""

from collections.abc import Mapping, Sequence
from typing import Any

from stopgrad.artifacts.names import evaluation_name, variant_name
from stopgrad.evaluate.shared.outcome import score_of
from stopgrad.report.page import finite


def knn_table(summary: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The headline: accuracies in % with their intervals, and the protocol; None where nothing was measured."""
    if summary is None or not summary.get("knn"):
        return None
    num, few = int(summary.get("knn_queries") or 0), summary.get("knn_few_labels") or {}
    rows = []
    for key, value in summary["knn"].items():
        accuracy = finite(value)
        if accuracy is None:
            continue
        interval = score_of(round(accuracy * num), num) if num else None
        rows.append({
            "key": key, "name": variant_name(key).capitalize(), "accuracy": 100 * accuracy,
            "interval": None if interval is None else (100 * interval.low, 100 * interval.high),
            "few": _in_percent(few.get(key)),
        })  # fmt: skip
    return {"rows": rows, "protocol": summary.get("knn_protocol", ""), "has_few": any(row["few"] for row in rows)}


def _in_percent(entry: Mapping[str, Any] | None) -> tuple[float, float] | None:
    if not entry or finite(entry.get("mean")) is None:
        return None
    return 100 * entry["mean"], 100 * (finite(entry.get("std")) or 0.0)


def evaluation_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for every kept evaluation and what was evaluated in it; what is not as expected is left out."""
    rows = []
    for name, content in evaluations.items():
        scores = content.get("scores")
        if not isinstance(scores, Mapping):
            continue
        first = True
        for variant, score in scores.items():
            if not isinstance(score, Mapping) or finite(score.get("accuracy")) is None:
                continue
            low, high, std = (finite(score.get(key)) for key in ("low", "high", "std"))
            rows.append({
                "evaluation": evaluation_name(name) if first else "", "variant": variant_name(variant).capitalize(),
                "accuracy": 100 * score["accuracy"], "std": None if std is None else 100 * std,
                "interval": None if low is None or high is None else (100 * low, 100 * high),
                "num": content.get("num_test"), "protocol": str(content.get("protocol", "")) if first else "",
                "when": str(content.get("when", ""))[:10] if first else "",
            })  # fmt: skip
            first = False
    return rows


def class_results(evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Classes and most confused pairs of a kept evaluation, the k-NN where there is one."""
    for name in ("knn", *evaluations):
        content = evaluations.get(name, {})
        per_class, confusions = content.get("per_class"), content.get("confusions")
        if isinstance(per_class, Mapping) and per_class and isinstance(confusions, Sequence):
            origin = f"Evaluation {evaluation_name(name)}: {content.get('protocol', '')}."
            return classes_as_rows(per_class, confusions, origin)
    return None


def classes_as_rows(
    per_class: Mapping[str, Mapping[str, Any]], confusions: Sequence[Mapping[str, Any]], origin: str
) -> dict[str, Any]:
    """Worst classes first, in %, with where the figures come from."""
    rows = [
        {"name": name, "accuracy": 100 * float(entry["accuracy"]), "num": int(entry["num"])}
        for name, entry in per_class.items()
    ]
    pairs = [{**pair, "share": 100 * float(pair["share"])} for pair in confusions]
    return {"rows": sorted(rows, key=lambda row: row["accuracy"]), "pairs": pairs, "origin": origin}
