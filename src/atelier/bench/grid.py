"""The grid: do what is not done yet, cell by cell, and keep every row as soon as it is known."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import filelock

from atelier.bench.clock import Clock
from atelier.bench.painting import Row, Work
from atelier.bench.plan import Plan
from atelier.bench.plan import plan as planned
from atelier.bench.pool import Entries, Pool
from atelier.bench.protocol import Protocol as Settings
from atelier.bench.sets import measure_sets
from atelier.bench.table import FILE, Table
from atelier.core import recipe as recipes
from atelier.core.errors import InputError, OutputError, UsageError
from atelier.core.progress import Listener, Progress
from atelier.metrics import METRICS, Networks
from atelier.metrics.catalogue import missing

#: Batches for each worker, at least: the last ones should end at about the same time.
_SHARES = 2


class Workers(Protocol):
    """What does the cells of a grid, `jobs` at a time, inside a `with` statement."""

    jobs: int

    def __enter__(self) -> Workers: ...
    def __exit__(self, *error: object) -> None: ...
    def do(self, batches: Sequence[Sequence[Work]]) -> Iterator[tuple[Work, Row]]:
        """The row of every cell, in any order; a cell that fails has a row that says so."""
        ...


#: Makes workers for a protocol, its methods by label, the grid's folder, and a number of processes.
Engine = Callable[[Settings, Entries, Path, int], Workers]


@dataclass(frozen=True)
class Outcome:
    """What a run did: cells of the plan, those that it found done, those that it did, failures in all."""

    cells: int
    before: int
    done: int
    failed: int
    stopped: bool


def run(
    protocol: Settings,
    data: Path,
    folder: Path,
    *,
    jobs: int | None = None,
    retry: bool = False,
    engine: Engine = Pool,
    progress: Listener | None = None,
) -> Outcome:
    """Do the cells of a protocol that have no row in `folder` yet, and measure what is not measured yet.

    `data` is the folder of its pictures, `jobs` the number of processes, and `retry` does failed cells again.
    `engine` does the cells: by default a pool of local processes. A run that was stopped or killed goes on
    where it was. Raises InputError for missing pictures, UsageError for metrics that cannot be computed here,
    and OutputError while another process runs the same grid.
    """
    plan = planned(protocol, data, folder)
    check(plan)
    _make(folder)
    with _alone(folder):
        table = Table(folder, create=True)
        try:
            table.plan(plan, _facts(protocol, jobs), list(_columns(protocol)))
            pool = engine(protocol, plan.entries, folder, _jobs(protocol, jobs))
            return _run(plan, table, folder, pool, retry, Progress(progress))
        finally:
            table.close()


def check(plan: Plan) -> None:
    """Raise for the first thing that a plan lacks: pictures, or features of metrics."""
    if plan.problems:
        more = len(plan.problems) - 1
        rest = f" ({more} more: `atelier bench check` lists them)" if more else ""
        raise InputError(f"{plan.problems[0].reason}{rest}")
    for name, reason in missing(plan.protocol.metrics, Networks(plan.protocol.features)).items():
        raise UsageError(f"the metric {name} cannot be computed here: {reason}")


def _run(
    plan: Plan, table: Table, folder: Path, workers: Workers, retry: bool, progress: Progress
) -> Outcome:
    done = table.done()
    if retry:
        table.forget(key for key, (state, _) in done.items() if state == "failed")
        done = table.done()
    todo = list(_todo(plan, done, folder))
    before = len(plan.cells) - len(todo)
    count = 0
    with workers as pool:
        clock = Clock(todo, pool.jobs)
        for work, row in pool.do(_batches(todo, pool.jobs)):
            table.keep(row, work.cell)
            count += 1
            clock.tick(work.cell.method, row.whole)
            stage = f"{work.cell.method}, {clock.left()} left"
            if not progress.report(before + count, len(plan.cells), stage=stage):
                break
    if not progress.stopped:
        measure_sets(plan, table, folder)
    failed = sum(table.done().get(cell.key, ("", set()))[0] == "failed" for cell in plan.cells)
    return Outcome(len(plan.cells), before, count, failed, progress.stopped)


def _todo(plan: Plan, done: dict[str, tuple[str, set[str]]], folder: Path) -> Iterator[Work]:
    """The cells to paint, and those to measure only because a metric is new."""
    metrics = [name for name in plan.protocol.metrics if not METRICS[name].of_sets]
    for cell in plan.cells:
        state, known = done.get(cell.key, ("", set()))
        lacking = tuple(name for name in metrics if name not in known)
        if state == "" or (state == "done" and not (folder / cell.file).is_file()):
            yield Work(cell, tuple(metrics))
        elif state == "done" and lacking:
            yield Work(cell, lacking, paint=False)


def _batches(todo: Sequence[Work], jobs: int) -> list[list[Work]]:
    """The cells of each method and style together, in as many pieces as there are workers to feed."""
    groups = [
        list(group) for _, group in groupby(todo, lambda work: (work.cell.method, work.cell.style.name))
    ]
    pieces = 1 if jobs == 1 or len(groups) >= _SHARES * jobs else jobs
    return [piece for group in groups for piece in _cut(group, pieces)]


def _cut(group: list[Work], pieces: int) -> Iterator[list[Work]]:
    size = -(-len(group) // pieces)
    for start in range(0, len(group), size):
        yield group[start : start + size]


def _jobs(protocol: Settings, asked: int | None) -> int:
    """The number of processes: as asked, as the protocol says, or as many as have their threads."""
    return asked or protocol.jobs or max(1, (os.cpu_count() or 1) // protocol.threads)


def _facts(protocol: Settings, jobs: int | None) -> dict[str, str]:
    return {
        "protocol": protocol.model_dump_json(),
        "versions": json.dumps(recipes.versions()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "jobs": str(_jobs(protocol, jobs)),
    }


def _columns(protocol: Settings) -> Iterator[tuple[Any, ...]]:
    """What tables say on each metric: its features with their hashes, its resize rule."""
    networks = Networks(protocol.features)
    for place, name in enumerate(protocol.metrics):
        one = METRICS[name]
        features = json.dumps({weights: networks.hash(weights) for weights in one.weights})
        yield name, place, one.better, one.about, one.sentence, one.resize, features


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder '{folder}' cannot be made ({error.strerror})") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process runs a grid. The lock ends with its process, however that ends."""
    lock = filelock.FileLock(folder / "grid.lock", timeout=0)
    try:
        with lock:
            yield
    except filelock.Timeout as error:
        raise OutputError(f"another process is running the grid in '{folder / FILE}'") from error
