"""Hatching: evenly spaced lines along a direction field, with a width that follows the tone.

Lines are evenly spaced streamlines (Jobard & Lefer, "Creating evenly-spaced streamlines of arbitrary
density", 1997), drawn as they are traced. Arrays are float32; tone is 0 for paper and 1 for the darkest.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats, kernel

Floats = npt.NDArray[np.float32]


def turned(vectors: Floats, degrees: float) -> Floats:
    """Directions (H, W, 2), rotated by an angle in degrees."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = vectors[..., 0], vectors[..., 1]
    return floats(np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=2))


def hatch(
    amount: Floats,
    vectors: Floats,
    *,
    spacing: float,
    width: float,
    length: float,
    seed: int,
    taper: float = 0.25,
) -> Floats:
    """Coverage (H, W) of lines along `vectors` (H, W, 2): 1 on a line, 0 between lines.

    Lines are drawn where `amount` (H, W) is above 0, with a width of `width` * `amount` pixels. They are
    about `length` pixels long, taper over the fraction `taper` of it at both ends, and stay `spacing` pixels
    apart.
    """
    height, columns = amount.shape
    step = max(spacing * 0.5, 1.0)
    generator = np.random.default_rng(seed)
    rows, lines = max(1, round(height / step)), max(1, round(columns / step))
    y, x = (axis.ravel() for axis in np.mgrid[:rows, :lines].astype(np.float32))
    jitter = generator.random((2, len(x)), dtype=np.float32)
    starts = floats(np.stack([(x + jitter[0]) * step, (y + jitter[1]) * step], axis=1))
    starts = starts[generator.permutation(len(starts))]
    lengths = generator.uniform(0.5, 1.5, len(starts)).astype(np.float32) * np.float32(length)
    drawn, taken = np.zeros_like(amount), np.zeros(amount.shape, np.uint8)
    _draw(floats(amount), floats(vectors), starts, lengths, float(spacing), float(width), taper, drawn, taken)
    return drawn


@kernel
def _draw(
    amount: Floats,
    vectors: Floats,
    starts: Floats,
    lengths: Floats,
    spacing: float,
    width: float,
    taper: float,
    drawn: Floats,
    taken: npt.NDArray[np.uint8],
) -> None:
    height, columns = amount.shape
    most = int(2 * np.max(lengths)) + 4
    path = np.empty((2 * most, 2), np.float32)
    for index in range(len(starts)):
        x, y = starts[index, 0], starts[index, 1]
        if x > columns - 1 or y > height - 1 or taken[int(y), int(x)] or amount[int(y), int(x)] <= 0:
            continue
        reach = int(lengths[index] / 2)
        back = _trace(amount, vectors, taken, x, y, -1, reach, path, most)
        ahead = _trace(amount, vectors, taken, x, y, 1, reach, path, most)
        count = back + ahead + 1
        path[most, 0], path[most, 1] = x, y
        if count < 1.5 * spacing:
            continue
        for point in range(most - back, most + ahead + 1):
            x, y = path[point, 0], path[point, 1]
            end = min(point - (most - back), most + ahead - point) / (taper * count + 1e-6)
            _dot(drawn, x, y, 0.5 * width * amount[int(y), int(x)] * min(1.0, 0.25 + 0.75 * end))
            _keep_off(taken, x, y, 0.85 * spacing)


@kernel
def _trace(
    amount: Floats,
    vectors: Floats,
    taken: npt.NDArray[np.uint8],
    x: float,
    y: float,
    sign: int,
    reach: int,
    path: Floats,
    middle: int,
) -> int:
    """Traces a streamline from (x, y) in steps of one pixel, and returns the number of steps.

    `sign` is 1 for forwards and -1 for backwards. Points go to `path`, at `middle` + `sign` * step.
    """
    height, columns = amount.shape
    dx, dy = sign * vectors[int(y), int(x), 0], sign * vectors[int(y), int(x), 1]
    for step in range(1, reach + 1):
        x, y = x + dx, y + dy
        if x < 0 or y < 0 or x > columns - 1 or y > height - 1:
            return step - 1
        row, column = int(y), int(x)
        vx, vy = vectors[row, column, 0], vectors[row, column, 1]
        along = vx * dx + vy * dy
        if along < 0:
            vx, vy, along = -vx, -vy, -along
        if taken[row, column] or amount[row, column] <= 0 or along < 0.8:
            return step - 1
        path[middle + sign * step, 0], path[middle + sign * step, 1] = x, y
        dx, dy = vx, vy
    return reach


@kernel
def _dot(drawn: Floats, x: float, y: float, radius: float) -> None:
    height, columns = drawn.shape
    reach = int(radius + 1.5)
    for row in range(max(0, int(y) - reach), min(height, int(y) + reach + 2)):
        for column in range(max(0, int(x) - reach), min(columns, int(x) + reach + 2)):
            distance = math.sqrt((row - y) ** 2 + (column - x) ** 2)
            # A line thinner than a pixel covers only part of it.
            cover = min(1.0, 2 * radius) * min(1.0, max(0.0, max(radius, 0.5) + 0.5 - distance))
            if cover > drawn[row, column]:
                drawn[row, column] = cover


@kernel
def _keep_off(taken: npt.NDArray[np.uint8], x: float, y: float, radius: float) -> None:
    height, columns = taken.shape
    reach = int(radius + 1)
    for row in range(max(0, int(y) - reach), min(height, int(y) + reach + 1)):
        for column in range(max(0, int(x) - reach), min(columns, int(x) + reach + 1)):
            if (row - y) ** 2 + (column - x) ** 2 < radius**2:
                taken[row, column] = 1
