"""stopgrad search."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from stopgrad.cli.shared.console import ConsoleReporter, plain_console, print_json
from stopgrad.cli.shared.encoder_flags import NOTHING, Loading
from stopgrad.cli.shared.summary import print_skipped
from stopgrad.embeddings.paths import is_embeddings
from stopgrad.errors import ConfigError

if TYPE_CHECKING:
    from stopgrad.retrieval.duplicates import Duplicates
    from stopgrad.retrieval.query import SearchResult

MOST_QUERIES, MOST_GROUPS, MOST_MEMBERS = 5, 20, 8


def search(
    run_or_embeddings: str, query: Path | None = None, /, *, data: str | None = None, top: int = 20,
    duplicates: float | None = None, split: str | None = None, index: str = "exact", encoder: str | None = None,
    page: Path | None = None, batch_size: int = 0, device: str = "auto", precision: str = "auto", keep: bool = True,
    overwrite: Annotated[bool, Parameter(negative="")] = False, json: Annotated[bool, Parameter(negative="")] = False,
    loading: Loading = NOTHING,
) -> None:  # fmt: skip
    """Find the images that look most like a query, or those that are nearly the same.

    Parameters
    ----------
    run_or_embeddings
        A run folder, a checkpoint, another program's weights or timm:NAME; or a file that `stopgrad embed` wrote.
    query
        An image file, or a folder of images; each is a query.
    data
        The images to search. Without it: those that the run was trained on, or that the file was made of.
    top
        How many to find.
    duplicates
        Instead of a query: list groups of images joined by a cosine of at least this, such as 0.995. The smaller
        the encoder, the higher: features of a small one are near for images that are merely alike.
    split
        train, test or all of a data set with splits. Without it: the training images, or all of a file.
    index
        exact (matrix products in bounded memory), or faiss (its flat index, exact too).
    encoder
        For a file of embeddings, what embeds the query. Without it: the encoder that the file names.
    page
        Write a page of thumbnails, one .html that needs nothing else.
    batch_size
        Images a forward pass; 0: chosen for the device.
    device
        cpu, cuda, cuda:1, mps or auto.
    precision
        What the network computes in: fp32, bf16, or auto: bf16 where the hardware is fast at it; for a file of
        embeddings, what it was made in.
    keep
        Keep the embeddings in the run folder for the next search.
    overwrite
        Replace the page if it exists.
    json
        Print one JSON object on stdout and everything else on stderr.
    """
    if (query is None) == (duplicates is None):
        raise ConfigError("search: give a query, an image file or a folder of images, or --duplicates 0.995.")
    if duplicates is not None and not 0 < duplicates <= 1:
        raise ConfigError(f"--duplicates {duplicates}: the cosine must be above 0 and at most 1.")
    if batch_size < 0:
        raise ConfigError(f"--batch-size {batch_size}: must be at least 1, or 0 to choose for the device.")
    if top < 1:
        raise ConfigError(f"--top {top}: must be at least 1.")
    if page is not None and page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--page {page}: the page must be an .html.")
    if page is not None and page.exists() and not overwrite:
        raise ConfigError(f"{page} exists: use --overwrite, or another --page.")
    run_or_embeddings, encoder = _with_flags(run_or_embeddings, encoder, loading)
    options: dict[str, Any] = {"data": data, "split": split, "batch_size": batch_size, "device": device,
                               "precision": precision, "keep": keep}  # fmt: skip
    with ConsoleReporter(json=json) as reporter:
        if duplicates is not None:
            for flag, unused in (("--index", index != "exact"), ("--encoder", encoder is not None)):
                if unused:
                    reporter.warn(f"{flag} has no effect with --duplicates.")
            from stopgrad.report.search import write_duplicates_page
            from stopgrad.retrieval.duplicates import find_duplicates

            found = find_duplicates(run_or_embeddings, threshold=duplicates, **options, reporter=reporter)
            if page is not None:
                write_duplicates_page(found, page)
            _print_json(found, page) if json else _print_duplicates(found)
        else:
            from stopgrad.report.search import write_search_page
            from stopgrad.retrieval.query import search as search_for

            result = search_for(
                run_or_embeddings, query, top=top, index=index, encoder=encoder, **options, reporter=reporter
            )
            if page is not None:
                write_search_page(result, page)
            _print_json(result, page) if json else _print_answers(result)
    if page is not None and not json:
        print(f"Page {page}")


def _with_flags(run_or_embeddings: str, encoder: str | None, loading: Loading) -> tuple[str, str | None]:
    """Both, with what the flags say of the one that is an encoder."""
    if not is_embeddings(run_or_embeddings):
        return loading.of(run_or_embeddings), encoder
    given = loading.given()
    if not given:
        return run_or_embeddings, encoder
    if encoder is None:
        raise ConfigError(f"{given[0]}: {run_or_embeddings} is a file of embeddings; name its encoder too (--encoder).")
    return run_or_embeddings, loading.of(encoder)


def _print_json(result: "SearchResult | Duplicates", page: Path | None) -> None:
    print_json({**result.as_json(), "page": None if page is None else str(page)})


def _print_answers(result: "SearchResult") -> None:
    console = plain_console()
    for answer in result.answers[:MOST_QUERIES]:
        console.print(answer.query, markup=False, style="bold")
        if answer.left_out is not None:
            console.print("It is among the images itself, and left out.")
        width = max((len(hit.label) for hit in answer.hits if hit.label is not None), default=0)
        label = f"{'label':{width}}  " if width else ""
        console.print(f"rank  cosine  {label}image")
        for hit in answer.hits:
            label = f"{hit.label or '':{width}}  " if width else ""
            copy = "  (a copy, byte for byte)" if hit.copy else ""
            console.print(f"{hit.rank:4}  {hit.cosine:.4f}  {label}{hit.name}{copy}", markup=False)
        console.print()
    if len(result.answers) > MOST_QUERIES:
        console.print(f"The first {MOST_QUERIES} of {len(result.answers)} queries; all of them with --json or --page.")
    print_skipped(console, result.skipped)
    console.print(
        f"{result.num_images:,} images of {result.data}; {result.encoder}; {result.seconds:.1f} s, of which searching "
        f"{1000 * result.search_seconds:,.0f} ms",
        markup=False,
    )


def _print_duplicates(found: "Duplicates") -> None:
    console = plain_console()
    for number, group in enumerate(found.groups[:MOST_GROUPS], start=1):
        console.print(f"Group {number}: {len(group)} images", style="bold")
        for member in group[:MOST_MEMBERS]:
            label = f"  {member.label}" if member.label is not None else ""
            copy = f"  (a copy of {member.copy_of})" if member.copy_of is not None else ""
            console.print(f"  {member.cosine:.4f}{label}  {member.name}{copy}", markup=False)
        if len(group) > MOST_MEMBERS:
            console.print(f"  and {len(group) - MOST_MEMBERS} more")
    if len(found.groups) > MOST_GROUPS:
        console.print(f"The {MOST_GROUPS} largest of {len(found.groups):,} groups; all of them with --json.")
    print_skipped(console, found.skipped)
    copies = f", {found.num_copies:,} of them byte-for-byte copies of another" if found.num_copies else ""
    console.print(
        f"{found.num_grouped:,} of {found.num_images:,} images of {found.data} in {len(found.groups):,} groups at "
        f"cosine {found.threshold:g}{copies}; {found.encoder}; {found.seconds:.1f} s",
        markup=False,
    )
    if found.num_unseen:
        console.print(
            f"Byte-for-byte copies were not looked for among {found.num_unseen:,} of the images, which are no longer "
            "available: give them with --data."
        )
    if found.num_across:
        console.print(f"With training and test images both: {found.num_across:,} of the groups.")
    if found.warning is not None:
        plain_console(stderr=True).print(f"warning: {found.warning}", markup=False, style="yellow")
