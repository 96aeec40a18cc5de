"""Methods on the same pairs: style distance, content kept, seconds; and a contact sheet to look at.

python benchmarks/pairs.py --data FOLDER --methods identity style_copy nnst_d --sheet sheet.png

FOLDER holds the pictures that benchmarks/pairs.txt names (or --pairs, one "photo painting" a line). Style
distances are relative to the photo's own: 1 is no style at all. A method may be followed by settings:
`--methods zecon zecon:gram=0 zecon:similarity=0,contrast=0` is an ablation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, cast

import numpy as np
from measure import arguments, report, set_threads
from torch import Tensor

from atelier import api, images
from atelier.images import Picture
from atelier.images.resize import fit
from atelier.metrics import METRICS, Metric, Networks

CELL = 320


def pairs(listed: Path, data: Path) -> list[tuple[Picture, Picture]]:
    """The photos and paintings of a list."""
    lines = [line.split() for line in listed.read_text().splitlines() if line and not line.startswith("#")]
    return [(Picture.of(data / photo), Picture.of(data / painting)) for photo, painting in lines]


#: The metrics of the table, in the order of its columns.
COLUMNS = ("moments", "gram", "light", "structure")


def rows(
    given: Sequence[tuple[Picture, Picture]],
    named: str,
    quality: str,
    size: int,
    metrics: Mapping[str, Metric],
) -> Iterator[tuple[Picture, list[float]]]:
    """Each pair's picture, and its metrics and seconds; distances are over those of the photo itself."""
    method, _, knobs = named.partition(":")
    settings = dict(_setting(one) for one in knobs.split(",") if one)
    for photo, painting in given:
        start = time.perf_counter()
        made = api.stylize(photo, painting, method=method, quality=quality, size=size, **settings)
        seconds = time.perf_counter() - start
        content = photo.resized(fit(photo.shape, size)).tensor()
        style = painting.resized(fit(painting.shape, size)).tensor()
        values = [_relative(name, one, made.tensor(), content, style) for name, one in metrics.items()]
        yield made, [*values, seconds]


def _setting(words: str) -> tuple[str, Any]:
    """A knob and its value, NAME=VALUE: a number, or text."""
    name, _, value = words.partition("=")
    try:
        return name, float(value)
    except ValueError:
        return name, value


def _relative(name: str, metric: Metric, result: Tensor, content: Tensor, style: Tensor) -> float:
    """A similarity as it is, a distance as a part of the photo's."""
    found = metric(result, content, style)
    return found if METRICS[name].better == "higher" else found / metric(content, content, style)


def sheet(columns: Sequence[Sequence[Picture]]) -> Picture:
    """Pictures in columns, each fitted into a cell, on white."""
    page = np.ones((len(columns[0]) * (CELL + 8), len(columns) * (CELL + 8), 3), np.float32)
    for column, pictures in enumerate(columns):
        for row, picture in enumerate(pictures):
            small = picture.resized(fit(picture.shape, CELL)).pixels
            top, left = row * (CELL + 8), column * (CELL + 8)
            page[top : top + small.shape[0], left : left + small.shape[1]] = small
    return Picture.of(page)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the pictures of the pairs")
    parser.add_argument("--pairs", type=Path, default=Path(__file__).with_name("pairs.txt"))
    parser.add_argument("--methods", nargs="+", default=["identity", "style_copy", "nnst_d"])
    parser.add_argument("--quality", default="good")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--only", type=int, help="the first so many pairs")
    parser.add_argument("--sheet", type=Path, help="a picture to look at: photo, painting, each method")
    options = parser.parse_args()
    set_threads(options)
    given = pairs(options.pairs, options.data)[: options.only]
    networks = Networks()
    metrics = {name: cast(Metric, METRICS[name].make(networks)) for name in COLUMNS}
    columns: list[list[Picture]] = [[pair[index] for pair in given] for index in (0, 1)]
    lines: list[tuple[str | float, ...]] = []
    for method in options.methods:
        made = list(rows(given, method, options.quality, options.size, metrics))
        columns.append([picture for picture, _ in made])
        lines.append((method, *(mean(one) for one in zip(*(values for _, values in made), strict=True))))
    head = ("method", *COLUMNS, "seconds")
    title = f"{len(given)} pairs, {options.size} px, quality {options.quality}"
    if options.sheet:
        images.write(sheet(columns), options.sheet, overwrite=True)
    return report(title, head, lines, [], as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
