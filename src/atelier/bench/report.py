"""The report of a grid: a page that opens from disk, needs no network, and holds all pictures of the grid.

Everything is in one folder: the page with its data, pictures as JPEG, recipes, and the tables as CSV and
LaTeX. Pictures are made smaller where there are so many that they would not fit into `BUDGET`.
"""

from __future__ import annotations

import html
import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from string import Template
from typing import Any

from atelier import images
from atelier.bench import summary
from atelier.bench.protocol import BASELINES
from atelier.bench.table import Table
from atelier.core.atomic import atomic
from atelier.core.errors import OutputError
from atelier.core.progress import Listener, Progress
from atelier.images import Picture
from atelier.images.resize import fit

SITE = Path(__file__).parent / "site"
#: The most that a report's pictures take, in bytes, and their JPEG quality.
BUDGET, QUALITY = 160 << 20, 85
#: So many pictures tell how many bytes a pixel takes; strokes take three times as many as a clear sky.
SAMPLE = 24
#: The longest and the shortest long side of its pictures, in pixels.
LARGEST, SMALLEST = 1024, 160


def build(folder: Path, site: Path | None = None, *, progress: Listener | None = None) -> Path:
    """Write the report of the grid in `folder`, by default into its folder `report`; the page's path.

    Pictures that are there already are not written again. Raises InputError for a folder without a grid.
    """
    table = Table(folder)
    target = site or folder / "report"
    try:
        cells = _cells(table)
        done = [folder / cell["file"] for cell in cells if cell["state"] == "done"]
        side = long_side(len(done), _size(table), bytes_per_pixel(done))
        _start_anew(target, side)
        places = {kind: _inputs(table, kind, target, side) for kind in ("content", "style")}
        _pictures(cells, folder, target, side, Progress(progress))
        data = _data(table, cells, places)
        _recipes(cells, data["methods"], target)
        _write(target / "cells.csv", summary.as_csv(table))
        _write(target / "table.tex", summary.as_latex(table))
        _write(target / "index.html", page(data))
    finally:
        table.close()
    return target / "index.html"


def long_side(count: int, size: int, per_pixel: float) -> int:
    """The long side at which `count` square pictures fit into the budget, at most that of the grid."""
    room = BUDGET / max(count, 1) / per_pixel
    return max(SMALLEST, min(size, LARGEST, int(math.sqrt(room))))


