"""The inner loops of image analogies, compiled by numba; see `analogy`.

Maps are flattened to rows (H, W * C). The maps of the example are padded by half a window, so its windows
start at their own position. Parts of a window outside the picture are not compared.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import kernel

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int32]


@kernel
def _window_distance(
    picture: Floats,
    example: Floats,
    weights: Floats,
    width: int,
    row: int,
    column: int,
    down: int,
    right: int,
    limit: float,
) -> float:
    """The weighted squared difference of the windows around two positions; it stops above `limit`."""
    size = weights.shape[0]
    reach, channels = size // 2, picture.shape[1] // width
    left = max(column - reach, 0) * channels
    count = (min(column + reach + 1, width)) * channels - left
    skip = left - (column - reach) * channels
    there = right * channels + skip
    total = np.float32(0)
    for step in range(max(0, reach - row), min(size, picture.shape[0] - row + reach)):
        mine, other, weight = picture[row + step - reach], example[down + step], weights[step]
        for index in range(count):
            difference = mine[left + index] - other[there + index]
            total += weight[skip + index] * difference * difference
        if total > limit:
            break
    return float(total)


@kernel
def _total_distance(
    fine: tuple[Floats, Floats, Floats],
    coarse: tuple[Floats, Floats, Floats],
    width: int,
    row: int,
    column: int,
    down: int,
    right: int,
    limit: float,
) -> float:
    """The sum of the distances at the fine and coarse level, each given as (picture, example, weights)."""
    found = _window_distance(fine[0], fine[1], fine[2], width, row, column, down, right, limit)
    if found > limit:
        return found
    half, rest = (width + 1) // 2, limit - found
    at, there = (row // 2, column // 2), (down // 2, right // 2)
    return found + _window_distance(
        coarse[0], coarse[1], coarse[2], half, at[0], at[1], there[0], there[1], rest
    )


@kernel
def choose(
    picture: Floats,
    example: Floats,
    weights: Floats,
    coarse_picture: Floats,
    coarse_example: Floats,
    coarse_weights: Floats,
    plain: int,
    places: Places,
    approximate: Places,
    offsets: Places,
    slack: float,
    field: Places,
) -> None:
    """Chooses the approximate or a coherent match for each of `places`, in order, and copies its pixel.

    Writes `field` (H, W, 2) and the filtered channels of `picture`, which start at `plain`.
    """
    height, width = field.shape[:2]
    fine = (picture, example, weights)
    coarse = (coarse_picture, coarse_example, coarse_weights)
    channels = picture.shape[1] // width
    reach = weights.shape[0] // 2
    limits = (example.shape[0] - 2 * reach, example.shape[1] // channels - 2 * reach)
    for turn in range(places.shape[0]):
        row, column = places[turn, 0], places[turn, 1]
        down, right = approximate[turn, 0], approximate[turn, 1]
        least = _total_distance(fine, coarse, width, row, column, down, right, np.inf)
        # A coherent match below this limit wins, even if the approximate one is nearer.
        limit = least * slack
        last_down = last_right = -1
        for index in range(offsets.shape[0]):
            up, left = row + offsets[index, 0], column + offsets[index, 1]
            if up < 0 or left < 0 or up >= height or left >= width:
                continue
            y, x = field[up, left, 0] - offsets[index, 0], field[up, left, 1] - offsets[index, 1]
            if y < 0 or x < 0 or y >= limits[0] or x >= limits[1] or (y == last_down and x == last_right):
                continue
            last_down, last_right = y, x
            found = _total_distance(fine, coarse, width, row, column, y, x, limit)
            if found <= limit:
                limit, down, right = found, y, x
        field[row, column, 0], field[row, column, 1] = down, right
        mine, other = column * channels, (right + reach) * channels
        for channel in range(plain, channels):
            picture[row, mine + channel] = example[down + reach, other + channel]


@kernel
def gather(values: Floats, width: int, roots: Floats, places: Places, vectors: Floats, first: int) -> None:
    """Writes the windows around `places` to rows of `vectors`, from column `first`, scaled by `roots`.

    `roots` are square roots of the window weights. Windows that leave the map repeat its border.
    """
    height, channels, size = values.shape[0], values.shape[1] // width, roots.shape[0]
    reach = size // 2
    for turn in range(places.shape[0]):
        at = first
        for step in range(size):
            row = min(max(places[turn, 0] + step - reach, 0), height - 1)
            for aside in range(size):
                column = min(max(places[turn, 1] + aside - reach, 0), width - 1)
                for channel in range(channels):
                    root = roots[step, aside * channels + channel]
                    if root > 0:
                        vectors[turn, at] = root * values[row, column * channels + channel]
                        at += 1
