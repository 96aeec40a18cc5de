"""The inner loops of relaxation: the grid of strokes, rendering of patches, and trials.

The record of a stroke has nine numbers: centre x and y, half length, radius, angle, red, green, blue, and 1
if the stroke is present, else 0. The grid has cells of 16 x 16 pixels: `cells` (R, C, capacity) holds the
indices of the strokes that touch each cell, and `counts` (R, C) their number.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atelier.maths.compiled import kernel

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

FIELDS = 9
CELL = 16


@kernel
def count(records: Floats, counts: Integers) -> None:
    """Adds the number of present strokes that touch each cell to `counts`."""
    for index in range(len(records)):
        if records[index, 8] == 0:
            continue
        left, top, right, bottom = _box(records, index)
        r0, r1 = _span(top, bottom, counts.shape[0])
        c0, c1 = _span(left, right, counts.shape[1])
        for row in range(r0, r1 + 1):
            for column in range(c0, c1 + 1):
                counts[row, column] += 1


@kernel
def _box(records: Floats, index: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a stroke, with a margin of one pixel."""
    x, y, half, radius, angle = (
        records[index, 0],
        records[index, 1],
        records[index, 2],
        records[index, 3],
        records[index, 4],
    )
    wide = abs(half * math.cos(angle)) + radius + 1
    high = abs(half * math.sin(angle)) + radius + 1
    return x - wide, y - high, x + wide, y + high


@kernel
def _span(low: float, high: float, count: int) -> tuple[int, int]:
    first = max(0, math.floor(low / 16))
    return first, min(count - 1, math.floor(high / 16))


@kernel
def _room(records: Floats, index: int, counts: Integers, cells: Integers) -> bool:
    left, top, right, bottom = _box(records, index)
    r0, r1 = _span(top, bottom, counts.shape[0])
    c0, c1 = _span(left, right, counts.shape[1])
    for row in range(r0, r1 + 1):
        for column in range(c0, c1 + 1):
            if counts[row, column] >= cells.shape[2]:
                return False
    return True


@kernel
def enter(records: Floats, index: int, counts: Integers, cells: Integers) -> None:
    left, top, right, bottom = _box(records, index)
    r0, r1 = _span(top, bottom, counts.shape[0])
    c0, c1 = _span(left, right, counts.shape[1])
    for row in range(r0, r1 + 1):
        for column in range(c0, c1 + 1):
            cells[row, column, counts[row, column]] = index
            counts[row, column] += 1


@kernel
def _leave(records: Floats, index: int, counts: Integers, cells: Integers) -> None:
    left, top, right, bottom = _box(records, index)
    r0, r1 = _span(top, bottom, counts.shape[0])
    c0, c1 = _span(left, right, counts.shape[1])
    for row in range(r0, r1 + 1):
        for column in range(c0, c1 + 1):
            for place in range(counts[row, column]):
                if cells[row, column, place] == index:
                    counts[row, column] -= 1
                    cells[row, column, place] = cells[row, column, counts[row, column]]
                    break


