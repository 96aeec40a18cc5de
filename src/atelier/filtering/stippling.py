"""Stippling: dots with the density of the tone, spread evenly by weighted Voronoi cells.

Secord, "Weighted Voronoi stippling", 2002. Points are float32 (N, 2) as (x, y), in pixels.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats, kernel

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


def stipple(density: Floats, *, rounds: int, seed: int) -> Floats:
    """Points (N, 2) with a density of `density` (H, W) points per pixel, at most 1.

    Error diffusion places them; then each of `rounds` moves them to the centroids of their Voronoi cells
    (Lloyd). The weight is the square of the density, because Lloyd's algorithm converges to a density that is
    the square root of the weight.
    """
    points = _scatter(density, seed)
    if not len(points):
        return points
    weight = floats(density**2)
    for _ in range(rounds):
        points = _centres(weight, points)
    return points


def draw_dots(size: tuple[int, int], points: Floats, radii: Floats) -> Floats:
    """Coverage (H, W) of discs centred on `points` (N, 2), with `radii` (N,) in pixels."""
    drawn = np.zeros(size, np.float32)
    _discs(floats(points), floats(radii), drawn)
    return drawn


def _scatter(density: Floats, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    chance = generator.random(density.shape, dtype=np.float32)
    rows, columns = np.nonzero(_diffuse(floats(density), chance))
    jitter = generator.random((len(rows), 2), dtype=np.float32) - 0.5
    return floats(np.stack([columns, rows], axis=1) + jitter).clip(
        0, np.array(density.shape[::-1], np.float32) - 1
    )


def _centres(weight: Floats, points: Floats) -> Floats:
    """The weighted centroids (N, 2) of the points' Voronoi cells; a cell without weight keeps its point."""
    cell = max(1.0, math.sqrt(weight.size / len(points)))
    starts, order = buckets(points, weight.shape, cell)
    sums = np.zeros((len(points), 3), np.float64)
    _gather(weight, points, starts, order, cell, sums)
    total = sums[:, 2:]
    return floats(np.where(total > 0, sums[:, :2] / np.maximum(total, 1e-30), points))


def buckets(points: Floats, size: tuple[int, ...], cell: float) -> tuple[Integers, Integers]:
    """Sorts points into grid cells: cell (r, c) holds `order[slice(*starts[r, c])]`.

    `starts` is (R, C, 2) and `order` (N,); cells have sides of `cell` pixels.
    """
    rows, columns = int(size[0] / cell) + 1, int(size[1] / cell) + 1
    row = (points[:, 1] / cell).astype(np.int64).clip(0, rows - 1)
    column = (points[:, 0] / cell).astype(np.int64).clip(0, columns - 1)
    which = row * columns + column
    order = np.argsort(which, kind="stable").astype(np.int32)
    edges = np.searchsorted(which[order], np.arange(rows * columns + 1)).astype(np.int32)
    starts = np.stack([edges[:-1], edges[1:]], axis=1).reshape(rows, columns, 2)
    return np.ascontiguousarray(starts), order


@kernel
def _diffuse(density: Floats, chance: Floats) -> npt.NDArray[np.uint8]:
    """Floyd-Steinberg error diffusion with serpentine scanning and a jittered threshold."""
    height, width = density.shape
    error = density.copy()
    dots = np.zeros((height, width), np.uint8)
    for row in range(height):
        sign = 1 - 2 * (row % 2)
        column = 0 if sign == 1 else width - 1
        for _ in range(width):
            value = error[row, column]
            if value > 0.5 + 0.6 * (chance[row, column] - 0.5):
                dots[row, column] = 1
                value -= 1
            if 0 <= column + sign < width:
                error[row, column + sign] += value * 7 / 16
            if row + 1 < height:
                error[row + 1, column] += value * 5 / 16
                if 0 <= column - sign < width:
                    error[row + 1, column - sign] += value * 3 / 16
                if 0 <= column + sign < width:
                    error[row + 1, column + sign] += value / 16
            column += sign
    return dots


@kernel
def _gather(
    weight: Floats,
    points: Floats,
    starts: Integers,
    order: Integers,
    cell: float,
    sums: npt.NDArray[np.float64],
) -> None:
    height, width = weight.shape
    for row in range(height):
        for column in range(width):
            share = weight[row, column]
            if share <= 0:
                continue
            near = _nearest(points, starts, order, cell, column, row)
            sums[near, 0] += share * column
            sums[near, 1] += share * row
            sums[near, 2] += share


@kernel
def _nearest(points: Floats, starts: Integers, order: Integers, cell: float, x: float, y: float) -> int:
    """The index of the point nearest to (x, y); searches rings of cells until none can hold a nearer one."""
    rows, columns = starts.shape[:2]
    row, column = min(int(y / cell), rows - 1), min(int(x / cell), columns - 1)
    best, least = -1, np.float32(1e30)
    for ring in range(max(rows, columns)):
        if best >= 0 and ((ring - 1) * cell) ** 2 > least:
            break
        for r in range(max(0, row - ring), min(rows, row + ring + 1)):
            edge = abs(r - row) == ring
            for c in range(column - ring, column + ring + 1, 1 if edge else max(1, 2 * ring)):
                if c < 0 or c >= columns:
                    continue
                for index in range(starts[r, c, 0], starts[r, c, 1]):
                    point = order[index]
                    dx, dy = points[point, 0] - np.float32(x), points[point, 1] - np.float32(y)
                    distance = dx * dx + dy * dy
                    if distance < least:
                        best, least = point, distance
    return best


@kernel
def _discs(points: Floats, radii: Floats, drawn: Floats) -> None:
    height, width = drawn.shape
    for index in range(len(points)):
        x, y, radius = points[index, 0], points[index, 1], radii[index]
        reach = int(radius + 1.5)
        for row in range(max(0, int(y) - reach), min(height, int(y) + reach + 2)):
            for column in range(max(0, int(x) - reach), min(width, int(x) + reach + 2)):
                distance = math.sqrt((row - y) ** 2 + (column - x) ** 2)
                cover = min(1.0, max(0.0, radius + 0.5 - distance))
                drawn[row, column] = max(drawn[row, column], cover)
