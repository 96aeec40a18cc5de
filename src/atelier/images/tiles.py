"""Tiles: large pictures split into overlapping windows, with margins for a network's receptive field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from atelier.core.errors import UsageError

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Tile:
    """A part of a picture: its `core` (rows, columns), and the `outer` window with its margin."""

    core: Window
    outer: Window

    @property
    def inner(self) -> Window:
        """The core in coordinates of the outer window."""
        rows, columns = (
            slice(core.start - outer.start, core.stop - outer.start)
            for core, outer in zip(self.core, self.outer, strict=True)
        )
        return rows, columns


def tiles(height: int, width: int, *, core: int, margin: int, step: int = 1) -> Iterator[Tile]:
    """Tiles whose cores partition a picture, in row-major order; windows start at multiples of `step` pixels.

    A picture no larger than one core is a single tile without a margin. Raises UsageError if `core` or
    `margin` is not a multiple of `step`.

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
    """The window in cells of `factor` pixels; it must start at the edge of a cell."""
    rows, columns = (slice(one.start // factor, -(-one.stop // factor)) for one in window)
    return rows, columns


def _span(start: int, length: int, end: int) -> slice:
    return slice(start, min(start + length, end))


def _wider(span: slice, margin: int, end: int) -> slice:
    return slice(max(0, span.start - margin), min(end, span.stop + margin))
