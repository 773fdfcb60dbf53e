"""Rounds of measurements to a table: medians with their range, limits and ratios."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from stopgrad.bench.cases import ARMS, ROWS

Round = dict[str, dict[str, Any]]
"""Arm -> what it measured in one round; the limits stand among them."""
COPY = "large copy"
PRODUCT = "largest matrix product"


def table_of(rounds: Sequence[Round], names: Iterable[str]) -> list[dict[str, Any]]:
    """A line for every figure of the limits and of every arm."""
    return [line for name in ("limits", *names) for line in _lines_of(rounds, name)]


def ratios_of(rounds: Sequence[Round], rows: Iterable[str]) -> list[dict[str, Any]]:
    """How many times as fast as its peer each arm is: round by round, then the median and the range of those."""
    lines = []
    for row in rows:
        beside = [(ROWS[row].arms[0], peer) for peer in ROWS[row].beside if peer in rounds[0]]
        for ours, peer in (*ROWS[row].ratios, *beside):
            each = [_first(measured, ours) / _first(measured, peer) for measured in rounds]
            lines.append({
                "row": row, "title": ROWS[row].title, "ours": ARMS[ours].title, "peer": ARMS[peer].title,
                **_median_and_range(each),
            })  # fmt: skip
    return lines


def what_holds_it_back(rounds: Sequence[Round], names: Sequence[str]) -> str:
    """In one sentence, where the time of training goes."""
    name = next((name for name in names if ARMS[name].work == "training"), None)
    if name is None:
        return ""
    lines = {(line["what"], line["unit"]): line for line in _lines_of(rounds, name)}
    shares = {phase: lines[phase, "% of the step"]["median"] for phase in ("network", "augmentation", "loading")}
    shares = dict(sorted(shares.items(), key=lambda item: -item[1]))
    main, *others = shares
    step, decoding = lines["step", "images/s"], lines["decoding", "% of one epoch"]["median"]
    at = f", which computes at {step['share_of_limit']:.0%} of the {step['limit']}" if main == "network" else ""
    rest = ", ".join(f"{phase} {shares[phase]:.1f}%" for phase in others)
    return (
        f"{ARMS[name].title} is held back by {main}, {shares[main]:.1f}% of a step{at}; {rest}; decoding takes "
        f"{decoding:.1f}% of a first epoch."
    )


def _lines_of(rounds: Sequence[Round], name: str) -> list[dict[str, Any]]:
    title = ARMS[name].title if name in ARMS else "limits"
    lines = []
    for place, figure in enumerate(rounds[0][name]["figures"]):
        limit = _limit_of(figure)
        line = {
            "arm": name, "title": title, "what": figure["what"], "unit": figure["unit"],
            **_median_and_range([measured[name]["figures"][place]["value"] for measured in rounds]),
            "limit": limit, "share_of_limit": None,
        }  # fmt: skip
        if limit is not None:
            line["share_of_limit"] = median(_share(measured, name, place, limit) for measured in rounds)
        lines.append(line)
    if name in ARMS:
        peaks = [measured[name]["memory_mb"] for measured in rounds]
        lines.append({
            "arm": name, "title": title, "what": "peak memory", "unit": "MB", **_median_and_range(peaks), "limit": None,
            "share_of_limit": None,
        })  # fmt: skip
    return lines


def _limit_of(figure: dict[str, Any]) -> str | None:
    if figure["flops"]:
        return f"{PRODUCT}, {figure['precision']}"
    return COPY if figure["bytes"] else None


def _share(measured: Round, name: str, place: int, limit: str) -> float:
    """Of a round's limit: operations or bytes a second over those of the largest product or copy."""
    figure = measured[name]["figures"][place]
    limits = {item["what"]: item["value"] for item in measured["limits"]["figures"]}
    achieved = figure["value"] * (figure["flops"] or figure["bytes"]) / 1e9
    # bf16 on a machine that does not compute in it has the fp32 product for a limit.
    return float(achieved / limits.get(limit, limits[f"{PRODUCT}, fp32"]))


def _first(measured: Round, name: str) -> float:
    return float(measured[name]["figures"][0]["value"])


def _median_and_range(values: Sequence[float]) -> dict[str, Any]:
    return {"n": len(values), "median": median(values), "min": min(values), "max": max(values)}
