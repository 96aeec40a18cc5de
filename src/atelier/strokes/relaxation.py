"""Paint by numbers, and relaxation, which moves, adds and removes strokes to improve the match.

Haeberli, "Paint by numbers: abstract image representations", 1990. His relaxation makes random changes and
keeps those that bring the painting closer to the picture. Here the energy is explicit, as in Hertzmann,
"Paint by relaxation", 2001: the squared colour difference plus a price per stroke.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atelier.filtering.structure_tensor import blur, flow
from atelier.maths.compiled import floats
from atelier.strokes.canvas import Strokes
from atelier.strokes.relaxation_kernels import CELL, FIELDS, count, enter, one_round, render

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

_ROOM = 192  # strokes per grid cell; a trial that needs more is rejected


@dataclass
class Painting:
    """Straight opaque strokes on a `ground` colour (3,) that approximate `target` (H, W, 3).

    `records` (N, 9) are the strokes in painting order (see `relaxation_kernels`), `price` is the energy of
    each stroke, and `unit` the typical radius in pixels.
    """

    target: Floats
    ground: Floats
    records: Floats
    price: float
    unit: float

    @classmethod
    def by_numbers(cls, target: Floats, radius: float, *, price: float, seed: int) -> Painting:
        """Strokes at jittered grid points, in random order, with the colours and directions of `target`."""
        height, width = target.shape[:2]
        generator = np.random.default_rng(seed)
        step = 1.6 * radius
        rows, columns = max(1, round(height / step)), max(1, round(width / step))
        y, x = (axis.ravel() for axis in np.mgrid[:rows, :columns])
        places = np.stack(
            [
                (x + generator.random(len(x))) * width / columns,
                (y + generator.random(len(x))) * height / rows,
            ],
            axis=1,
        )
        places = places[generator.permutation(len(places))]
        vectors, clear = flow(blur(target, 0.5 * radius), max(1.0, radius))
        column, row = places.astype(int).clip(0, (width - 1, height - 1)).T
        records = np.empty((len(places), FIELDS), np.float32)
        records[:, :2] = places
        # Longer where the direction is clear, as Haeberli's strokes are where the gradient is strong.
        records[:, 2] = radius * (1.2 + 2.2 * clear[row, column]) * generator.uniform(0.8, 1.2, len(places))
        records[:, 3] = radius * generator.uniform(0.8, 1.2, len(places))
        records[:, 4] = np.arctan2(vectors[row, column, 1], vectors[row, column, 0])
        records[:, 5:8] = target[row, column]
        records[:, 8] = 1
        ground = floats(target.mean(axis=(0, 1)))
        return cls(target, ground, records, price, radius)

    def render(self) -> Floats:
        """The painting (H, W, 3) as relaxation sees it: flat strokes with round ends."""
        canvas = np.empty_like(self.target)
        height, width = canvas.shape[:2]
        state = _State(self, spare=0)
        render(state.records, state.counts, state.cells, self.ground, 0, height, 0, width, canvas)
        return canvas

    def energy(self) -> float:
        """The squared difference from the target, summed over pixels and channels, plus all prices."""
        difference = ((self.render().astype(np.float64) - self.target) ** 2).sum()
        return float(difference) + self.price * int(self.records[:, 8].sum())

    def strokes(self) -> Strokes:
        """The strokes that are present, as curves with two control points."""
        there = self.records[self.records[:, 8] > 0]
        along = there[:, 2:3] * np.stack([np.cos(there[:, 4]), np.sin(there[:, 4])], axis=1)
        points = np.stack([there[:, :2] - along, there[:, :2] + along], axis=1).reshape(-1, 2)
        starts = (2 * np.arange(len(there) + 1)).astype(np.int32)
        return Strokes(starts, floats(points), floats(there[:, 3]), floats(there[:, 5:8]))

    def relax(self, rounds: int, seed: int) -> Iterator[float]:
        """Improves the strokes and yields the energy after each of `rounds`; it never rises.

        A round tries one change per stroke: move, rotate, resize and recolour it, remove it, or add a smaller
        one nearby on top. Changes that do not lower the energy are undone.
        """
        state = _State(self, spare=len(self.records) * max(rounds, 1) // 3 + 8)
        canvas = np.empty_like(self.target)
        height, width = canvas.shape[:2]
        render(state.records, state.counts, state.cells, self.ground, 0, height, 0, width, canvas)
        generator = np.random.default_rng(seed)
        energy = self.energy()
        for _ in range(rounds):
            order = generator.permutation(state.used)
            chances = generator.random((len(order), 8), dtype=np.float32)
            state.used, gain = one_round(
                state.records,
                state.used,
                order,
                chances,
                state.counts,
                state.cells,
                self.ground,
                self.target,
                canvas,
                float(self.price),
                float(self.unit),
            )
            energy -= gain
            self.records = state.records[: state.used].copy()
            yield energy


class _State:
    """Records with spare rows, and for each grid cell the strokes that touch it."""

    def __init__(self, painting: Painting, spare: int) -> None:
        self.used = len(painting.records)
        self.records = np.zeros((self.used + spare, FIELDS), np.float32)
        self.records[: self.used] = painting.records
        height, width = painting.target.shape[:2]
        rows, columns = -(-height // CELL), -(-width // CELL)
        self.counts = np.zeros((rows, columns), np.int32)
        count(self.records, self.counts)
        self.cells = np.zeros((rows, columns, max(_ROOM, int(self.counts.max()))), np.int32)
        self.counts[:] = 0
        for index in np.flatnonzero(self.records[:, 8]):
            enter(self.records, int(index), self.counts, self.cells)
