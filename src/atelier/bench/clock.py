"""How long a grid will still take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from atelier.bench.painting import Work


class Clock:
    """The time that is left, from the mean time of each method's cells so far."""

    def __init__(self, todo: Iterable[Work], jobs: int) -> None:
        self._jobs = jobs
        self._open = Counter(work.cell.method for work in todo)
        self._done, self._spent = Counter[str](), defaultdict[str, float](float)

    def tick(self, method: str, seconds: float) -> None:
        """A cell of a method is finished, after these seconds."""
        self._open[method] -= 1
        self._done[method] += 1
        self._spent[method] += seconds

    def left(self) -> str:
        """About how long the rest takes, in words. A method without a cell yet counts as the mean."""
        usual = sum(self._spent.values()) / max(self._done.total(), 1)
        seconds = sum(
            count * (self._spent[method] / self._done[method] if self._done[method] else usual)
            for method, count in self._open.items()
        )
        return duration(seconds / self._jobs)


def duration(seconds: float) -> str:
    """A time in two units.

    >>> duration(4), duration(200), duration(7300)
    ('4 s', '3 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
