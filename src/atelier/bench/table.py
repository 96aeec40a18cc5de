"""The rows of a grid in one SQLite file: each is written whole, and survives a process that is killed.

The file is in write-ahead mode: after a kill -9 a row that was committed is there, and of another nothing is.
Only the process that runs the grid writes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atelier.bench.painting import Row
from atelier.bench.plan import Cell, Plan
from atelier.core.errors import InputError, OutputError

#: The name of the file in a grid's folder, and the layout that this version writes.
FILE, LAYOUT = "grid.sqlite", 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inputs (
    kind TEXT, place INTEGER, name TEXT, path TEXT, text TEXT, sha256 TEXT, grouped TEXT,
    PRIMARY KEY (kind, place));
CREATE TABLE IF NOT EXISTS plan (
    place INTEGER PRIMARY KEY, key TEXT NOT NULL, method TEXT NOT NULL, content TEXT NOT NULL,
    style TEXT NOT NULL, file TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, error TEXT NOT NULL, seconds REAL, cpu REAL, whole REAL,
    warm INTEGER, peak REAL, sha256 TEXT NOT NULL, recipe TEXT, file TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS metrics (
    key TEXT, metric TEXT, value REAL, reason TEXT NOT NULL, PRIMARY KEY (key, metric));
CREATE TABLE IF NOT EXISTS sets (
    method TEXT, metric TEXT, value REAL, count INTEGER NOT NULL, reason TEXT NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (method, metric));
CREATE TABLE IF NOT EXISTS columns (
    metric TEXT PRIMARY KEY, place INTEGER, better TEXT, about TEXT, sentence TEXT, resize TEXT,
    features TEXT NOT NULL);
"""


class Table:
    """The file of a grid. Raises InputError for one that is damaged or of a newer version."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.path = folder / FILE
        if not create and not self.path.is_file():
            raise InputError(f"'{folder}' holds no grid ({FILE}): run `atelier bench PROTOCOL` first")
        try:
            self._base = sqlite3.connect(self.path, isolation_level=None)
            self._base.row_factory = sqlite3.Row
            # NORMAL writes no more than the log at each commit: a killed process loses nothing, and a power
            # cut at most the last rows.
            self._base.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
            self._base.executescript(_SCHEMA)
            self._check_layout()
        except sqlite3.DatabaseError as error:
            raise _damaged(self.path, error) from error

    def _check_layout(self) -> None:
        found = self.fact("layout")
        if found is None:
            self.tell({"layout": str(LAYOUT)})
        elif int(found) > LAYOUT:
            raise InputError(f"'{self.path}' was written by a newer atelier: update it")

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """One transaction: all of the statements inside, or none."""
        try:
            self._base.execute("BEGIN IMMEDIATE")
            yield
            self._base.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")
            raise OutputError(f"'{self.path}' cannot be written: {error}") from error

    # what is planned

    def plan(self, plan: Plan, facts: Mapping[str, str], columns: Sequence[Sequence[Any]]) -> None:
        """Replace the plan; cells that were done before keep their rows."""
        cells = [
            (place, cell.key, cell.method, cell.content.name, cell.style.name, cell.file)
            for place, cell in enumerate(plan.cells)
        ]
        kinds = {"content": plan.contents, "style": plan.styles}
        inputs = [
            (kind, place, one.name, one.path, one.text, one.sha256, one.group)
            for kind, several in kinds.items()
            for place, one in enumerate(several)
        ]
        with self._whole():
            for name in ("plan", "inputs", "columns"):
                self._base.execute(f"DELETE FROM {name}")
            self._base.executemany("INSERT INTO plan VALUES (?, ?, ?, ?, ?, ?)", cells)
            self._base.executemany("INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?)", inputs)
            self._base.executemany("INSERT INTO columns VALUES (?, ?, ?, ?, ?, ?, ?)", columns)
        self.tell(facts)

    def tell(self, facts: Mapping[str, str]) -> None:
        """Keep facts on the grid, such as its protocol and the machine."""
        with self._whole():
            self._base.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def fact(self, name: str) -> str | None:
        """A fact, or None."""
        found = self._base.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found["value"])

    # what is done

    def done(self) -> dict[str, tuple[str, set[str]]]:
        """The state of each cell with a row, and the metrics that it has, by key."""
        found: dict[str, tuple[str, set[str]]] = {
            row["key"]: (row["state"], set()) for row in self._base.execute("SELECT key, state FROM cells")
        }
        for row in self._base.execute("SELECT key, metric FROM metrics"):
            if row["key"] in found:
                found[row["key"]][1].add(row["metric"])
        return found

    def keep(self, row: Row, cell: Cell) -> None:
        """Write a row with its metrics."""
        recipe = None if row.recipe is None else json.dumps(row.recipe, sort_keys=True)
        values = [
            (row.key, name, value, row.reasons.get(name, ""))
            for name, value in ((name, _number(value)) for name, value in row.values.items())
        ]
        times = (row.seconds, row.cpu, row.whole, row.warm, row.peak)
        facts = (row.key, row.state, row.error, *times, row.sha256, recipe, cell.file)
        with self._whole():
            if row.painted or row.state == "failed":
                self._base.execute(
                    "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", facts
                )
            self._base.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?)", values)

    def forget(self, keys: Iterable[str]) -> None:
        """Remove the rows of these cells, to do them again."""
        with self._whole():
            for key in keys:
                self._base.execute("DELETE FROM cells WHERE key = ?", (key,))
                self._base.execute("DELETE FROM metrics WHERE key = ?", (key,))

    def keep_set(self, values: Sequence[Any]) -> None:
        """Write a metric of a method's whole set: method, metric, value, count, reason, digest."""
        with self._whole():
            self._base.execute("INSERT OR REPLACE INTO sets VALUES (?, ?, ?, ?, ?, ?)", values)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a question, by column."""
        try:
            return [dict(row) for row in self._base.execute(sql, values)]
        except sqlite3.DatabaseError as error:
            raise _damaged(self.path, error) from error

    def close(self) -> None:
        self._base.close()


def _number(value: float | None) -> float | None:
    # SQLite stores infinity, and reads it back as such; JSON and CSV say "inf".
    return None if value is None else float(value)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"'{path}' is damaged ({error}): remove it, and the grid starts again")
