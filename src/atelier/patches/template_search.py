"""Template search: how much a template with holes differs from every window of a picture.

A template is a list of terms, each one value at one place of the window with a weight, so that any shape of
known pixels, several channels and several aims go into one sum of squares. Whole rows of windows are summed
at once, and given up as soon as none of them can be near the best any more.
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
    """Sum of weight * (value - pixel)^2 over the terms, for each `window` (h, w) of `planes` (C, H, W).

    `places` (N, 3) holds each term's channel, row and column inside the window. The errors (H - h + 1,
    W - w + 1) are exact wherever they are at most 1 + `slack` times the least; others may be infinite. Terms
    of great weight come best first.
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
    """`search` for rows `top` to `bottom` of `errors`, with the first `count` terms.

    `limit` is an error that some window is known to stay below.
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
                apart = source[column] - value
                line[column] += weight * apart * apart
            if term % 12 == 11 or term == count - 1:
                least = line[0]
                for column in range(width):
                    least = min(least, line[column])
                # A little above, since other orders of summing round otherwise.
                if least > best * np.float32(1.0001 + slack) + np.float32(1e-12):
                    line[:] = np.float32(np.inf)
                    break
                if term == count - 1:
                    best = min(best, least)


@kernel
def drawn(errors: Floats, slack: float, chance: float) -> tuple[int, int]:
    """Row and column of one of the errors that are at most 1 + `slack` times the least.

    `chance`, from 0 to below 1, says which of them, in the order of the rows.
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
    """(H, W, C) as planes (C, H, W)."""
    return floats(image.transpose(2, 0, 1))
