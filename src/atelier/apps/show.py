"""Output for people and scripts: progress bars, losses, one-line messages, JSON.

Progress and messages go to the error stream, results to the output stream, so that they can be piped.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from atelier.core.progress import Event

console = Console(stderr=True, highlight=False)
EVERY = 50  # steps between two lines of losses


def live() -> bool:
    """Whether a progress bar can be drawn: the error stream is a terminal that moves its cursor.

    rich alone would draw one into a file where FORCE_COLOR is set.
    """
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal and not in_ci


def say(text: str) -> None:
    """Print a line on the error stream."""
    console.print(text, markup=False, soft_wrap=True)


def emit(values: Mapping[str, Any]) -> None:
    """Print one JSON object on the output stream."""
    # ASCII, because file names may hold characters that the stream cannot encode.
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


class Watch:
    """A progress listener: a bar with the time left, notes, losses at every 50th step, and Ctrl-C.

    The first Ctrl-C stops the work and keeps the best picture so far; a second one ends it at once.
    """

    def __init__(self, bar: Progress | None, *, quiet: bool) -> None:
        self.bar, self.quiet = bar, quiet
        self.task = bar.add_task("starting", total=None) if bar else None
        self.interrupted = False
        self.last: Event | None = None
        self._stage = ""

    def __call__(self, event: Event) -> bool:
        self.last = event
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=event.done, total=event.total, description=event.stage)
        if event.note and not self.quiet:
            say(event.note)
        due = event.done % EVERY == 0 or event.done == event.total or event.stage != self._stage
        if due and event.losses and not self.quiet:
            terms = "  ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
            say(f"{event.done:>6} of {event.total}  {event.stage}  {terms}")
        self._stage = event.stage
        return not self.interrupted

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """The handler of SIGINT (Ctrl-C) and SIGTERM."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


@contextmanager
def watching(*, quiet: bool = False) -> Iterator[Watch]:
    """A `Watch` that draws a bar on a terminal and handles Ctrl-C inside the block."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True) if live() and not quiet else None
    watch = Watch(bar, quiet=quiet)
    before = {number: signal.signal(number, watch.interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if bar is not None:
            bar.start()
        yield watch
    finally:
        if bar is not None:
            bar.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def downloading(name: str) -> Iterator[Any]:
    """A callback (bytes done, bytes in total or None) that draws a bar on a terminal."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not live()) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Clock:
    """A stopwatch that starts when it is created."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.start, 2)
