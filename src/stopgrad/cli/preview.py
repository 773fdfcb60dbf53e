"""stopgrad preview."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from stopgrad.cli.shared.console import print_json
from stopgrad.cli.shared.settings import Settings, given_settings
from stopgrad.data.place import DEMONSTRATION, check_there
from stopgrad.errors import ConfigError
from stopgrad.recipes import resolve


def preview(
    data: str | None = None, /, *, out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("preview.png"),
    images: int = 8, columns: int = 8, recipe: str | None = None, augmentation: str | None = None,
    config: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False, json: Annotated[bool, Parameter(negative="")] = False,
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),  # type: ignore[valid-type]  # noqa: B008
) -> None:  # fmt: skip
    """Draw a sheet of augmented views, to see what training will see.

    Parameters
    ----------
    data
        As for `stopgrad pretrain`.
    out
        The picture to write.
    images
        Rows: images, taken at random by --seed.
    columns
        Views of each image; local views, where there are any, stand beside them.
    recipe
        As for `stopgrad pretrain`.
    augmentation
        As for `stopgrad pretrain`.
    config
        As for `stopgrad pretrain`.
    overwrite
        Replace the picture if it exists.
    json
        Print one JSON object.
    """
    given = given_settings(settings)
    if data is None and not (recipe or config):
        data = DEMONSTRATION
    recipe, given = resolve(recipe, config, given, augmentation)
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists: use --overwrite, or another --out.")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"--out {out}: the picture must be a .png, .jpg or .webp.")
    if images < 2 or columns < 1:
        raise ConfigError(f"--images {images} --columns {columns}: needs at least 2 images and 1 column.")
    if data:
        check_there(data)
    from stopgrad.report.sheet import write_preview

    shown = write_preview(data, out=out, recipe=recipe, given=given, num_images=images, num_views=columns)
    if json:
        print_json(shown)
    else:
        by = f"recipe {shown['recipe']}" + (f", augmentation {augmentation}" if augmentation else "")
        print(f"{out}: {shown['images']} images, {shown['views']} views each, by {by}.")
