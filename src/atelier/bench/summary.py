"""What a grid says of each method: means with bootstrap intervals, times, memory, failures."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from atelier.bench.table import Table

#: Draws of a bootstrap interval, and its confidence.
DRAWS, CONFIDENCE = 1000, 0.95


@dataclass(frozen=True)
class Value:
    """A mean over `count` pictures, between `low` and `high` with 95%; None bounds for metrics of sets."""

    mean: float
    count: int
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A metric of a table, with what its numbers rest on."""

    name: str
    better: str
    about: str
    sentence: str
    resize: str
    features: dict[str, str]


@dataclass(frozen=True)
class Line:
    """A method: cells done and failed, its metrics, median seconds with and without the style's work, MiB."""

    method: str
    done: int
    failed: int
    seconds: float | None
    first_seconds: float | None
    peak: float | None
    values: dict[str, Value] = field(default_factory=dict)


def columns(table: Table) -> list[Column]:
    """The metrics of the protocol, in its order."""
    rows = table.rows("SELECT * FROM columns ORDER BY place")
    return [
        Column(r["metric"], r["better"], r["about"], r["sentence"], r["resize"], json.loads(r["features"]))
        for r in rows
    ]


def lines(table: Table) -> list[Line]:
    """One line for each method, in the order of the protocol."""
    cells = table.rows("SELECT plan.method, cells.* FROM plan JOIN cells USING (key) ORDER BY plan.place")
    methods = [r["method"] for r in table.rows("SELECT method FROM plan GROUP BY method ORDER BY min(place)")]
    return [_line(table, method, [cell for cell in cells if cell["method"] == method]) for method in methods]


def _line(table: Table, method: str, cells: Sequence[dict[str, Any]]) -> Line:
    done = [cell for cell in cells if cell["state"] == "done"]
    timed = [cell for cell in done if cell["seconds"] is not None]
    warm = [cell["seconds"] for cell in timed if cell["warm"]]
    first = [cell["seconds"] for cell in timed if not cell["warm"]]
    peaks = [cell["peak"] for cell in done if cell["peak"] is not None]
    return Line(
        method,
        len(done),
        len(cells) - len(done),
        median(warm or first) if timed else None,
        median(first) if first else None,
        max(peaks) if peaks else None,
        _values(table, method),
    )


def _values(table: Table, method: str) -> dict[str, Value]:
    """The means of a method by metric, of pairs and of sets."""
    rows = table.rows(
        "SELECT metric, value FROM plan JOIN cells USING (key) JOIN metrics USING (key) "
        "WHERE method = ? AND state = 'done' AND value IS NOT NULL ORDER BY place",
        (method,),
    )
    numbers: dict[str, list[float]] = {}
    for row in rows:
        numbers.setdefault(row["metric"], []).append(row["value"])
    found = {name: mean_with_bounds(values) for name, values in numbers.items()}
    for row in table.rows("SELECT * FROM sets WHERE method = ? AND value IS NOT NULL", (method,)):
        found[row["metric"]] = Value(row["value"], row["count"], note=row["reason"])
    return found


def gaps(table: Table) -> list[str]:
    """What is missing from the means: a sentence for each reason."""
    failed = table.rows(
        "SELECT method, error, count(*) AS n FROM plan JOIN cells USING (key) WHERE state = 'failed' "
        "GROUP BY method, error ORDER BY min(place)"
    )
    unmeasured = table.rows(
        "SELECT metric, reason, count(*) AS n FROM plan JOIN cells USING (key) JOIN metrics USING (key) "
        "JOIN columns USING (metric) WHERE state = 'done' AND value IS NULL "
        "GROUP BY metric, reason ORDER BY columns.place"
    )
    sets = table.rows("SELECT metric, reason, count(*) AS n FROM sets WHERE value IS NULL GROUP BY 1, 2")
    return [
        *(f"{row['method']} failed on {_cells(row['n'])}: {row['error']}" for row in failed),
        *(f"{row['metric']} has no number for {_cells(row['n'])}: {row['reason']}" for row in unmeasured),
        *(f"{row['metric']} has no number for {row['n']} methods: {row['reason']}" for row in sets),
    ]


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def mean_with_bounds(values: Sequence[float], *, seed: int = 0) -> Value:
    """The mean of values and its bootstrap interval (percentiles of 1,000 draws).

    >>> found = mean_with_bounds([1.0, 2.0, 3.0, 4.0])
    >>> found.mean, found.low <= 2.5 <= found.high
    (2.5, True)
    """
    array = np.asarray(values, float)
    if len(array) < 2 or not np.isfinite(array).all():
        return Value(float(array.mean()), len(array))
    random = np.random.default_rng(seed)
    draws = array[random.integers(len(array), size=(DRAWS, len(array)))].mean(1)
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Value(float(array.mean()), len(array), float(low), float(high))


def as_csv(table: Table) -> str:
    """Every cell as a line: method, content, style, state, times, memory, and all metrics."""
    names = [column.name for column in columns(table) if not column.name.startswith("_")]
    head = ["method", "content", "style", "state", "error", "seconds", "cpu", "warm", "peak_mib", "sha256"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*head, *names])
    values: dict[str, dict[str, Any]] = {}
    for row in table.rows("SELECT key, metric, value FROM metrics"):
        values.setdefault(row["key"], {})[row["metric"]] = row["value"]
    for cell in table.rows("SELECT * FROM plan JOIN cells USING (key) ORDER BY place"):
        mine = values.get(cell["key"], {})
        facts = ("method", "content", "style", "state", "error", "seconds", "cpu", "warm", "peak", "sha256")
        writer.writerow([*(cell[name] for name in facts), *(mine.get(name) for name in names)])
    return text.getvalue()


def as_latex(table: Table) -> str:
    """The means as a LaTeX table (booktabs), the best number of each column bold, with arrows."""
    found, metrics = lines(table), columns(table)
    best = {column.name: best_of(found, column) for column in metrics}
    head = [
        "method",
        *(_latex(c.name) + (r" $\uparrow$" if c.better == "higher" else r" $\downarrow$") for c in metrics),
    ]
    rows = [" & ".join([*head, "s", "MiB"]) + r" \\", r"\midrule"]
    for line in found:
        cells = [_latex(line.method)]
        for column in metrics:
            value = line.values.get(column.name)
            text = "--" if value is None else f"{value.mean:.4g}"
            cells.append(rf"\textbf{{{text}}}" if line.method == best[column.name] else text)
        cells += ["--" if n is None else f"{n:.3g}" for n in (line.seconds, line.peak)]
        rows.append(" & ".join(cells) + r" \\")
    start = rf"\begin{{tabular}}{{l{'r' * (len(metrics) + 2)}}}"
    return "\n".join([start, r"\toprule", *rows, r"\bottomrule", r"\end{tabular}", ""])


def best_of(found: Sequence[Line], column: Column) -> str:
    """The method with the best number of a column, or nothing."""
    numbers = {line.method: line.values[column.name].mean for line in found if column.name in line.values}
    numbers = {method: number for method, number in numbers.items() if not math.isnan(number)}
    if not numbers:
        return ""
    pick = max if column.better == "higher" else min
    return pick(numbers, key=numbers.__getitem__)


def _latex(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "_&%#$" else letter for letter in text)
