"""A small protocol, and workers that do the cells in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier import images
from atelier.bench.grid import Outcome, run
from atelier.bench.painting import Row, Studio, Work
from atelier.bench.protocol import Protocol, read
from atelier.bench.table import Table
from atelier.images import Picture

PROTOCOL = """
name = "small"
size = 40
contents = ["photos/*.png"]
styles = ["paintings/*.png"]
methods = [{ method = "filters", name = "posterised", knobs = { look = "oil" } }]
metrics = ["psnr", "histogram"]
"""


class Here:
    """Workers in this process, for tests; `painted` lists the keys of all cells that were painted."""

    painted: list[str] = []  # noqa: RUF012

    def __init__(self, protocol: Protocol, entries: Any, folder: Path, jobs: int) -> None:
        self.jobs, self._studio = jobs, Studio(protocol, entries, folder)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def do(self, batches: Sequence[Sequence[Work]]) -> Iterator[tuple[Work, Row]]:
        for batch in batches:
            for work in batch:
                if work.paint:
                    self.painted.append(work.cell.key)
                yield work, self._studio.do(work)


class Bench:
    """A folder with pictures and a protocol, and what tests do with them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for kind, count in (("photos", 3), ("paintings", 2)):
            for number in range(count):
                noise = np.random.default_rng([number, count]).random((5, 6, 3)).repeat(10, 0).repeat(10, 1)
                (root / kind).mkdir(exist_ok=True)
                images.write(Picture.of(noise.astype(np.float32)), root / kind / f"{kind}{number}.png")
        self.write(PROTOCOL)

    def write(self, text: str) -> None:
        (self.root / "small.toml").write_text(text)

    @property
    def protocol(self) -> Protocol:
        return read(self.root / "small.toml")

    def run(self, out: str = "out", **options: Any) -> Outcome:
        settings: dict[str, Any] = {"engine": Here, "jobs": 1} | options
        return run(self.protocol, self.root, self.root / out, **settings)

    def rows(self, out: str = "out") -> list[tuple[Any, ...]]:
        """What two runs must agree on: everything but times and memory."""
        table = Table(self.root / out)
        cells = table.rows(
            "SELECT plan.key, method, content, style, state, error, sha256, metric, value, reason "
            "FROM plan JOIN cells USING (key) LEFT JOIN metrics USING (key) ORDER BY place, metric"
        )
        sets = table.rows("SELECT * FROM sets ORDER BY method, metric")
        table.close()
        return [tuple(row.values()) for row in (*cells, *sets)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    Here.painted.clear()
    return Bench(tmp_path)
