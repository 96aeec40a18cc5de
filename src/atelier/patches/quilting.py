"""Quilting: a picture sewn from overlapping square pieces of another, cut where they differ least.

Efros & Freeman, "Image quilting for texture synthesis and transfer", 2001. Pieces are searched for at a
reduced size, at which they have sides of at most 12 pixels; the best few are then refined pixel by pixel at
full size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import floats, kernel
from atelier.patches.template_search import planar, search

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

_SMALL = 12  # side of a block in pixels during the search over the whole style
_POSITIONS = 40_000  # positions of the style that this search compares, at most
_CANDIDATES = 8  # candidates that are refined at full size
_SLACK = 0.5  # candidates may have up to 1 + this times the least error at the reduced size


def cheapest_cut(cost: Floats) -> Integers:
    """The columns (H,) of the path from the first to the last row with the least total `cost` (H, W).

    The path moves by at most one column per row (section 2.1). Of equally cheap paths the leftmost is taken.
    """
    path = np.empty(len(cost), np.int32)
    _cheapest_cut(floats(cost), path)
    return path


@kernel
def _cheapest_cut(cost: Floats, path: Integers) -> None:
    height, width = cost.shape
    total = np.empty((height, width), np.float64)
    total[0] = cost[0]
    for row in range(1, height):
        for column in range(width):
            least = total[row - 1, column]
            for other in (column - 1, column + 1):
                if 0 <= other < width:
                    least = min(least, total[row - 1, other])
            total[row, column] = cost[row, column] + least
    path[height - 1] = np.argmin(total[height - 1])
    for row in range(height - 2, -1, -1):
        best = max(0, path[row + 1] - 1)
        for column in range(best + 1, min(width, path[row + 1] + 2)):
            if total[row, column] < total[row, best]:
                best = column
        path[row] = best


def sewn(old: Floats, new: Floats, left: int, top: int) -> npt.NDArray[np.bool_]:
    """The mask (n, n) of where a block `new` (n, n, 3) covers `old`: right of and below the cheapest cuts.

    The first `left` columns and `top` rows overlap what is already sewn.
    """
    cost = floats(((old - new) ** 2).sum(axis=2))
    mask = np.ones(cost.shape, bool)
    if left:
        cut = cheapest_cut(cost[:, :left])
        mask[:, :left] &= np.arange(left) >= cut[:, None]
    if top:
        cut = cheapest_cut(cost[:top].T)
        mask[:top] &= np.arange(top)[:, None] >= cut
    return mask


class Quilt:
    """Passes of quilting: a picture of the size of `goal` (H, W, G) from pieces of `style` (h, w, 3).

    `guide` (h, w, G) is the map of the style that pieces should match to `goal`. `picture` (H, W, 3) is the
    result of the last pass. Pieces are drawn from those with an error of at most 1 + `tolerance` times the
    least, and blend over `softness` pixels at their cut (0 in the paper). The same seed gives the same
    picture.
    """

    def __init__(
        self,
        style: Floats,
        goal: Floats,
        guide: Floats,
        *,
        tolerance: float,
        softness: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.planes = planar(np.concatenate([style, guide], axis=2))
        self.goal, self.tolerance, self.softness = floats(goal), tolerance, softness
        self.picture: Floats | None = None
        self.generator = np.random.default_rng(seed)

    def sew(self, block: int, *, seams: float, guidance: float) -> Iterator[Floats]:
        """One pass with square pieces of side `block`; yields the picture so far after each row of pieces.

        `seams` is the weight of the mean squared difference from pixels that are already sewn, or from the
        previous pass, and `guidance` that of the squared difference from the guide: alpha and 1 - alpha in
        section 4 of the paper.
        """
        height, width = self.goal.shape[:2]
        pattern = _Pass(self, block, seams, guidance)
        for top in starts(height, block):
            for left in starts(width, block):
                pattern.lay(top, left)
            so_far = pattern.canvas[:height, :width]
            if self.picture is not None:
                unsewn = min(top + block, height)
                so_far = np.concatenate([so_far[:unsewn], self.picture[unsewn:]])
            yield floats(so_far)
        self.picture = floats(pattern.canvas[:height, :width])


def overlap(block: int) -> int:
    """The overlap of adjacent pieces in pixels: a sixth of their side, as in the paper."""
    return max(1, round(block / 6))


def starts(length: int, block: int) -> range:
    """The start positions of pieces that cover a side of `length` pixels; `block` is at least 2."""
    return range(0, max(1, length - overlap(block)), block - overlap(block))


class _Pass:
    """The canvas of one pass, and the style planes that it searches."""

    def __init__(self, quilt: Quilt, block: int, seams: float, guidance: float) -> None:
        self.quilt, self.seams, self.guidance = quilt, seams, guidance
        height, width = quilt.goal.shape[:2]
        self.planes = _at_least(quilt.planes, block)
        self.block, self.overlap = block, overlap(block)
        down, right = (starts(side, block)[-1] + block for side in (height, width))
        border = ((0, down - height), (0, right - width), (0, 0))
        self.canvas: Floats = np.zeros((down, right, 3), np.float32)
        self.before = None if quilt.picture is None else np.pad(quilt.picture, border, mode="edge")
        self.goal = np.pad(quilt.goal, border, mode="edge")
        area = self.planes.shape[1] * self.planes.shape[2]
        self.small = max(3, min(block, _SMALL, int(block / math.sqrt(area / _POSITIONS))))
        self.small = min(self.small, block)
        self.factor = block / self.small
        self.coarse = self._shrunk()

    def _shrunk(self) -> Floats:
        if self.factor == 1:
            return self.planes
        height, width = (max(self.small, round(side / self.factor)) for side in self.planes.shape[1:])
        return floats([_resized(plane, (height, width)) for plane in self.planes])

    def lay(self, top: int, left: int) -> None:
        """Finds a piece for the square at (top, left) and sews it on."""
        here = np.s_[top : top + self.block, left : left + self.block]
        reach = (self.overlap if top else 0, self.overlap if left else 0)
        target, weights = self._wanted(here, *reach)
        row, column = self._found(target, weights)
        size = self.block
        piece = self.planes[:3, row : row + size, column : column + size].transpose(1, 2, 0)
        mask = floats(sewn(self.canvas[here], piece, reach[1], reach[0]))
        mask = _faded(mask, self.quilt.softness, *reach)[..., None]
        self.canvas[here] = mask * piece + (1 - mask) * self.canvas[here]

    def _wanted(self, here: tuple[slice, slice], top: int, left: int) -> tuple[Floats, Floats]:
        """The target (C, n, n) of a piece, and the weight of each of its pixels."""
        colours = self.canvas[here].copy()
        seen = np.zeros((self.block, self.block, 1), np.float32)
        seen[:top], seen[:, :left] = 1, 1
        if self.before is not None:
            colours = np.where(seen > 0, colours, self.before[here])
            seen = np.ones_like(seen)
        goal = self.goal[here]
        target = np.concatenate([colours, goal], axis=2)
        weights = np.concatenate(
            [
                np.repeat(self.seams / 3 * seen, 3, axis=2),
                np.full(goal.shape, self.guidance, np.float32),
            ],
            axis=2,
        )
        return planar(target), planar(weights)

    def _found(self, target: Floats, weights: Floats) -> tuple[int, int]:
        """Row and column of a piece, drawn from the best ones within the tolerance."""
        places = self._candidates(target, weights)
        errors = np.empty(len(places), np.float32)
        reach = math.ceil(self.factor) if self.factor > 1 else 0
        _settle(self.planes, target, weights, reach, places, errors)
        good = np.flatnonzero(errors <= errors.min() * (1 + self.quilt.tolerance))
        row, column = places[good[self.quilt.generator.integers(len(good))]]
        return int(row), int(column)

    def _candidates(self, target: Floats, weights: Floats) -> Integers:
        """The best few positions (K, 2) of the search at the reduced size, in full-size pixels."""
        side = (self.small, self.small)
        share = floats([_resized(plane, side) for plane in weights])
        small = floats([_resized(plane, side) for plane in target * weights])
        small = floats(np.where(share > 1e-9, small / np.maximum(share, 1e-9), 0))
        kept = np.argwhere(share > 1e-6).astype(np.int32)
        # Large weights first, then scattered, so that bad windows are rejected early.
        heavy = share[tuple(kept.T)]
        order = np.lexsort((np.arange(len(kept)) * 7919 % 10007, -heavy))
        kept = np.ascontiguousarray(kept[order])
        values, heavy = small[tuple(kept.T)], heavy[order]
        return self._separated(search(self.coarse, side, kept, values, heavy, _SLACK))

    def _separated(self, errors: Floats) -> Integers:
        """The positions of the least errors, no two of them adjacent, in full-size pixels."""
        bound = errors.min() * (1 + _SLACK)
        near = np.argwhere(errors <= bound)
        if len(near) > 4096:  # in flat pictures all errors are equal
            near = near[np.sort(self.quilt.generator.choice(len(near), 4096, replace=False))]
        near = near[np.argsort(errors[tuple(near.T)], kind="stable")]
        chosen = np.empty((_CANDIDATES, 2), np.int32)
        count = _spread(near.astype(np.int32), chosen)
        limits = np.array(self.planes.shape[1:]) - self.block
        places: Integers = np.rint(chosen[:count] * self.factor).clip(0, limits).astype(np.int32)
        return places


def _faded(mask: Floats, softness: float, top: int, left: int) -> Floats:
    """The mask, softened over `softness` pixels inside the overlap and 1 outside it."""
    if softness <= 0 or not (top or left):
        return mask
    soft = cv2.GaussianBlur(mask, (0, 0), softness / 2, borderType=cv2.BORDER_REPLICATE)
    soft[top:, left:] = 1
    return floats(soft)


@kernel
def _spread(near: Integers, chosen: Integers) -> int:
    """Fill `chosen` (K, 2) with the first places of `near` (N, 2) that do not touch; returns their number."""
    count = 0
    for index in range(len(near)):
        row, column = near[index, 0], near[index, 1]
        touches = False
        for other in range(count):
            if abs(row - chosen[other, 0]) <= 1 and abs(column - chosen[other, 1]) <= 1:
                touches = True
                break
        if not touches:
            chosen[count, 0], chosen[count, 1] = row, column
            count += 1
            if count == len(chosen):
                break
    return count


@kernel
def _settle(
    planes: Floats, target: Floats, weights: Floats, reach: int, places: Integers, errors: Floats
) -> None:
    """Moves each position to the best one within `reach` pixels, and writes its error."""
    channels, size = target.shape[0], target.shape[1]
    for index in range(len(places)):
        row, column = places[index, 0], places[index, 1]
        best = np.float32(np.inf)
        for down in range(max(0, row - reach), min(planes.shape[1] - size, row + reach) + 1):
            for right in range(max(0, column - reach), min(planes.shape[2] - size, column + reach) + 1):
                error = np.float32(0)
                for line in range(size):
                    for channel in range(channels):
                        source = planes[channel, down + line][right : right + size]
                        wanted, weight = target[channel, line], weights[channel, line]
                        part = np.float32(0)
                        for step in range(size):
                            difference = source[step] - wanted[step]
                            part += weight[step] * difference * difference
                        error += part
                    if error > best:
                        break
                if error < best:
                    best = error
                    places[index, 0], places[index, 1] = down, right
        errors[index] = best


def _resized(plane: Floats, size: tuple[int, int]) -> Floats:
    return floats(cv2.resize(floats(plane), (size[1], size[0]), interpolation=cv2.INTER_AREA))


def _at_least(planes: Floats, side: int) -> Floats:
    """Planes (C, H, W), padded by mirroring so that their sides are at least `side`."""
    border = [(0, 0)] + [(0, max(0, side - length)) for length in planes.shape[1:]]
    return floats(np.pad(planes, border, mode="symmetric"))
