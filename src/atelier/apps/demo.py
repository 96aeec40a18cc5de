"""The demo: four bundled photos, four bundled styles, four pictures and a contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from atelier import api, examples
from atelier.apps.show import say, watching
from atelier.images import Picture, write

#: Photo and style of each row, chosen by eye.
PAIRS = (("astronaut", "nocturne"), ("chelsea", "stained_glass"), ("coffee", "cubist"), ("rocket", "woodcut"))
CELL = 384
GAP = 12


def run(folder: Path, quality: str = "good") -> tuple[Path, bool]:
    """Write the results and `contact-sheet.jpg`; the path of the sheet, and whether it is complete."""
    api.by_quality(quality)  # fail before a folder is made
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[Picture, ...]] = []
    for photo_name, style_name in PAIRS:
        photo, style = Picture.of(examples.photo(photo_name)), Picture.of(examples.style(style_name))
        with watching(quiet=True) as watch:
            result = api.stylize(photo, style, quality=quality, progress=watch)
        path = folder / f"{photo_name}-{style_name}.png"
        write(result, path, overwrite=True)
        say(f"{path}")
        rows.append((photo, style, result))
        if watch.interrupted:
            break
    sheet = folder / "contact-sheet.jpg"
    write(contact_sheet(rows), sheet, overwrite=True)
    return sheet, not watch.interrupted


def contact_sheet(rows: list[tuple[Picture, ...]]) -> Picture:
    """The pictures in rows on a white ground, each fitted into a square cell."""
    width = GAP + len(rows[0]) * (CELL + GAP)
    sheet = Image.new("RGB", (width, GAP + len(rows) * (CELL + GAP)), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            small = picture.resized(CELL).pil().convert("RGB")
            left = GAP + column * (CELL + GAP) + (CELL - small.width) // 2
            sheet.paste(small, (left, GAP + row * (CELL + GAP) + (CELL - small.height) // 2))
    return Picture.of(np.asarray(sheet))
