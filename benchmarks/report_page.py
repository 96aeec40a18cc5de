"""The manual's page of all methods: its table and its pictures, from the grid of the protocol `gallery`.

    python benchmarks/report_page.py out/bench/gallery

`make report` runs the grid first. The table goes between the two marks of docs/report.md, and a sheet for
each photo, in a style of its own, into docs/pictures.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from atelier.bench import summary
from atelier.bench.protocol import BASELINES
from atelier.bench.table import Table

DOCS = Path(__file__).parents[1] / "docs"
#: Tiles of a sheet: their width, the room below for a name, the gap, and how many are side by side.
TILE, NAME, GAP, COLUMNS = 192, 22, 8, 6
PAPER, INK = "#fbfaf8", "#26262a"
#: The most bytes that a picture of the manual takes.
LARGEST = 300_000


def table(grid: Table) -> str:
    """The means of every method in Markdown. The best number of those that are no baseline is bold."""
    metrics, lines = summary.columns(grid), summary.lines(grid)
    plain = {one.label for one in BASELINES}
    best = {
        column.name: summary.best_of([line for line in lines if line.method not in plain], column)
        for column in metrics
    }
    arrows = {"higher": "↑", "lower": "↓"}
    head = ["method", *(f"{one.name} {arrows[one.better]}" for one in metrics), "CPU s", "MiB"]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        if not line.done + line.failed:
            continue
        cells = [f"*{line.method}*" if line.method in plain else line.method]
        for column in metrics:
            text = f"{line.values[column.name].mean:.3g}" if column.name in line.values else "-"
            cells.append(f"**{text}**" if best[column.name] == line.method else text)
        rows.append([*cells, seconds(grid, line.method), "-" if line.peak is None else f"{line.peak:.0f}"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def seconds(grid: Table, method: str) -> str:
    """The median processor seconds of a picture, in a style that was seen before where there is one."""
    found = grid.rows(
        "SELECT cpu, warm FROM plan JOIN cells USING (key) WHERE method = ? AND state = 'done'", (method,)
    )
    warm = [row["cpu"] for row in found if row["warm"]]
    times = warm or [row["cpu"] for row in found]
    return f"{median(times):.2g}" if times else "-"


def pairs(grid: Table) -> list[tuple[str, str]]:
    """Each content with a style of its own, as far as there are styles."""
    names = [
        [row["name"] for row in grid.rows("SELECT name FROM inputs WHERE kind = ? ORDER BY place", (kind,))]
        for kind in ("content", "style")
    ]
    return list(zip(*names, strict=False))


def tiles(grid: Table, folder: Path, content: str, style: str) -> Iterator[tuple[str, Image.Image]]:
    """The photo, the style and the picture of every method, with their names."""
    for kind, name in (("content", content), ("style", style)):
        (row,) = grid.rows("SELECT path FROM inputs WHERE kind = ? AND name = ?", (kind, name))
        yield {"content": "photo", "style": "style"}[kind], Image.open(row["path"]).convert("RGB")
    found = grid.rows(
        "SELECT plan.* FROM plan JOIN cells USING (key) WHERE content = ? AND style = ? AND state = 'done' "
        "ORDER BY place",
        (content, style),
    )
    for row in found:
        if row["method"] not in ("identity", "style_copy"):
            yield row["method"], Image.open(folder / row["file"]).convert("RGB")


def sheet(pictures: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures with their names below, each whole in its tile."""
    shape = pictures[0][1].size
    high = round(TILE * shape[1] / shape[0])
    down = -(-len(pictures) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * (TILE + GAP) + GAP, down * (high + NAME + GAP) + GAP), PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for place, (name, picture) in enumerate(pictures):
        left = GAP + place % COLUMNS * (TILE + GAP)
        top = GAP + place // COLUMNS * (high + NAME + GAP)
        scale = min(TILE / picture.width, high / picture.height)
        small = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS
        )
        page.paste(small, (left + (TILE - small.width) // 2, top + high - small.height))
        pen.text((left + TILE / 2, top + high + 3), name, INK, font, anchor="ma")
    return page


def write(page: Image.Image, path: Path) -> None:
    """A JPEG of at most `LARGEST` bytes."""
    for quality in range(90, 40, -5):
        page.save(path, quality=quality, subsampling=0 if quality > 80 else 2, optimize=True)
        if path.stat().st_size <= LARGEST:
            return
    raise SystemExit(f"{path} does not fit into {LARGEST} bytes: take fewer methods")


def facts(grid: Table) -> str:
    """One line on what the numbers are of."""
    (count,) = grid.rows("SELECT count(*) AS n FROM cells JOIN plan USING (key) WHERE state = 'done'")
    size: Any = re.search(r'"size":(\d+)', grid.fact("protocol") or "")
    told = (
        f"{count['n']} pictures of {size[1]} px, of {len(pairs(grid))} photos, each in a style of its own;\n"
    )
    told += f"{grid.fact('machine')}, one thread a process, {date.today().isoformat()}."
    missing = [line.method for line in summary.lines(grid) if not line.done + line.failed]
    return told + (f"\nThe run was stopped before {', '.join(missing)}." if missing else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("grid", type=Path, help="folder of the grid")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the manual")
    options = parser.parse_args()
    grid, page = Table(options.grid), options.docs / "report.md"
    text = page.read_text(encoding="utf-8")
    start, end = "<!-- table: written by `make report` -->", "<!-- end of the table -->"
    before, _, rest = text.partition(start)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{start}\n\n{table(grid)}\n\n{facts(grid)}\n\n{end}{after}", encoding="utf-8")
    for content, style in pairs(grid):
        path = options.docs / "pictures" / f"report-{content}-{style}.jpg"
        write(sheet(list(tiles(grid, options.grid, content, style))), path)
    grid.close()


if __name__ == "__main__":
    main()
