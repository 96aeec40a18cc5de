"""Whether the methods that iterate on the picture converge: what their own progress events say of the loss.

    python benchmarks/convergence.py --data FOLDER [--methods gatys nnst] [--only 6] [--size 192]

FOLDER holds the pictures that benchmarks/pairs.txt names. A run goes through sizes, each with an objective of
its own, so every size's curve is divided by its beginning and judged for itself; the worst size counts. Each
pair is run twice, the second time with twice the evaluations everywhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from measure import Promise, Row, arguments, report, set_threads
from pairs import pairs

from atelier import api
from atelier.core.knobs import parse
from atelier.core.progress import Event
from atelier.images import Picture
from atelier.methods import registry

#: The term that matches statistics, by method.
STATISTICS = {"gatys": "style", "mmd": "style", "texture": "style"}
#: The stage that two runs are compared at: the last, where its objective does not depend on those before.
COMPARED = {"deep_analogy": 0}
GAIN, REST = 0.05, 0.10
#: A rise of a tenth, in units of the first one, that is noise: places are drawn anew at each evaluation.
SLACK = 1e-3
ONE_SIZE = 100_000

Curve = Sequence[float]
Pair = tuple[Picture, Picture]


def tenths(curve: Curve) -> list[float]:
    """The means of ten runs of about equal length; of as many as there are values, where those are fewer.

    >>> tenths([9, 7, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1])
    [9, 7, 5, 3, 2, 1, 1, 1, 1, 1]
    """
    parts = min(10, len(curve))
    bounds = [part * len(curve) // parts for part in range(parts + 1)]
    return [mean(curve[start:stop]) for start, stop in pairwise(bounds)]


def end(curve: Curve) -> float:
    """The mean of the last tenth.

    >>> end([4.0, 3.0, 2.0])
    2.0
    """
    return tenths(curve)[-1]


def relative(curve: Curve) -> list[float]:
    """The tenths of a curve over its first one.

    >>> relative([4.0, 3.0, 2.0])
    [1.0, 0.75, 0.5]
    """
    means = tenths(curve)
    return [value / abs(means[0]) if means[0] else 0.0 for value in means]


def average(curves: Sequence[Curve]) -> list[float]:
    """The mean of curves of the same length, value by value.

    >>> average([[1.0, 0.5], [1.0, 0.7]])
    [1.0, 0.6]
    """
    return [mean(values) for values in zip(*curves, strict=True)]


def rises(curve: Curve) -> list[float]:
    """By how much each value lies above the one before it, where that is more than noise.

    >>> rises([1.0, 0.5, 0.75, 0.7])
    [0.25]
    """
    return [after - before for before, after in pairwise(curve) if after > before + SLACK]


def sums(events: Sequence[Event]) -> dict[str, list[float]]:
    """The objective at every evaluation, by stage; events without a loss are left out."""
    found: dict[str, list[float]] = {}
    for event in events:
        if event.losses:
            found.setdefault(event.stage, []).append(sum(event.losses.values()))
    return found


def heard(pair: Pair, method: str, size: int, chosen: Mapping[str, Any]) -> list[Event]:
    """The events of a run."""
    events: list[Event] = []
    api.stylize(*pair, method=method, size=size, progress=events.append, **chosen)
    return events


def evaluations(method: str, quality: str, count: int | None) -> dict[str, int]:
    """The knobs that count a method's evaluations: as `quality` sets them, or `count` each."""
    kind = registry.find(method)
    knobs = parse(kind.Knobs, registry.knobs_for(kind, quality, {}))
    names = [name for name in kind.Knobs.model_fields if name.endswith("iterations")]
    return {name: count or getattr(knobs, name) for name in names}


def rest(pair: Pair, method: str, size: int, chosen: Mapping[str, Any], events: Sequence[Event]) -> float:
    """What is left at the end of the loss of statistics that the start has at the final size."""
    name = STATISTICS[method]
    whole = [event.losses[name] for event in events if event.stage == events[-1].stage]
    once = {**chosen, "smallest": ONE_SIZE, "iterations": 1}
    return end(whole) / heard(pair, method, size, once)[0].losses[name]


def judged(given: Sequence[Pair], method: str, size: int, quality: str, count: int | None) -> Row:
    """A row: sizes, tenths that fall, the largest rise, what twice the steps gain, what is left, seconds."""
    steps = evaluations(method, quality, count)
    once = {"quality": quality, **steps}
    twice = {"quality": quality, **{name: 2 * value for name, value in steps.items()}}
    curves, gains, rests = [], [], []
    start = time.perf_counter()
    for pair in given:
        events = heard(pair, method, size, once)
        more = heard(pair, method, size, twice)
        curves.append([relative(curve) for curve in sums(events).values()])
        short, long = (list(sums(some).values())[COMPARED.get(method, -1)] for some in (events, more))
        gains.append(1 - end(long) / end(short))
        if method in STATISTICS:
            rests.append(rest(pair, method, size, once, events))
    stages = [average(stage) for stage in zip(*curves, strict=True)]
    falls = min(1 - len(rises(stage)) / max(1, len(stage) - 1) for stage in stages)
    highest = max((rise for stage in stages for rise in rises(stage)), default=0.0)
    left = mean(rests) if rests else "-"
    return (method, len(stages), falls, highest, mean(gains), left, time.perf_counter() - start)


def promises(rows: Sequence[Row]) -> Iterator[Promise]:
    """What each row should keep."""
    for method, _, falls, _, gain, left, _ in rows:
        yield Promise(f"{method}: tenths that fall", float(falls), 1.0, at_least=True)
        yield Promise(f"{method}: gain of twice the steps", float(gain), GAIN)
        if method in STATISTICS:
            yield Promise(f"{method}: loss left of the start's", float(left), REST)


def main() -> int:
    known = [name for name, kind in registry.list_methods().items() if kind.family() == "optimise"]
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the pictures of the pairs")
    parser.add_argument("--pairs", type=Path, default=Path(__file__).with_name("pairs.txt"))
    parser.add_argument("--methods", nargs="+", choices=known, default=known)
    parser.add_argument("--quality", default="good")
    parser.add_argument("--size", type=int, default=192, help="long side in pixels")
    parser.add_argument("--iterations", type=int, help="evaluations at each size, instead of the quality's")
    parser.add_argument("--only", type=int, default=6, help="the first so many pairs")
    options = parser.parse_args()
    set_threads(options)
    given = pairs(options.pairs, options.data)[: options.only]
    rows = [
        judged(given, method, options.size, options.quality, options.iterations) for method in options.methods
    ]
    title = f"{len(given)} pairs, {options.size} px, quality {options.quality}"
    head = ("method", "stages", "tenths that fall", "largest rise", "gain of twice", "loss left", "seconds")
    return report(title, head, rows, list(promises(rows)), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
