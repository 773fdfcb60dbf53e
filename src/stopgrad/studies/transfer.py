"""How well the features transfer to other data sets: k-NN and a linear classifier on other sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stopgrad.data.open import open_images
from stopgrad.errors import ConfigError, DataError, Interrupted
from stopgrad.evaluate.knn import evaluate_knn
from stopgrad.evaluate.linear import evaluate_linear
from stopgrad.reporter import Reporter
from stopgrad.stop import StopRequest
from stopgrad.studies.cells import Cell, CellStore, labels_digest
from stopgrad.studies.questions.accuracy import NAMES, UNTRAINED, siamese
from stopgrad.studies.study import Comparison, Study

K, TEMPERATURE = 20, 0.2

STUDY = Study(
    "transfer",
    "Do the gains carry over to other images?",
    "Encoders of the study `main`, their backbones frozen, on data sets they were not trained on.",
    (
        UNTRAINED,
        *(siamese(m, guide, 2, words) for m in NAMES for guide, words in (
            ("symmetric", "symmetric"), ("random_views", "random source"), ("nearest_views", "GSG on two views"),
        )),
    ),
    tuple(
        Comparison(f"{m}_gsg_2v", f"{m}_{rival}", question)
        for m in NAMES
        for rival, question in (("random_2v", "the guide, beside chance in the same graph"),
                                ("symmetric_2v", "equal passes"))
    ),
)  # fmt: skip


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """Name -> path of the sets to transfer to.

    Raises:
        ConfigError: none, or two of one name.
        DataError: one that does not exist, or has no labels.
    """
    if not paths:
        raise ConfigError(
            "the study 'transfer' needs sets to transfer to: give --to, a labelled folder or parquet file."
        )
    names: dict[str, str] = {}
    for path in paths:
        if len(open_images(path).train.class_names) < 2:
            raise DataError(f"{path!r} has no labels to judge features by.")
        name = Path(path).expanduser().resolve().stem
        if name in names:
            raise ConfigError(f"two sets of the name {name!r}: rename the folder of one.")
        names[name] = path
    return names


def measure_transfer(
    cells: Sequence[Cell], store: CellStore, sets: Mapping[str, str], reporter: Reporter, *,
    time_limit_seconds: float = 0.0,
) -> None:  # fmt: skip
    """Measure the encoders of finished cells on the sets, and add it to the cells' results; what is there stays.

    Args:
        cells: finished or not; those that are not are passed over.
        store: with their results and encoders.
        sets: name -> path.
        reporter: told of each cell, and of encoders that are not there.
        time_limit_seconds: begin no further measurement after so long; 0: no limit.

    Raises:
        Interrupted: by Ctrl-C, SIGTERM or the time limit; what was measured is kept.
    """
    digests = {name: _digest(path) for name, path in sets.items()}
    if not digests:
        return
    with StopRequest() as stop:
        if time_limit_seconds:
            stop.limit(time_limit_seconds)
        for done, cell in enumerate(cells):
            result = store.read(cell)
            if result is None or "error" in result:
                continue
            known: Mapping[str, Any] = result.get("transfer", {})
            # Another set may have come under the name of one that was measured.
            missing = [name for name in sets if known.get(name, {}).get("labels") != digests[name]]
            if missing and not store.run_of(cell).exists():
                reporter.warn(f"{cell.name}: its encoder is not in {store.run_of(cell)}, so nothing is measured on it.")
                continue
            state = f"with the encoders of {done} of {len(cells)} cells measured; the same command resumes."
            for name in missing:
                if stop.requested() is not None:
                    raise Interrupted(f"by {stop.requested()} {state}")
                with stop.at_once(state):
                    measured = {"labels": digests[name], **_measured(store.run_of(cell), sets[name], reporter)}
                # Another command may have added a set meanwhile.
                now = store.read(cell) or result
                store.write(cell, {**now, "transfer": {**now.get("transfer", {}), name: measured}})
            reporter.progress("transfer", done + 1, len(cells), cell.name)


def _digest(path: str) -> str:
    splits = open_images(path)
    return "-".join(labels_digest(side) for side in (splits.train, splits.test) if side is not None)


def _measured(run: Path, path: str, reporter: Reporter) -> dict[str, Any]:
    knn = evaluate_knn(run, path, k=K, temperature=TEMPERATURE, baselines=False, reporter=reporter)
    linear = evaluate_linear(run, path, baselines=False, reporter=reporter)
    return {
        "knn_top1": knn.accuracy, "linear_top1": linear.accuracy,
        "knn_protocol": knn.protocol, "linear_protocol": linear.protocol,
    }  # fmt: skip
