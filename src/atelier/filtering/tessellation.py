"""Tessellations: square tiles that follow the edges of a picture, and panes of one colour.

Arrays are float32, labels int32 (H, W), points (N, 2) as (x, y).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from atelier.filtering.noise import noise
from atelier.filtering.stippling import buckets
from atelier.maths.compiled import floats, kernel

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Tiles:
    """A tessellation: the tile of each pixel, and the position of the pixel inside its tile.

    `labels` (H, W) are tile indices. `position` (H, W, 2) is the offset from the centre of the tile along its
    own axes, in pixels. `gap` (H, W) is how much farther the next tile's centre is: 0 on the border between
    two tiles, and exact near it.
    """

    labels: Integers
    position: Floats
    gap: Floats


def square_tiles(vectors: Floats, avoid: Floats, side: float, *, rounds: int, seed: int) -> Tiles:
    """Tiles of about `side` pixels along `vectors` (H, W, 2), with borders on the edges `avoid` (H, W) 0..1.

    Hausner, "Simulating decorative mosaics", 2001: a centroidal Voronoi diagram with the maximum metric along
    each tile's own axes, after `rounds` iterations. Pixels on edges do not attract centres, so tiles move off
    them.
    """
    height, width = avoid.shape
    generator = np.random.default_rng(seed)
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    y, x = (axis.ravel().astype(np.float32) for axis in np.mgrid[:rows, :columns])
    jitter = generator.uniform(-0.3, 0.3, (2, len(x)))
    points = floats(
        np.stack([(x + 0.5 + jitter[0]) * width / columns, (y + 0.5 + jitter[1]) * height / rows], axis=1)
    )
    weight = floats(1.02 - avoid)
    for _ in range(rounds):
        tiles = _assign(vectors, points, side)
        flat = tiles.labels.ravel()
        total = np.bincount(flat, weight.ravel(), len(points))
        pull = np.stack(
            [np.bincount(flat, (weight * axis).ravel(), len(points)) for axis in _pixels(height, width)],
            axis=1,
        )
        points = floats(np.where(total[:, None] > 0, pull / np.maximum(total, 1e-9)[:, None], points))
    return _assign(vectors, points, side)


def _pixels(height: int, width: int) -> tuple[Floats, Floats]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x, y


def _assign(vectors: Floats, points: Floats, side: float) -> Tiles:
    height, width = vectors.shape[:2]
    column = points[:, 0].astype(int).clip(0, width - 1)
    row = points[:, 1].astype(int).clip(0, height - 1)
    axes = floats(vectors[row, column])
    starts, order = buckets(points, (height, width), side)
    tiles = Tiles(
        np.empty((height, width), np.int32),
        np.empty((height, width, 2), np.float32),
        np.empty((height, width), np.float32),
    )
    _square_cells(points, axes, starts, order, float(side), tiles.labels, tiles.position, tiles.gap)
    return tiles


@kernel
def _square_cells(
    points: Floats,
    axes: Floats,
    starts: Integers,
    order: Integers,
    cell: float,
    labels: Integers,
    position: Floats,
    gap: Floats,
) -> None:
    height, width = labels.shape
    rows, columns = starts.shape[:2]
    for row in range(height):
        for column in range(width):
            best, least, second = -1, np.float32(1e30), np.float32(1e30)
            ring = 1
            while best < 0 or ring == 1:
                r0, c0 = int(row / cell), int(column / cell)
                for r in range(max(0, r0 - ring), min(rows, r0 + ring + 1)):
                    for c in range(max(0, c0 - ring), min(columns, c0 + ring + 1)):
                        for index in range(starts[r, c, 0], starts[r, c, 1]):
                            point = order[index]
                            dx, dy = column - points[point, 0], row - points[point, 1]
                            u = dx * axes[point, 0] + dy * axes[point, 1]
                            v = dy * axes[point, 0] - dx * axes[point, 1]
                            distance = max(abs(u), abs(v))
                            if distance < least:
                                second, least, best = least, distance, point
                                position[row, column, 0], position[row, column, 1] = u, v
                            elif distance < second:
                                second = distance
                ring += 1
            labels[row, column] = best
            gap[row, column] = min(second - least, np.float32(cell))


def panes(image: Floats, side: float, *, smoothness: float, seed: int) -> Integers:
    """Superpixels of about `side` pixels (SLIC, Achanta et al., 2012) with borders as smooth as cut glass.

    Uses manifold SLIC (Liu et al., 2016), whose pieces are smaller where there is more detail. Its initial
    grid remains visible in flat areas, so it runs on a randomly distorted picture. `smoothness` is the radius
    in pixels over which borders are smoothed. Returns labels (H, W).
    """
    height, width = image.shape[:2]
    if min(height, width) < 8 or side < 4:
        rows, columns = np.mgrid[:height, :width] // max(int(side), 1)
        return np.ascontiguousarray(rows * (width + 1) + columns, dtype=np.int32)
    # Half the size is enough, because the borders are smoothed afterwards.
    size = (width // 2, height // 2)
    there, back = _bent(size[1], size[0], side / 2, seed)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bent = cv2.remap(small, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    lab = cv2.cvtColor((bent * 255).round().astype(np.uint8), cv2.COLOR_RGB2LAB)
    slic = cv2.ximgproc.createSuperpixelSLIC(lab, cv2.ximgproc.MSLIC, min(round(side / 2), min(size)), 18.0)
    slic.iterate(8)
    slic.enforceLabelConnectivity(35)
    found = slic.getLabels().astype(np.float32)
    straight = cv2.remap(found, *back, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    whole = cv2.resize(straight, (width, height), interpolation=cv2.INTER_NEAREST)
    labels: Integers = np.ascontiguousarray(whole, dtype=np.int32)
    for _ in range(3):
        labels = _most_common(labels, max(1, round(smoothness)))
    return labels


def _bent(
    height: int, width: int, side: float, seed: int
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Maps (x, y) for `cv2.remap` that distort a picture, and that undo the distortion."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    shifts = [0.4 * side * noise((height, width), 3.2 * side, seed + index) for index in range(2)]
    there = (floats(x + shifts[0]), floats(y + shifts[1]))
    back = [x - shifts[0], y - shifts[1]]
    for _ in range(4):  # fixed-point iteration for the inverse
        found = [
            cv2.remap(
                shift, floats(back[0]), floats(back[1]), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
            for shift in shifts
        ]
        back = [x - found[0], y - found[1]]
    return there, (floats(back[0]), floats(back[1]))


@kernel
def _most_common(labels: Integers, radius: int) -> Integers:
    """The most common label (H, W) in the disc of `radius` pixels around each pixel."""
    height, width = labels.shape
    result = labels.copy()
    counts = np.zeros(labels.max() + 1, np.int32)
    for row in range(height):
        for column in range(width):
            own = labels[row, column]
            top, bottom = max(0, row - radius), min(height - 1, row + radius)
            left, right = max(0, column - radius), min(width - 1, column + radius)
            # Nothing changes deep inside a piece; its corners and edge midpoints are a cheap test.
            if (
                labels[top, left] == own
                and labels[top, right] == own
                and labels[bottom, left] == own
                and labels[bottom, right] == own
                and labels[top, column] == own
                and labels[bottom, column] == own
                and labels[row, left] == own
                and labels[row, right] == own
            ):
                continue
            best, most = own, 0
            for y in range(top, bottom + 1):
                for x in range(left, right + 1):
                    if (y - row) ** 2 + (x - column) ** 2 <= radius * radius:
                        counts[labels[y, x]] += 1
            for y in range(top, bottom + 1):
                for x in range(left, right + 1):
                    label = labels[y, x]
                    if counts[label] > most:
                        best, most = label, counts[label]
            for y in range(top, bottom + 1):
                for x in range(left, right + 1):
                    counts[labels[y, x]] = 0
            result[row, column] = best
    return result


def mean_colours(image: Floats, labels: Integers) -> Floats:
    """The mean colour (N, C) of each label."""
    count = int(labels.max()) + 1
    flat = labels.ravel()
    total = np.maximum(np.bincount(flat, minlength=count), 1)
    means = [
        np.bincount(flat, image[..., channel].ravel(), count) / total for channel in range(image.shape[2])
    ]
    return floats(np.stack(means, axis=1))


def border_distance(labels: Integers) -> Floats:
    """The distance (H, W) in pixels to the nearest border between labels; 0.5 beside a border."""
    border = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    if not border.any():
        return np.full(labels.shape, 1e6, np.float32)
    return floats(cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, 5) + 0.5)
