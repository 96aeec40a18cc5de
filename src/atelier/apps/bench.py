"""The bench at the terminal: progress with the time left, and the table of a grid."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from atelier.apps.layout import columns as width
from atelier.apps.layout import table as drawn
from atelier.apps.show import Watch, live, say
from atelier.bench import grid, protocol, summary
from atelier.bench import sweep as sweeps
from atelier.bench.cluster import RayWorkers
from atelier.bench.plan import plan
from atelier.bench.pool import Pool
from atelier.bench.table import Table
from atelier.core.cluster import address_of
from atelier.core.errors import Cancelled
from atelier.core.progress import Event, Progress

#: Seconds between two lines of progress where no bar can be drawn.
EVERY = 30.0


@dataclass(frozen=True)
class Place:
    """A protocol with the folder of its pictures and that of its grid."""

    protocol: protocol.Protocol
    data: Path
    folder: Path

    @classmethod
    def of(cls, name: str, out: Path | None, data: Path | None) -> Place:
        """By the arguments of the command. Raises InputError or UsageError for a protocol that is wrong."""
        path = protocol.find(name)
        found = protocol.read(path)
        usual = Path.cwd() if path.parent == protocol.SHIPPED else path.parent
        return cls(found, data or usual, out or Path("out") / "bench" / found.name)


class Lines:
    """A listener that passes events on, and prints a line now and then where no bar is drawn."""

    def __init__(self, watch: Watch, *, quiet: bool) -> None:
        import time

        self._watch, self._now = watch, time.monotonic
        self._silent, self._next = quiet or live(), 0.0

    def __call__(self, event: Event) -> bool:
        if not self._silent and self._now() >= self._next:
            self._next = self._now() + EVERY
            say(f"{event.done} of {event.total} cells: {event.stage}")
        return self._watch(event)


def engine_of(name: str) -> grid.Engine:
    """The engine of a name: local, ray, or the address of a Ray cluster. Raises UsageError for another."""
    if name == "local":
        return Pool
    return partial(RayWorkers, address=address_of(name))


def run(
    place: Place, jobs: int | None, retry: bool, engine: str, watch: Watch, *, quiet: bool
) -> grid.Outcome:
    """Run a grid. Raises Cancelled at the second Ctrl-C."""
    settings: dict[str, Any] = {"jobs": jobs, "retry": retry, "engine": engine_of(engine)}
    listener = Lines(watch, quiet=quiet)
    try:
        return grid.run(place.protocol, place.data, place.folder, progress=listener, **settings)
    except KeyboardInterrupt:
        kept = f"the rows so far are in {place.folder}, and the same command goes on"
        raise Cancelled(f"stopped; {kept}") from None


def sweep(
    name: str, out: Path | None, data: Path | None, watch: Watch, *, quiet: bool
) -> tuple[sweeps.Outcome, Path]:
    """Run a sweep: what it measured, and its folder. Raises what `bench.sweep` raises."""
    path = sweeps.find(name)
    found = sweeps.read(path)
    folder = out or Path("out") / "sweep" / found.name
    listener = Progress(Lines(watch, quiet=quiet))
    return sweeps.run(found, data or _usual(path), folder, listener), folder


def swept(outcome: sweeps.Outcome, folder: Path) -> str:
    """The numbers of a sweep for a terminal, and a line on what was done."""
    done = f"{outcome.before} pictures were made before, {outcome.made} now"
    if outcome.stopped:
        return f"{done}; stopped: run the same command to go on"
    rows = [(f"{one.value:g}", *map(_number, one.numbers), str(one.count)) for one in outcome.points]
    head = ("value", *outcome.metrics, "pictures")
    notes = {one.note for one in outcome.points if one.note}
    return "\n\n".join([drawn(head, rows, width()), *sorted(notes), f"{done}; table and plot in {folder}"])


def told(place: Place, outcome: grid.Outcome) -> str:
    """The table of a grid, and a line on what was done."""
    table = Table(place.folder)
    try:
        text = "\n\n".join(filter(None, [as_text(table), "\n".join(summary.gaps(table))]))
    finally:
        table.close()
    states = [f"{outcome.cells} cells", f"{outcome.before} were done before", f"{outcome.done} done now"]
    if outcome.failed:
        states.append(f"{outcome.failed} failed (again with --retry)")
    if outcome.stopped:
        states.append("stopped: run the same command to go on")
    return f"{text}\n\n{', '.join(states)}; rows and pictures in {place.folder}"


def as_text(table: Table) -> str:
    """The means of every method, for a terminal."""
    metrics = summary.columns(table)
    head = ("method", *(column.name for column in metrics), "seconds", "MiB", "failed")
    rows = [
        (
            line.method,
            *(_number(line.values[c.name].mean) if c.name in line.values else "-" for c in metrics),
            _number(line.seconds),
            "-" if line.peak is None else f"{line.peak:.0f}",
            str(line.failed or "-"),
        )
        for line in summary.lines(table)
    ]
    return drawn(head, rows, width())


def facts(place: Place, outcome: grid.Outcome) -> dict[str, Any]:
    """The same for scripts."""
    table = Table(place.folder)
    try:
        methods = [asdict(line) for line in summary.lines(table)]
        metrics = [asdict(column) for column in summary.columns(table)]
    finally:
        table.close()
    found = {"folder": str(place.folder), **asdict(outcome), "metrics": metrics, "methods": methods}
    return dict(finite(found))


def finite(value: Any) -> Any:
    """The value without infinite numbers, which JSON does not have: they become text."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def check(name: str, out: Path | None, data: Path | None) -> tuple[str, bool]:
    """What a protocol or sweep lacks, one line each, and whether that is nothing."""
    head, lacking = _swept_needs(name, data) if sweeps.is_sweep(name) else _needs(Place.of(name, out, data))
    lines = [f"missing: {one}" for one in lacking] or ["nothing is missing"]
    return "\n".join([head, *lines]), not lacking


