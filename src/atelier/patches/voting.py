"""Robust voting: the picture that best agrees with overlapping, contradictory patches.

Kwatra, Essa, Bobick & Kwatra, "Texture optimization for example-based synthesis", 2005: the picture X
minimises the sum of |R X - Q|^r over all patches by iteratively reweighted least squares. R extracts the
place of a patch, and Q is the patch matched to it. With r below 2, a few bad patches are outvoted rather than
averaged in. In all sums of squares the middle of a patch has more weight than its border, so block edges stay
invisible.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats, kernel

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


def corners(size: tuple[int, int], patch: int, gap: int) -> Integers:
    """Top left corners (N, 2) of patches, `gap` <= `patch` pixels apart, that cover a picture of `size`."""
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
    """The picture (H, W, 3) from patches of `style` (h, w, 3) at `matches` (N, 2), laid at `places` (N, 2).

    `power` is r; 2 gives the plain weighted mean. The places must cover the picture. The first weights come
    from `start` (H, W, 3). The sum of |R X - Q|^r never rises between iterations, unless the root mean square
    difference of a patch falls below 0.001.
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
    """The weights (patch, patch) of a patch's pixels: a Hann window that sums to 1 and is nowhere 0."""
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
    """Writes the weight |R X - Q|^(r - 2) of each patch, from its root mean square difference."""
    patch, channels = len(window), picture.shape[2]
    for index in range(len(places)):
        total = np.float32(0)
        for row in range(patch):
            mine = picture[places[index, 0] + row]
            other = style[matches[index, 0] + row]
            left, right = places[index, 1], matches[index, 1]
            for column in range(patch):
                for channel in range(channels):
                    difference = mine[left + column, channel] - other[right + column, channel]
                    total += window[row, column] * difference * difference
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
    """Accumulates all patches with their weights."""
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
