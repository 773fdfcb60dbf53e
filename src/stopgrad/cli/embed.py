"""stopgrad embed."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stopgrad.cli.shared.console import ConsoleReporter, plain_console, print_json
from stopgrad.cli.shared.encoder_flags import NOTHING, Loading
from stopgrad.cli.shared.summary import print_skipped
from stopgrad.embeddings.paths import check_free
from stopgrad.errors import ConfigError
from stopgrad.stop import StopRequest


def embed(
    encoder: str, data: str | None = None, /, *, out: Annotated[Path, Parameter(name=("--out", "-o"))],
    split: str = "all", normalise: Annotated[bool, Parameter(negative="")] = False, batch_size: int = 0,
    device: str = "auto", precision: str = "auto", strict: Annotated[bool, Parameter(negative="")] = False,
    overwrite: Annotated[bool, Parameter(negative="")] = False, json: Annotated[bool, Parameter(negative="")] = False,
    loading: Loading = NOTHING,
) -> None:  # fmt: skip
    """Write the features of images into a file: .parquet, .npy or .csv.

    Parameters
    ----------
    encoder
        A run folder, a checkpoint, another program's weights or timm:NAME.
    data
        Images as for pretrain, or one image. Without it: the images that the run was trained on.
    out
        The file. .parquet: columns path, split, label, class_name and embedding. .npy: the vectors, with the other
        columns in OUT.names.csv. .csv: a column for each number. Stopped, the same command resumes from OUT.partial.
    split
        train, test or all of a data set with splits.
    normalise
        Divide each vector by its length.
    batch_size
        Images a forward pass; 0: chosen for the device.
    device
        cpu, cuda, cuda:1, mps or auto.
    precision
        What the network computes in: fp32, bf16, or auto: bf16 where the hardware is fast at it.
    strict
        Refuse unreadable images instead of leaving them out.
    overwrite
        Replace the file if it exists.
    json
        Print one JSON object on stdout and everything else on stderr.
    """
    if batch_size < 0:
        raise ConfigError(f"--batch-size {batch_size}: must be at least 1, or 0 to choose for the device.")
    check_free(out, overwrite=overwrite)
    encoder = loading.of(encoder)
    with ConsoleReporter(json=json) as reporter, StopRequest() as stop:
        from stopgrad.embeddings.write import embed_to_file

        done = embed_to_file(
            encoder, data, out, split=split, normalise=normalise, batch_size=batch_size, device=device,
            precision=precision, strict=strict, overwrite=overwrite, stop=stop.requested, reporter=reporter,
        )  # fmt: skip
    if json:
        print_json(done.as_json())
        return
    console = plain_console()
    length = ", of length 1" if done.normalised else ""
    console.print(
        f"{done.num_images:,} images of {done.data}: vectors of {done.dim} numbers{length}, computed in "
        f"{done.precision}",
        markup=False,
    )
    print_skipped(console, done.skipped)
    speed = f" ({done.images_per_second:,.0f} images/s)" if done.images_per_second else ""
    console.print(f"{', '.join(map(str, done.files))} in {done.seconds:.1f} s{speed}", markup=False)
