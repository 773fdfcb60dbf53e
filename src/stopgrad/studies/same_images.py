"""Whether kept cells were run on the given images: other images are refused, not mixed in or passed over."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from stopgrad.errors import DataError
from stopgrad.studies.cells import JUDGES, Cell, CellStore, part_of_key
from stopgrad.studies.scales import SCALES

_BESIDE = ("", "test", "few-label", "test,few-label")


def check_same_images(cells: Sequence[Cell], store: CellStore, data: str, *, by_name: bool = False) -> None:
    """Refuse images that are not those of the cells kept with the same settings.

    A cell's key knows the labels of all training images, in order. So other labels would quietly plan new cells beside
    those that are kept, and other pictures with the same labels would quietly go on with them.

    Args:
        cells: of a plan, with the given images.
        store: with the cells that are kept.
        data: the images, as the user gave them.
        by_name: several data sets share the folder, and are told by their names.

    Raises:
        DataError: a kept cell, or a run that has begun, is of other images.
    """
    for cell in cells:
        there = _noted(cell, store)
        if there.get("pixels") and there["pixels"] != cell.images.pixels:
            raise DataError(_words(cell, store, data, "the labels are the same, the pixels are not"))
    missing = [cell for cell in cells if not store.file_of(cell).exists()]
    if not missing:
        return
    kept: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for key, content in store.kept():
        kept.setdefault(_settings(content.get("settings", {})), []).append((key, content.get("images", {})))
    for cell in missing:
        for key, images in kept.get(_settings(cell.settings), ()):
            if _is_other(cell, key, images, by_name=by_name):
                raise DataError(_words(cell, store, data, "their labels differ, in number, order or class"))


def _settings(given: Mapping[str, Any]) -> str:
    return json.dumps(part_of_key(given), sort_keys=True)


def _noted(cell: Cell, store: CellStore) -> Mapping[str, Any]:
    """What is noted of the images of the cell's result, or of its run that has begun."""
    result = store.read(cell)
    if result is not None:
        return result.get("images", {})
    try:
        found: Any = json.loads(store.begun_on(cell).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_other(cell: Cell, key: str, images: Mapping[str, Any], *, by_name: bool) -> bool:
    """Whether a kept cell of the same settings is of other labels than the given ones.

    Of another scale, judged otherwise or measured by more, it is another cell of the same images.
    """
    if by_name and images.get("name") != cell.images.name:
        return False
    if images:
        return images.get("labels") != cell.images.labels
    # Of cells that note no images there is the key alone.
    scales = [make() for make in SCALES.values()]
    counts = {(scale.num_images, round(scale.num_held_out)) for scale in scales}
    alike = (
        replace(cell, images=replace(cell.images, num=num, num_held_out=held, judged_by=judge, beside=beside))
        for (num, held), judge, beside in itertools.product(counts, JUDGES, _BESIDE)
    )
    return key not in {other.key for other in alike}


def _words(cell: Cell, store: CellStore, data: str, differs: str) -> str:
    return (
        f"{data!r} has other images than those that a cell of the same settings in {store.folder} was run on "
        f"({cell.name}: {differs}). Give the same images, or another --out."
    )
