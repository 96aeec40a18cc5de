"""Patches that overlap and disagree: which picture they want, most of them.

Kwatra, Essa, Bobick & Kwatra, "Texture optimization for example-based synthesis", 2005: the picture X with
the least sum of |R X - Q|^r over all patches, R cutting out a patch's place and Q what was matched to it,
by iteratively reweighted least squares. With r below 2 a few bad patches are outvoted, not averaged in. All
sums of squares weigh a patch's middle more than its border, so that no squares are seen where patches differ.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats, kernel

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


def corners(size: tuple[int, int], patch: int, gap: int) -> Integers:
    """Top left corners (N, 2) of patches every `gap` pixels that cover a picture of `size`; gap <= patch."""
    rows, columns = (np.unique(np.append(np.arange(0, side - patch, gap), side - patch)) for side in size)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=2)
    return np.ascontiguousarray(grid.reshape(-1, 2), dtype=np.int32)


def robust_vote(
    start: Floats,
    style: Floats,
    places: Integers,
    matches: Integers,
    patch: int,
    *,
    power: float = 0.8,
    iterations: int = 10,
) -> Floats:
    """The picture (H, W, 3) that patches of `style` (h, w, 3) at `matches` (N, 2) make at `places` (N, 2).

    `power` is r; 2 is the plain mean. The places cover the picture, and the weights begin with `start`
    (H, W, 3). No round lets the sum of |R X - Q|^r rise, as long as no patch is nearer than a thousandth.
    """
    picture, weights, window = floats(start), np.ones(len(places), np.float32), fading(patch)
    for _ in range(iterations if power < 2 else 1):
        if power < 2:
            _weigh(picture, style, places, matches, window, power, weights)
        total, count = np.zeros_like(picture), np.zeros(picture.shape[:2], np.float32)
        _spread(style, places, matches, window, weights, total, count)
        picture = floats(total / count[..., None])
    return picture


def fading(patch: int) -> Floats:
    """How much each pixel of a patch counts (patch, patch), 1 in all: Hann's window, never 0."""
    line = np.sin(np.pi * (np.arange(patch) + 0.5) / patch) ** 2
    return floats(np.outer(line, line) / line.sum() ** 2)


@kernel
def _weigh(
    picture: Floats,
    style: Floats,
    places: Integers,
    matches: Integers,
    window: Floats,
    power: float,
    weights: Floats,
) -> None:
    """|R X - Q|^(r - 2) of each patch, by the root of its mean square."""
    patch, channels = len(window), picture.shape[2]
    for index in range(len(places)):
        total = np.float32(0)
        for row in range(patch):
            mine = picture[places[index, 0] + row]
            other = style[matches[index, 0] + row]
            left, right = places[index, 1], matches[index, 1]
            for column in range(patch):
                for channel in range(channels):
                    apart = mine[left + column, channel] - other[right + column, channel]
                    total += window[row, column] * apart * apart
        mean = max(total / channels, 1e-6)
        weights[index] = mean ** ((power - 2) / 2)


@kernel
def _spread(
    style: Floats,
    places: Integers,
    matches: Integers,
    window: Floats,
    weights: Floats,
    total: Floats,
    count: Floats,
) -> None:
    """Lay down all patches with their weights."""
    patch, channels = len(window), style.shape[2]
    for index in range(len(places)):
        top, left = places[index, 0], places[index, 1]
        down, right = matches[index, 0], matches[index, 1]
        for row in range(patch):
            for column in range(patch):
                weight = weights[index] * window[row, column]
                count[top + row, left + column] += weight
                for channel in range(channels):
                    total[top + row, left + column, channel] += (
                        weight * style[down + row, right + column, channel]
                    )
