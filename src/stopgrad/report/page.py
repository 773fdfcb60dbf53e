"""Pages that work from disk: one self-contained file, nothing fetched."""

import base64
import gzip
import hashlib
import io
import math
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from stopgrad.artifacts.files import write_atomically
from stopgrad.visible import visible

SCRIPTS = ("images.js", "map.js", "plotly.js", "plots.js", "refresh.js", "study.js")
"""The scripts that pages may run, of the templates."""

_TEMPLATES = Environment(
    loader=PackageLoader("stopgrad.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template into a file, atomically.

    Everything is escaped but what is `markupsafe.Markup`, and control characters are shown as escapes. The page's own
    policy lets a browser run no script but `SCRIPTS` and Plotly, and fetch nothing.
    """
    text = _TEMPLATES.get_template(template).render(policy=content_policy(), **values)
    shown = visible(text, keep_direction=True)
    write_atomically(path, lambda part: part.write_text(shown, encoding="utf-8"))


@lru_cache(maxsize=1)
def content_policy() -> str:
    """The Content-Security-Policy of all pages: scripts by their digests, styles inside, pictures as data."""
    scripts = [_TEMPLATES.get_template(name).render().encode() for name in SCRIPTS]
    digests = [base64.b64encode(hashlib.sha256(s).digest()).decode() for s in (*scripts, _plotly())]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Plotly and the templates set styles of elements, which have no digests.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def picture(pixels: "np.ndarray | Image.Image", side: int, *, quality: int = 80) -> str:
    """An image as a data URI: WebP, its longer side reduced to `side`; smaller images are left as they are."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if max(image.size) > side:
        image = image.copy()
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


@lru_cache(maxsize=1)
def packed_plotly() -> str:
    """Plotly's script, gzipped and in base64: 2 MB in a page in place of 4.8; templates/plotly.js unpacks it."""
    return base64.b64encode(gzip.compress(_plotly(), 6)).decode()


def _plotly() -> bytes:
    return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()


def finite(value: Any) -> Any:
    """The same with None for every number that JSON and plots do not know: NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, (list, tuple)) else value