def bytes_per_pixel(files: Sequence[Path], side: int = 256) -> float:
    """What a pixel of these pictures takes as a small JPEG: the mean of some of them."""
    some = [file for file in files[:: max(1, len(files) // SAMPLE)] if file.is_file()]
    with tempfile.TemporaryDirectory() as folder:
        sizes, pixels = 0, 1
        for place, file in enumerate(some):
            small = Path(folder) / f"{place}.jpg"
            _shrink(file, small, side)
            sizes, pixels = sizes + small.stat().st_size, pixels + _pixels(small)
    return max(sizes / pixels, 0.05)


def _pixels(file: Path) -> int:
    height, width = Picture.open(file).shape
    return height * width


def _start_anew(target: Path, side: int) -> None:
    """Remove pictures of another size, such as those of a smaller grid."""
    mark = target / "pictures" / "side.txt"
    known = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    if mark.parent.is_dir() and known != str(side):
        shutil.rmtree(mark.parent)
    _write(mark, str(side))


def page(data: Mapping[str, Any]) -> str:
    """The page with its data, style and script inside."""
    files = ("index.html", "style.css", "app.js")
    parts = {name: (SITE / name).read_text(encoding="utf-8") for name in files}
    text = json.dumps(_plain(data), separators=(",", ":"), ensure_ascii=False)
    # A script ends at the first "</script", wherever it stands.
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Template(parts["index.html"]).safe_substitute(
        title=html.escape(data["name"]), style=parts["style.css"], data=safe, script=parts["app.js"]
    )


def _size(table: Table) -> int:
    return int(json.loads(table.fact("protocol") or "{}").get("size", LARGEST))


def _cells(table: Table) -> list[dict[str, Any]]:
    """The cells of the plan that have a row, with their metrics."""
    rows = table.rows("SELECT plan.*, cells.* FROM plan JOIN cells USING (key) ORDER BY plan.place")
    values: dict[str, dict[str, float | None]] = {}
    for row in table.rows("SELECT key, metric, value FROM metrics"):
        values.setdefault(row["key"], {})[row["metric"]] = row["value"]
    return [row | {"values": values.get(row["key"], {})} for row in rows]


def _inputs(table: Table, kind: str, target: Path, side: int) -> list[dict[str, Any]]:
    """The contents or styles, with the files of their pictures in the report."""
    found = []
    for row in table.rows("SELECT * FROM inputs WHERE kind = ? ORDER BY place", (kind,)):
        file = f"inputs/{kind}-{row['name']}.jpg" if row["path"] else ""
        if file and not _shrink(Path(row["path"]), target / file, side):
            file = ""
        found.append({"name": row["name"], "group": row["grouped"], "text": row["text"], "file": file})
    return found


def _pictures(
    cells: Sequence[dict[str, Any]], folder: Path, target: Path, side: int, progress: Progress
) -> None:
    for count, cell in enumerate(cells, start=1):
        if cell["state"] == "done":
            shown = str(Path(cell["file"]).with_suffix(".jpg"))
            cell["shown"] = shown if _shrink(folder / cell["file"], target / shown, side) else ""
        progress.report(count, len(cells), stage="pictures")


def _shrink(source: Path, target: Path, side: int) -> bool:
    """Write a picture as JPEG, unless a newer one is there; False where there is none."""
    if not source.is_file():
        return target.is_file()
    if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
        return True
    picture = Picture.open(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    small = picture.resized(fit(picture.shape, min(side, max(picture.shape))))
    images.write(small, target, overwrite=True, quality=QUALITY, receipt=False, metadata=False)
    return True


def _data(
    table: Table, cells: Sequence[dict[str, Any]], places: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """What the page shows, as JSON."""
    protocol = json.loads(table.fact("protocol") or "{}")
    metrics, lines = summary.columns(table), summary.lines(table)
    versions = json.loads(table.fact("versions") or "{}")
    software = ", ".join(f"{name} {versions[name]}" for name in ("atelier", "torch") if name in versions)
    threads = f"processes: {table.fact('jobs')}, threads of each: {protocol.get('threads', 1)}"
    baselines = {one.label for one in BASELINES}
    return {
        "name": protocol.get("name", ""),
        "sentence": protocol.get("sentence", ""),
        "size": protocol.get("size", 0),
        "seed": protocol.get("seed", 0),
        "machine": f"{table.fact('machine')}, {software}, {threads}",
        "metrics": [asdict(column) for column in metrics],
        "gaps": summary.gaps(table),
        "methods": [_method(line, line.method in baselines) for line in lines],
        "contents": places["content"],
        "styles": places["style"],
        "cells": _packed(cells, lines, places, [column.name for column in metrics]),
    }


def _method(line: summary.Line, baseline: bool) -> dict[str, Any]:
    facts = asdict(line)
    return {"name": facts.pop("method"), "first": facts.pop("first_seconds"), "baseline": baseline} | facts


def _packed(
    cells: Sequence[dict[str, Any]],
    lines: Sequence[summary.Line],
    places: Mapping[str, list[dict[str, Any]]],
    metrics: Sequence[str],
) -> list[list[Any]]:
    """A short list for each cell: places of method, content and style, state, numbers, file or error."""
    methods = {line.method: place for place, line in enumerate(lines)}
    at = {kind: {one["name"]: i for i, one in enumerate(some)} for kind, some in places.items()}
    return [
        [
            methods[cell["method"]],
            at["content"][cell["content"]],
            at["style"][cell["style"]],
            int(cell["state"] == "done"),
            _short(cell["seconds"]),
            _short(cell["peak"]),
            cell.get("shown") or cell["error"],
            [_short(cell["values"].get(name)) for name in metrics],
        ]
        for cell in cells
    ]


def _recipes(cells: Sequence[dict[str, Any]], methods: Sequence[dict[str, Any]], target: Path) -> None:
    """The recipes of each method in a script of its own, which the page reads when one is looked at."""
    for place, method in enumerate(methods):
        mine = {
            index: json.loads(cell["recipe"])
            for index, cell in enumerate(cells)
            if cell["method"] == method["name"] and cell["recipe"]
        }
        text = json.dumps(_plain(mine), separators=(",", ":"))
        _write(target / "recipes" / f"{place}.js", f"window.recipes[{place}] = {text};\n")


def _short(value: float | None) -> float | None:
    """Five digits, which are enough to look at."""
    return value if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _plain(value: Any) -> Any:
    """JSON has no infinite numbers: they become text, which JavaScript reads as numbers."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "Infinity" if value > 0 else "-Infinity" if value < 0 else None
    return value


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder '{path.parent}' cannot be made ({error.strerror})") from error
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8")
