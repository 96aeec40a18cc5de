"""How much of a grid's time the methods take: 2,000 cells of the quickest network at 256 px.

The clock starts before the plan and stops after the last row, so it counts the start of the processes,
reading, writing and the rows. Pictures are pieces of those that come with atelier.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import Promise, arguments, report

from atelier import examples, images
from atelier.bench import grid
from atelier.bench.pool import Pool
from atelier.bench.protocol import MethodEntry, Protocol
from atelier.bench.table import Table
from atelier.images import Picture

SIZE = 256
#: The share of the time that is the methods'.
SHARE = 0.85


def pieces(pictures: list[np.ndarray], folder: Path, count: int) -> None:
    """Write `count` squares out of pictures (H, W, 3), one of each picture in turn."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        whole = pictures[number % len(pictures)]
        top, left = (int(random.integers(0, side - SIZE + 1)) for side in whole.shape[:2])
        piece = whole[top : top + SIZE, left : left + SIZE]
        images.write(Picture.of(piece), folder / f"{number:03d}.png")


def protocol(method: str, contents: int, styles: int) -> Protocol:
    """A grid of one method without baselines and without metrics, which are work of their own."""
    return Protocol(
        name="overhead",
        size=SIZE,
        contents=[f"contents/{number:03d}.png" for number in range(contents)],  # type: ignore[arg-type]
        styles=[f"styles/{number:03d}.png" for number in range(styles)],  # type: ignore[arg-type]
        methods=(MethodEntry(method=method),),
    )


def used() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, kinds))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--method", default="adain")
    parser.add_argument("--contents", type=int, default=40)
    parser.add_argument("--styles", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        pieces([examples.photo(name) for name in examples.PHOTOS], root / "contents", options.contents)
        pieces([examples.style(name, size=512) for name in examples.STYLES], root / "styles", options.styles)
        wanted = protocol(options.method, options.contents, options.styles)
        start, cpu = time.perf_counter(), used()
        found = grid.run(wanted, root, root / "grid", jobs=options.jobs, engine=Pool)
        seconds, cpu = time.perf_counter() - start, used() - cpu
        table = Table(root / "grid")
        (sums,) = table.rows("SELECT sum(seconds) AS clock, sum(cpu) AS processor FROM cells")
        table.close()
    assert found.done == options.contents * options.styles
    assert not found.failed
    wall, processor = sums["clock"] / (seconds * options.jobs), sums["processor"] / cpu
    rows = [
        ("wall", seconds * options.jobs, sums["clock"], 100 * wall),
        ("processor", cpu, sums["processor"], 100 * processor),
    ]
    title = f"{found.done} cells of {options.method} at {SIZE} px, {options.jobs} processes, {seconds:.0f} s"
    promises = [Promise("share of the wall time in the methods", wall, SHARE, at_least=True)]
    head = ("time", "seconds", "in the method", "%")
    return report(title, head, rows, promises, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
