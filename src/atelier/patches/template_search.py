"""Template search: the weighted squared difference between a template with holes and every window.

A template is a list of terms, each a value at one position of the window with a weight. So one sum of squares
can cover any shape of known pixels and several channels. Windows are processed one row at a time, and a row
is abandoned as soon as none of its windows can be close to the best.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats, in_bands, kernel

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

#: Below this many products, starting threads takes longer than the search.
_SMALL = 1 << 21


def search(
    planes: Floats,
    window: tuple[int, int],
    places: Integers,
    values: Floats,
    weights: Floats,
    slack: float,
) -> Floats:
    """The sum of weight * (value - pixel)^2 over the terms, for each `window` (h, w) of `planes` (C, H, W).

    `places` (N, 3) holds the channel, row and column of each term inside the window; `values` and `weights`
    are (N,). The errors (H - h + 1, W - w + 1) are exact if they are at most 1 + `slack` times the least;
    others may be infinite. The search is fastest if terms with large weights come first.
    """
    errors = np.empty((planes.shape[1] - window[0] + 1, planes.shape[2] - window[1] + 1), np.float32)
    given = (planes, places, values, weights, len(values), slack, math.inf, errors)
    if errors.size * len(values) < _SMALL:
        differences(*given, 0, len(errors))
    else:
        in_bands(differences, len(errors), *given)
    return errors


@kernel
def differences(
    planes: Floats,
    places: Integers,
    values: Floats,
    weights: Floats,
    count: int,
    slack: float,
    limit: float,
    errors: Floats,
    top: int,
    bottom: int,
) -> None:
    """Computes rows `top` to `bottom` of `errors` for `search`, with the first `count` terms.

    `limit` is an upper bound on the least error.
    """
    width = errors.shape[1]
    best = np.float32(limit)
    for row in range(top, bottom):
        line = errors[row]
        line[:] = np.float32(0)
        for term in range(count):
            value, weight, shift = values[term], weights[term], places[term, 2]
            source = planes[places[term, 0], row + places[term, 1]][shift : shift + width]
            for column in range(width):
                difference = source[column] - value
                line[column] += weight * difference * difference
            if term % 12 == 11 or term == count - 1:
                least = line[0]
                for column in range(width):
                    least = min(least, line[column])
                # A small margin, because rounding depends on the order of summation.
                if least > best * np.float32(1.0001 + slack) + np.float32(1e-12):
                    line[:] = np.float32(np.inf)
                    break
                if term == count - 1:
                    best = min(best, least)


@kernel
def drawn(errors: Floats, slack: float, chance: float) -> tuple[int, int]:
    """Row and column of one of the errors that are at most 1 + `slack` times the least.

    `chance`, in 0..1 (exclusive), selects among them in row-major order.
    """
    least = np.float32(np.inf)
    for row in range(errors.shape[0]):
        for column in range(errors.shape[1]):
            least = min(least, errors[row, column])
    bound = least * np.float32(1 + slack)
    count = 0
    for row in range(errors.shape[0]):
        for column in range(errors.shape[1]):
            count += errors[row, column] <= bound
    left = int(chance * count)
    for row in range(errors.shape[0]):
        for column in range(errors.shape[1]):
            if errors[row, column] <= bound:
                if left == 0:
                    return row, column
                left -= 1
    return 0, 0


def planar(image: Floats) -> Floats:
    """An image (H, W, C) as planes (C, H, W)."""
    return floats(image.transpose(2, 0, 1))
