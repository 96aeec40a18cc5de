"""Recipes in files: ASCII JSON after a marker, in EXIF ImageDescription.

The same field works in JPEG, PNG, WebP and TIFF. Most programs that copy a picture keep it, and any EXIF
viewer shows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from PIL import Image

MARK = "atelier-recipe:"
_DESCRIPTION = 270


def text(recipe: dict[str, Any]) -> str:
    """The recipe as one line of ASCII. Raises TypeError or ValueError if JSON cannot express it.

    >>> text({"method": "gatys"})
    'atelier-recipe:{"method":"gatys"}'
    """
    return MARK + json.dumps(recipe, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def exif(recipe: dict[str, Any] | None, fields: Mapping[int, Any] | None = None) -> bytes:
    """An EXIF block (starting with `Exif\\0\\0`) with the recipe and other fields; empty without either."""
    block = Image.Exif()
    if recipe is not None:
        block[_DESCRIPTION] = text(recipe)
    for tag, value in (fields or {}).items():
        block[tag] = value
    return block.tobytes() if len(block) else b""


def parse(description: object) -> dict[str, Any] | None:
    """The recipe in an image description; None for any other description.

    >>> parse('atelier-recipe:{"seed":1}')
    {'seed': 1}
    """
    if not isinstance(description, str) or not description.startswith(MARK):
        return None
    try:
        recipe = json.loads(description[len(MARK) :].rstrip("\0 "))
    except (ValueError, RecursionError):
        return None
    return recipe if isinstance(recipe, dict) else None


def of_image(image: Image.Image) -> dict[str, Any] | None:
    """The recipe stored in a PIL image, if any; broken EXIF counts as none."""
    try:
        return parse(image.getexif().get(_DESCRIPTION))
    except Exception:  # Pillow raises many things over broken EXIF, and none matters to the picture.
        return None
