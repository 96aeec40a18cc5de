"""The cells of a grid on a Ray cluster: the same rows as by the local pool, on one machine or many.

Nothing is shared but the cluster: pictures travel to the workers and back, so no folder has to be mounted
anywhere. Every machine needs atelier with the same weights. A cell whose worker or machine is lost is done
again elsewhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from atelier.bench.painting import Row, Studio, Work
from atelier.bench.pictures import Input
from atelier.bench.pool import Entries
from atelier.bench.protocol import Protocol
from atelier.core.atomic import atomic
from atelier.core.cluster import Cluster
from atelier.core.errors import ResourceError


class Remote:
    """A worker on some machine of the cluster: a studio with a temporary folder."""

    def __init__(self, protocol: Protocol, entries: Entries) -> None:
        import torch

        torch.set_num_threads(protocol.threads)
        self._folder = Path(tempfile.mkdtemp(prefix="atelier-bench-"))
        self._studio = Studio(protocol, entries, self._folder)

    def do(
        self,
        work: Work,
        content: bytes,
        style: bytes | None,
        mask: bytes | None,
        picture: bytes | None,
    ) -> tuple[Row, bytes | None]:
        """The row of a cell, and its picture where it was painted. `picture` is one to measure only."""
        given = work.cell
        here = replace(
            given,
            content=self._kept(given.content, content, mask),
            style=self._kept(given.style, style),
        )
        target = self._folder / given.file
        if picture is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture)
        row = self._studio.do(replace(work, cell=here))
        made = target.read_bytes() if work.paint and row.state == "done" else None
        target.unlink(missing_ok=True)
        return row, made

    def _kept(self, one: Input, data: bytes | None, mask: bytes | None = None) -> Input:
        """The input with files of this machine, written once."""
        paths = [self._file(one, "", one.path, data), self._file(one, "mask-", one.mask, mask)]
        return replace(one, path=paths[0], mask=paths[1])

    def _file(self, one: Input, kind: str, name: str, data: bytes | None) -> str:
        if data is None:
            return name
        path = self._folder / "inputs" / f"{one.sha256[:16]}-{kind}{Path(name).name}"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        return str(path)


class RayWorkers:
    """Workers on a Ray cluster: a new one on this machine, or at `address` ("auto", ray://HOST:PORT).

    Raises ResourceError where Ray is not installed or the cluster cannot be reached.
    """

    def __init__(
        self, protocol: Protocol, entries: Entries, folder: Path, jobs: int, *, address: str | None = None
    ) -> None:
        self.jobs = jobs
        self._protocol, self._entries, self._folder = protocol, dict(entries), folder
        self._cluster = Cluster(address, processors=jobs * protocol.threads)
        self._files: dict[str, Any] = {}

    def __enter__(self) -> RayWorkers:
        self._cluster.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._cluster.__exit__(*error)

    def do(self, batches: Sequence[Sequence[Work]]) -> Iterator[tuple[Work, Row]]:
        """The rows of all cells, with their pictures written here."""
        for work, answer in self._cluster.spread(self._actor, Remote, batches, self._sent, jobs=self.jobs):
            if isinstance(answer, ResourceError):
                yield work, Row(work.cell.key, "failed", str(answer), painted=work.paint)
                continue
            row, picture = answer
            if picture is not None:
                target = self._folder / work.cell.file
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic(target) as beside:
                    beside.write_bytes(picture)
            yield work, row

    def _sent(self, actor: Any, work: Work) -> Any:
        """Send a worker a cell; what stands for the answer."""
        content, style = work.cell.content, work.cell.style
        sent = [self._file(path) for path in (content.path, style.path, content.mask)]
        picture = None if work.paint else (self._folder / work.cell.file).read_bytes()
        return actor.do.remote(work, *sent, picture)

    def _file(self, path: str) -> Any:
        """The bytes of a file in the cluster's memory, put there once; None if there is none."""
        if not path:
            return None
        if path not in self._files:
            self._files[path] = self._cluster.put(Path(path).read_bytes())
        return self._files[path]

    def _actor(self, kind: Any) -> Any:
        return kind.options(num_cpus=self._protocol.threads).remote(self._protocol, self._entries)
