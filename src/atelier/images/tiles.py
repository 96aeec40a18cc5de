"""Tiles: large pictures in pieces, each with enough of its surroundings to look as if it were whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from atelier.core.errors import UsageError

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Tile:
    """A `core` of a picture, (rows, columns), and the `outer` window that holds it and a margin."""

    core: Window
    outer: Window

    @property
    def inner(self) -> Window:
        """The core inside the outer window."""
        rows, columns = (
            slice(core.start - outer.start, core.stop - outer.start)
            for core, outer in zip(self.core, self.outer, strict=True)
        )
        return rows, columns


def tiles(height: int, width: int, *, core: int, margin: int, step: int = 1) -> Iterator[Tile]:
    """Tiles that cover a picture once, row by row; windows start at multiples of `step` pixels.

    A picture that one core covers is one tile without a margin. Raises UsageError where `core` or `margin`
    is no multiple of `step`.

    >>> [tile.outer[1] for tile in tiles(4, 20, core=8, margin=4, step=4)]
    [slice(0, 12, None), slice(4, 20, None), slice(12, 20, None)]
    """
    if core < 1 or core % step or margin % step:
        raise UsageError(f"tiles of {core} px with a margin of {margin} px must be multiples of {step} px")
    for top in range(0, height, core):
        for left in range(0, width, core):
            rows, columns = _span(top, core, height), _span(left, core, width)
            yield Tile((rows, columns), (_wider(rows, margin, height), _wider(columns, margin, width)))


def coarser(window: Window, factor: int) -> Window:
    """The window on a grid of `factor` pixels a cell; it must start at a cell."""
    rows, columns = (slice(one.start // factor, -(-one.stop // factor)) for one in window)
    return rows, columns


def _span(start: int, length: int, end: int) -> slice:
    return slice(start, min(start + length, end))


def _wider(span: slice, margin: int, end: int) -> slice:
    return slice(max(0, span.start - margin), min(end, span.stop + margin))
