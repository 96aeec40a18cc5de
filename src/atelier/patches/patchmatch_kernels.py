"""The inner loops of PatchMatch, compiled by numba on the first call; see `patchmatch`.

A sweep is one function, so that the compiler can optimise it as a whole.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from atelier.maths import compiled_cache

# numba has no type information and imports slowly, so it is imported by name and only here.
numba: Any = importlib.import_module("numba")

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The compiled function; it releases the GIL and may reorder sums."""
    kernel: F = numba.njit(nogil=True, fastmath=True)(function)
    compiled_cache.keep(kernel)
    return kernel


@compiled
def distance(
    query: Any, key: Any, row: int, column: int, down: int, right: int, size: int, limit: float
) -> Any:
    """The sum of squared differences of two patches (size, size, C); it stops above `limit`."""
    total = np.float32(0.0)
    channels = query.shape[2]
    for line in range(size):
        first, second = query[row + line], key[down + line]
        part = np.float32(0.0)
        for step in range(size):
            a, b = first[column + step], second[right + step]
            for channel in range(channels):
                apart = a[channel] - b[channel]
                part += apart * apart
        total += part
        if total > limit:
            break
    return total


@compiled
def measure(query: Any, key: Any, field: Any, best: Any, size: int) -> None:
    """Writes the distance between each patch and its match in the field to `best`."""
    for row in range(field.shape[0]):
        for column in range(field.shape[1]):
            best[row, column] = distance(
                query, key, row, column, field[row, column, 0], field[row, column, 1], size, np.inf
            )


@compiled
def sweep(
    query: Any, key: Any, field: Any, best: Any, size: int, radius: int, backward: bool, state: Any
) -> Any:
    """One pass over all positions: propagate the neighbours' matches, then search at random."""
    height, width = field.shape[:2]
    lowest, rightmost = key.shape[0] - size, key.shape[1] - size
    step = -1 if backward else 1
    random = np.uint64(state)
    for turn in range(height * width):
        at = height * width - 1 - turn if backward else turn
        row, column = at // width, at % width
        down, right, near = field[row, column, 0], field[row, column, 1], best[row, column]
        for side in range(2):
            up, left = row - step * side, column - step * (1 - side)
            if 0 <= up < height and 0 <= left < width:
                y = min(max(field[up, left, 0] + step * side, 0), lowest)
                x = min(max(field[up, left, 1] + step * (1 - side), 0), rightmost)
                if y != down or x != right:
                    found = distance(query, key, row, column, y, x, size, near)
                    if found < near:
                        down, right, near = y, x, found
        reach = radius
        while reach >= 1:
            # xorshift64 gives the same numbers on every machine.
            random ^= random << np.uint64(13)
            random ^= random >> np.uint64(7)
            random ^= random << np.uint64(17)
            span = 2 * reach + 1
            y = down - reach + np.int64((random >> np.uint64(33)) % np.uint64(span))
            x = right - reach + np.int64((random & np.uint64(0x7FFFFFFF)) % np.uint64(span))
            y, x = min(max(y, 0), lowest), min(max(x, 0), rightmost)
            if y != down or x != right:
                found = distance(query, key, row, column, y, x, size, near)
                if found < near:
                    down, right, near = y, x, found
            reach //= 2
        field[row, column, 0], field[row, column, 1], best[row, column] = down, right, near
    return random
