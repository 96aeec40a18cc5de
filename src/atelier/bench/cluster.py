"""The cells of a grid on a Ray cluster: the same rows as by the local pool, on one machine or many.

Nothing is shared but the cluster: pictures travel to the workers and back, so no folder has to be mounted
anywhere. Every machine needs atelier with the same weights. A cell whose worker or machine is lost is done
again elsewhere.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atelier.bench.painting import Row, Studio, Work
from atelier.bench.pictures import Input
from atelier.bench.pool import Entries
from atelier.bench.protocol import Protocol
from atelier.core import extras
from atelier.core.atomic import atomic
from atelier.core.errors import ResourceError, first_line

#: How often a cell is tried where its worker is lost.
TRIES = 3


class Remote:
    """A worker on some machine of the cluster: a studio with a temporary folder."""

    def __init__(self, protocol: Protocol, entries: Entries) -> None:
        import torch

        torch.set_num_threads(protocol.threads)
        self._folder = Path(tempfile.mkdtemp(prefix="atelier-bench-"))
        self._studio = Studio(protocol, entries, self._folder)

    def do(
        self, work: Work, content: bytes, style: bytes | None, picture: bytes | None
    ) -> tuple[Row, bytes | None]:
        """The row of a cell, and its picture where it was painted. `picture` is one to measure only."""
        given = work.cell
        here = replace(
            given, content=self._kept(given.content, content), style=self._kept(given.style, style)
        )
        target = self._folder / given.file
        if picture is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture)
        row = self._studio.do(replace(work, cell=here))
        made = target.read_bytes() if work.paint and row.state == "done" else None
        target.unlink(missing_ok=True)
        return row, made

    def _kept(self, one: Input, data: bytes | None) -> Input:
        """The input with a file of this machine, written once."""
        if data is None:
            return one
        path = self._folder / "inputs" / f"{one.sha256[:16]}-{Path(one.path).name}"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        return replace(one, path=str(path))


@dataclass
class _Hand:
    """A remote worker with the cells that are its own, and how often the first was tried."""

    actor: Any
    cells: deque[Work]
    tries: int = 0


class RayWorkers:
    """Workers on a Ray cluster: a new one on this machine, or at `address` ("auto", ray://HOST:PORT).

    Raises ResourceError where Ray is not installed or the cluster cannot be reached.
    """

    def __init__(
        self, protocol: Protocol, entries: Entries, folder: Path, jobs: int, *, address: str | None = None
    ) -> None:
        self.jobs, self._address = jobs, address
        self._protocol, self._entries, self._folder = protocol, dict(entries), folder
        self._files: dict[str, Any] = {}

    def __enter__(self) -> RayWorkers:
        self._ray: Any = extras.require("ray", "cluster", "The engine ray")
        settings: dict[str, Any] = {"address": self._address} if self._address else {}
        if not self._address:
            settings = {"num_cpus": self.jobs * self._protocol.threads, "include_dashboard": False}
        try:
            self._ray.init(log_to_driver=False, logging_level="ERROR", **settings)
        except Exception as error:  # Ray's errors have no common class
            raise ResourceError(f"the Ray cluster cannot be reached: {first_line(error)}") from error
        self._kind = self._ray.remote(Remote)
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def do(self, batches: Sequence[Sequence[Work]]) -> Iterator[tuple[Work, Row]]:
        """The rows of all cells, with their pictures written here."""
        waiting = deque(deque(batch) for batch in batches if batch)
        hands = [_Hand(self._actor(), waiting.popleft()) for _ in range(min(self.jobs, len(waiting)))]
        running = {self._sent(hand): hand for hand in hands}
        while running:
            (ready, *_), _ = self._ray.wait(list(running), num_returns=1)
            hand = running.pop(ready)
            found = self._received(hand, ready)
            if found is not None:
                yield found
            if not hand.cells and waiting:
                hand.cells = waiting.popleft()
            if hand.cells:
                running[self._sent(hand)] = hand
            else:
                # A worker that replaces a lost one may be waiting for this one's processor.
                self._ray.kill(hand.actor)

    def _received(self, hand: _Hand, answer: Any) -> tuple[Work, Row] | None:
        """The row of the first cell of a worker; None where it is lost and will be tried again."""
        work = hand.cells[0]
        try:
            row, picture = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            hand.actor, hand.tries = self._actor(), hand.tries + 1
            if hand.tries < TRIES:
                return None
            row, picture = Row(work.cell.key, "failed", _lost(error), painted=work.paint), None
        hand.cells.popleft()
        hand.tries = 0
        if picture is not None:
            target = self._folder / work.cell.file
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target) as beside:
                beside.write_bytes(picture)
        return work, row

    def _sent(self, hand: _Hand) -> Any:
        """Send a worker its first cell; what stands for the answer."""
        work = hand.cells[0]
        content, style = self._file(work.cell.content.path), self._file(work.cell.style.path)
        picture = None if work.paint else (self._folder / work.cell.file).read_bytes()
        return hand.actor.do.remote(work, content, style, picture)

    def _file(self, path: str) -> Any:
        """The bytes of an input in the cluster's memory, put there once; None for words."""
        if not path:
            return None
        if path not in self._files:
            self._files[path] = self._ray.put(Path(path).read_bytes())
        return self._files[path]

    def _actor(self) -> Any:
        return self._kind.options(num_cpus=self._protocol.threads).remote(self._protocol, self._entries)


def _lost(error: Exception) -> str:
    return f"the worker was lost {TRIES} times: {first_line(error)}"
