"""stopgrad pretrain."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stopgrad.cli.shared.console import ConsoleReporter, print_json
from stopgrad.cli.shared.settings import Settings, given_settings
from stopgrad.cli.shared.summary import print_summary
from stopgrad.data.place import DEMONSTRATION
from stopgrad.distributed.rank import current_rank
from stopgrad.recipes import resolve
from stopgrad.train.request import check_request, goes_on, without_auto


def pretrain(
    data: str | None = None, /, *, out: Path, recipe: str | None = None, augmentation: str | None = None,
    config: Path | None = None, resume: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False, json: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),  # type: ignore[valid-type]  # noqa: B008
) -> None:  # fmt: skip
    """Train a backbone on unlabelled images.

    Parameters
    ----------
    data
        A folder of images (nested by class or flat, with train/ and test/ inside or not); parquet, .zip, .npy, .npz,
        HDF5, LMDB; a list of paths (.txt, .csv, .tsv); torchvision:NAME:FOLDER or hf:FOLDER; a pattern, or several with
        :: between them (docs/data.md). Without it: sklearn:scattered-digits, scans that come with scikit-learn.
    out
        The run folder, made by this command.
    recipe
        Settings to start from (see `stopgrad recipes`); without it, chosen by the images.
    augmentation
        How views are made, by the kind of images: photo, small-image, microscopy, medical, satellite or document.
    config
        A TOML file of settings, such as a run's config.toml. The order is recipe, augmentation, this file, flags: the
        last wins.
    resume
        Resume the run in --out from its newest checkpoint.
    overwrite
        Start over in --out; an earlier run's files are deleted, other files stay.
    json
        Print the summary as one JSON object on stdout and everything else on stderr.
    """
    given = given_settings(settings)
    if data is None and not (recipe or config or resume):
        data = DEMONSTRATION
    # Whatever is wrong with names and values is said before torch is imported, which takes seconds.
    named, _ = without_auto(given if data is None else {**given, "path": data})
    _, merged = resolve(recipe, config, named, augmentation)
    resume = goes_on(out, resume=resume, overwrite=overwrite)
    check_request(merged, out, resume=resume, overwrite=overwrite)
    from stopgrad.train.pretrain import pretrain as train

    with ConsoleReporter(json=json) as reporter:
        run = train(data, out=out, recipe=recipe, augmentation=augmentation, config=config, resume=resume,
                    overwrite=overwrite, reporter=reporter, **given)  # fmt: skip
    if not current_rank().leads:
        return
    if json:
        print_json({"run": str(run.path), **run.metrics})
    else:
        print_summary(run.path, run.metrics)
