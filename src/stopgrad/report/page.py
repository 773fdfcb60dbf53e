"""Pages that work from disk: one self-contained file, nothing fetched."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from stopgrad.artifacts.checkpoint import write_atomically

_TEMPLATES = Environment(
    loader=PackageLoader("stopgrad.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template into a file, atomically; everything is escaped but what is `markupsafe.Markup`."""
    text = _TEMPLATES.get_template(template).render(**values)
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def picture(pixels: "np.ndarray | Image.Image", side: int, *, quality: int = 80) -> str:
    """An image as a data URI: WebP, its longer side reduced to `side`; smaller images are left as they are."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
