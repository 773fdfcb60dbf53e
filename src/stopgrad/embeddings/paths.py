"""The files that embeddings are written to: which formats there are, and what lies beside."""

from pathlib import Path

from stopgrad.errors import ConfigError, did_you_mean

SUFFIXES = (".parquet", ".npy", ".csv")


def names_file(out: Path) -> Path:
    """Names and labels of the rows of a .npy, which has no place for them."""
    return out.with_suffix(".names.csv")


def meta_file(out: Path) -> Path:
    """What a .npy or .csv belongs to; a .parquet has it inside."""
    return out.with_name(f"{out.name}.meta.json")


def files_of(out: Path) -> list[Path]:
    """All files that writing to `out` makes, itself first.

    Raises:
        ConfigError: a format that is not known.
    """
    if out.suffix == ".parquet":
        return [out]
    if out.suffix == ".npy":
        return [out, names_file(out), meta_file(out)]
    if out.suffix == ".csv":
        return [out, meta_file(out)]
    hint = did_you_mean(out.suffix, SUFFIXES) if out.suffix else f"valid: {', '.join(SUFFIXES)}."
    raise ConfigError(f"{out}: embeddings are not written as {out.suffix or 'a file without suffix'}; {hint}")


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuse files that exist, unless they may be replaced.

    Raises:
        ConfigError: one exists and `overwrite` is not set, or it is a folder, or the format is not known.
    """
    for file in files_of(out):
        if file.is_dir():
            raise ConfigError(f"{file} is a folder: name a file.")
        if file.exists() and not overwrite:
            raise ConfigError(f"{file} exists: use --overwrite (overwrite=True), or another name.")


def is_embeddings(path: str | Path) -> bool:
    """Whether a path is named as a file of embeddings is."""
    return Path(path).suffix in SUFFIXES