@kernel
def render(
    records: Floats,
    counts: Integers,
    cells: Integers,
    ground: Floats,
    top: int,
    bottom: int,
    left: int,
    right: int,
    patch: Floats,
) -> None:
    """Renders rows `top` to `bottom` and columns `left` to `right` into `patch`, topmost stroke first."""
    order = np.empty(cells.shape[2], np.int32)
    way = np.empty((cells.shape[2], 2), np.float32)
    for cell_row in range(top // 16, (bottom - 1) // 16 + 1):
        for cell_column in range(left // 16, (right - 1) // 16 + 1):
            count = counts[cell_row, cell_column]
            order[:count] = -np.sort(-cells[cell_row, cell_column, :count])
            for place in range(count):
                way[place, 0] = math.cos(records[order[place], 4])
                way[place, 1] = math.sin(records[order[place], 4])
            for row in range(max(top, cell_row * 16), min(bottom, cell_row * 16 + 16)):
                for column in range(max(left, cell_column * 16), min(right, cell_column * 16 + 16)):
                    red = green = blue = np.float32(0)
                    open_share = np.float32(1)
                    for place in range(count):
                        index = order[place]
                        dx, dy = column - records[index, 0], row - records[index, 1]
                        half, radius = records[index, 2], records[index, 3]
                        along = dx * way[place, 0] + dy * way[place, 1]
                        along = along - min(half, max(-half, along))
                        aside = dy * way[place, 0] - dx * way[place, 1]
                        square = along * along + aside * aside
                        if square >= (radius + 0.5) ** 2:
                            continue
                        cover = np.float32(min(1.0, radius + 0.5 - math.sqrt(square))) * open_share
                        red += cover * records[index, 5]
                        green += cover * records[index, 6]
                        blue += cover * records[index, 7]
                        open_share -= cover
                        if open_share < 0.002:
                            break
                    patch[row - top, column - left, 0] = red + open_share * ground[0]
                    patch[row - top, column - left, 1] = green + open_share * ground[1]
                    patch[row - top, column - left, 2] = blue + open_share * ground[2]


@kernel
def one_round(
    records: Floats,
    used: int,
    order: npt.NDArray[np.int64],
    chances: Floats,
    counts: Integers,
    cells: Integers,
    ground: Floats,
    target: Floats,
    canvas: Floats,
    price: float,
    unit: float,
) -> tuple[int, float]:
    """Tries one change per stroke of `order`; returns the number of records and the decrease in energy."""
    patch, before, gained = np.empty_like(canvas), np.empty(9, np.float32), 0.0
    for trial in range(len(order)):
        index, chance = order[trial], chances[trial]
        if records[index, 8] == 0:
            continue
        cost = 0.0
        if chance[0] < 0.15:
            cost = -price
        elif chance[0] < 0.4:
            if used == len(records):
                continue
            cost = price
            records[used] = records[index]
            records[used, 8] = 0
            index, used = used, used + 1
        before[:] = records[index]
        _change(records, index, chance, target, unit)
        box = _both(records, index, before, canvas.shape[0], canvas.shape[1])
        after = records[index].copy()
        if not _put(records, index, before, after, counts, cells):
            _put(records, index, after, before, counts, cells)
            continue
        render(records, counts, cells, ground, box[0], box[1], box[2], box[3], patch)
        gain = _gain(patch, canvas, target, box) - cost
        if gain > 0:
            gained += gain
            canvas[box[0] : box[1], box[2] : box[3]] = patch[: box[1] - box[0], : box[3] - box[2]]
        else:
            _put(records, index, after, before, counts, cells)
    return used, gained


@kernel
def _put(records: Floats, index: int, old: Floats, new: Floats, counts: Integers, cells: Integers) -> bool:
    """Replaces `old` by `new`. If a cell is full, only removes `old` and returns False."""
    records[index] = old
    if old[8] > 0:
        _leave(records, index, counts, cells)
    records[index] = new
    if new[8] > 0:
        if not _room(records, index, counts, cells):
            records[index, 8] = 0
            return False
        enter(records, index, counts, cells)
    return True


@kernel
def _change(records: Floats, index: int, chance: Floats, target: Floats, unit: float) -> None:
    """Makes a random change: `chance[0]` selects its kind, the other entries its amounts."""
    stroke = records[index]
    height, width = target.shape[:2]
    if chance[0] < 0.15:
        stroke[8] = 0
        return
    far = 1.0
    if chance[0] < 0.4:  # a new stroke: nearby, smaller, on top
        stroke[8] = 1
        stroke[2] *= 0.5 + 0.5 * chance[6]
        stroke[3] *= 0.45 + 0.45 * chance[7]
        far = 2.5
    stroke[0] = min(max(stroke[0] + far * unit * (2 * chance[1] - 1), 0.0), width - 1.0)
    stroke[1] = min(max(stroke[1] + far * unit * (2 * chance[2] - 1), 0.0), height - 1.0)
    stroke[4] += 0.9 * (2 * chance[3] - 1)
    stroke[2] = min(stroke[2] * (0.75 + 0.55 * chance[4]), 5.0 * unit)
    stroke[3] = min(max(stroke[3] * (0.8 + 0.42 * chance[5]), 0.3 * unit), 1.5 * unit)
    for channel in range(3):
        total = np.float32(0)
        for point in range(-2, 3):
            reach = 0.35 * point * stroke[2]
            row = min(max(int(stroke[1] + reach * math.sin(stroke[4]) + 0.5), 0), height - 1)
            column = min(max(int(stroke[0] + reach * math.cos(stroke[4]) + 0.5), 0), width - 1)
            total += target[row, column, channel]
        stroke[5 + channel] = total / 5


@kernel
def _both(records: Floats, index: int, before: Floats, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the area that a change affects, clipped to the picture."""
    new = _box(records, index)
    after = records[index].copy()
    records[index] = before
    old = _box(records, index)
    records[index] = after
    left, top = min(new[0], old[0]), min(new[1], old[1])
    right, bottom = max(new[2], old[2]), max(new[3], old[3])
    return (
        min(max(int(top), 0), height - 1),
        max(min(int(bottom) + 2, height), 1),
        min(max(int(left), 0), width - 1),
        max(min(int(right) + 2, width), 1),
    )


@kernel
def _gain(patch: Floats, canvas: Floats, target: Floats, box: tuple[int, int, int, int]) -> float:
    """How much smaller the squared difference from the target is for `patch` than for `canvas`."""
    gain = 0.0
    for row in range(box[0], box[1]):
        for column in range(box[2], box[3]):
            for channel in range(3):
                wanted = target[row, column, channel]
                old = canvas[row, column, channel] - wanted
                new = patch[row - box[0], column - box[2], channel] - wanted
                gain += old * old - new * new
    return gain
