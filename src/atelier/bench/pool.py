"""A pool of local processes that do cells: a worker that dies costs one cell, and is replaced.

Standard pools lose the whole batch, or hang, when the system ends a process for its memory. Here the cell
that was being done fails with a sentence and the rest of its batch goes on elsewhere.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from atelier.bench.painting import Row, Work
from atelier.bench.protocol import ExternalEntry, MethodEntry, Protocol

Entries = Mapping[str, MethodEntry | ExternalEntry]


class _Worker:
    """A process, the pipe to it, and the cells that it still owes."""

    def __init__(self, context: Any, arguments: tuple[Any, ...]) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid(), *arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.owed: deque[Work] = deque()

    def give(self, batch: Sequence[Work]) -> None:
        self.owed.extend(batch)
        self.pipe.send(list(batch))

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Pool:
    """`jobs` processes for the cells of one grid; use it in a `with` statement, which ends them."""

    def __init__(self, protocol: Protocol, entries: Entries, folder: Path, jobs: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._arguments = (protocol, dict(entries), folder)
        self.jobs, self._workers = jobs, list[_Worker]()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.end()

    def do(self, batches: Sequence[Sequence[Work]]) -> Iterator[tuple[Work, Row]]:
        """The rows of all cells of all batches, in the order in which they are finished."""
        waiting = deque(batch for batch in batches if batch)
        self._workers = [self._new() for _ in range(min(self.jobs, len(waiting)))]
        while True:
            for worker in self._workers:
                if not worker.owed and waiting:
                    worker.give(waiting.popleft())
            busy = {worker.pipe: worker for worker in self._workers if worker.owed}
            if not busy:
                return
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                yield self._received(busy[pipe], waiting)

    def _received(self, worker: _Worker, waiting: deque[Sequence[Work]]) -> tuple[Work, Row]:
        """The next row of a worker; if it has died, the row says so, and a new one takes its place."""
        try:
            row: Row = worker.pipe.recv()
            return worker.owed.popleft(), row
        except (EOFError, OSError):
            work = worker.owed.popleft()
            worker.process.join()
            error = _ended(worker.process.exitcode)
            if worker.owed:
                waiting.appendleft(list(worker.owed))
            worker.end()
            self._workers[self._workers.index(worker)] = self._new()
            return work, Row(work.cell.key, "failed", error, painted=work.paint)

    def _new(self) -> _Worker:
        return _Worker(self._context, self._arguments)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ": memory may have run out" if name == "SIGKILL" else ""
        return f"the process was ended by {name}{hint}"
    return f"the process ended with code {code}"


def _serve(pipe: Connection, parent: int, protocol: Protocol, entries: Entries, folder: Path) -> None:
    """The life of a worker: cells in, rows out, until the pipe is closed."""
    _end_with(parent)
    # Ctrl-C reaches the whole group: the process that runs the grid decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", str(protocol.threads))
    import torch

    from atelier.bench.painting import Studio
    from atelier.core.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(protocol.threads)
    studio = Studio(protocol, entries, folder)
    try:
        while True:
            for work in pipe.recv():
                pipe.send(studio.do(work))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _end_with(parent: int) -> None:
    """End this process when its parent is killed, where the system offers that (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes

    end_on_parents_death = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(end_on_parents_death, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
