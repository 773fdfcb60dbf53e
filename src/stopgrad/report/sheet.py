"""A sheet of views: what augmentation makes of some images."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stopgrad.augment import augment
from stopgrad.cache.store import ImageStore, load_images
from stopgrad.config import Config
from stopgrad.data.open import open_images, recipe_for
from stopgrad.data.shards.order import draw_from
from stopgrad.data.sources import Subset
from stopgrad.distributed.rank import Rank
from stopgrad.errors import DataError
from stopgrad.loader.loader import Loader
from stopgrad.loader.preprocess import pixels_of, preprocess_of, shortest_of, shown_of
from stopgrad.loader.survey import with_images
from stopgrad.recipes import base_config

_GAP = 4
_SMALLEST_TILE = 96


def view_sheet(store: ImageStore, config: Config, *, num_images: int, num_views: int) -> Image.Image:
    """Draw a sheet: a row an image, first the image itself, then views of it as training would see them.

    Local views of one step, where the method takes any, come last, as much smaller as they are.

    Args:
        store: the images; `num_images` of them are taken at random by the config's seed.
        config: augmentation, image size and seed.
        num_images: rows, at most the images there are.
        num_views: views a row.
    """
    rng = np.random.Generator(np.random.PCG64(config.training.seed))
    positions = np.sort(rng.permutation(len(store))[:num_images])
    loader = Loader(store, config, Rank())
    size, a = config.data.image_size, config.augmentation
    per_epoch = config.objective.views
    views: list[Tensor] = []
    local: list[Tensor] = []
    with ThreadPoolExecutor() as pool:
        for epoch in range(-(-num_views // per_epoch)):
            parts = loader.all_views(loader.load(positions, epoch, pool), torch.device("cpu"))
            views += parts[0]
            local = local or [view for part in parts[1:] for view in part]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (a.mean, a.std))
    shown = shown_of(preprocess_of(config))
    whole = torch.stack([_whole(store, int(p), size) for p in positions])
    seen = [view * std + mean for view in views[:num_views] + local]
    scale = max(1, round(_SMALLEST_TILE / size))
    step, small = scale * size + _GAP, scale * config.data.local_side + _GAP
    # The images themselves, the views and the local views stand a little apart.
    left = [_GAP, *(3 * _GAP + (1 + i) * step for i in range(num_views))]
    left += [left[-1] + step + 2 * _GAP + i * small for i in range(len(local))]
    width = left[-1] + (small if local else step)
    sheet = Image.new("RGB", (width, len(positions) * step + _GAP), "white")
    for x, column in zip(left, [whole, *seen], strict=True):
        side = scale * column.shape[3]
        for y, pixels in enumerate(column):
            picture = Image.fromarray(shown.picture(pixels.permute(1, 2, 0).numpy()))
            sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, _GAP + y * step))
    return sheet


def _whole(store: ImageStore, position: int, size: int) -> Tensor:
    pixels = store.pixels(position)
    assert pixels is not None
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    return augment.fit(image, size, size)[0]


def write_preview(
    data: str | None,
    *,
    out: Path,
    recipe: str | None,
    given: Mapping[str, Any],
    num_images: int,
    num_views: int,
) -> dict[str, Any]:
    """Write the sheet of a data set; what was drawn, for the message.

    Raises:
        DataError: fewer than 2 readable images.
    """
    splits = open_images(data or given.get("path", ""))
    recipe = recipe or recipe_for(splits)
    config = base_config(recipe).replace(**given)
    rng = np.random.Generator(np.random.PCG64(config.training.seed))
    # More than asked for, so that a few unreadable ones leave enough.
    drawn = np.sort(draw_from(splits.train, 2 * num_images, rng)).tolist()
    chosen = Subset(splits.train, drawn)
    config, _ = with_images(config, given, chosen)
    store = load_images(chosen, shortest=shortest_of(config), strict=config.data.strict, pixels=pixels_of(config))
    if len(store) < 2:
        raise DataError(
            f"{len(store)} readable image in {splits.name}: a sheet needs at least 2.", topic="too-few-images"
        )
    sheet = view_sheet(store, config, num_images=num_images, num_views=num_views)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out)
    return {"file": str(out), "images": min(num_images, len(store)), "views": num_views, "recipe": recipe}