def _swept_needs(name: str, data: Path | None) -> tuple[str, list[str]]:
    path = sweeps.find(name)
    found = sweeps.read(path)
    images = f"{found.images} images of each prompt" if found.images > 1 else "an image of each prompt"
    head = f"{len(found.values)} values of {found.knob}, {images}, {found.size} px"
    return head, sweeps.lacking(found, data or _usual(path))


def _usual(path: Path) -> Path:
    """The data folder of a sweep, if none is given."""
    return Path.cwd() if path.parent == sweeps.SHIPPED else path.parent


def _needs(place: Place) -> tuple[str, list[str]]:
    """The size of a grid, and what it lacks. Methods are tried on the first pair."""
    made = plan(place.protocol, place.data, place.folder)
    lacking = [
        *(problem.reason for problem in made.problems),
        *(f"the method {problem.what}: {problem.reason}" for problem in made.idle),
        *_features(place),
        *_programs(place),
    ]
    head = f"{len(made.cells)} cells: {len(made.entries)} methods (baselines included), "
    return (
        head + f"{len(made.contents)} contents, {len(made.styles)} styles, {place.protocol.size} px",
        lacking,
    )


def _features(place: Place) -> Iterator[str]:
    from atelier.metrics import Networks
    from atelier.metrics.catalogue import missing

    networks = Networks(place.protocol.features)
    for name, reason in missing(place.protocol.metrics, networks).items():
        yield f"the metric {name}: {reason}"


def _programs(place: Place) -> Iterator[str]:
    for entry in place.protocol.external:
        if shutil.which(entry.command[0]) is None:
            yield f"the program '{entry.command[0]}' of {entry.name}: install it, or its cells will fail"


def listing() -> str:
    """The protocols that come with atelier, and all metrics."""
    from atelier.metrics import METRICS

    grids = [(name, protocol.read(path).sentence) for name, path in protocol.shipped().items()]
    protocols = sorted(
        [*grids, *((name, sweeps.read(path).sentence) for name, path in sweeps.shipped().items())]
    )
    metrics = [
        (one.name, one.about, one.better, ", ".join(one.weights) or "-", one.sentence)
        for one in METRICS.values()
    ]
    parts = [
        drawn(("protocol", "what it is"), protocols, width()),
        drawn(("metric", "about", "better", "features", "what it measures"), metrics, width()),
    ]
    return "\n\n".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
