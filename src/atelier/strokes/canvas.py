"""Brush strokes, curves with a width and a colour, and the canvas they are painted on.

A stroke is a uniform cubic B-spline with two or more control points, which starts at the first and ends at
the last one. A single point is a dab. Coordinates are (x, y) in pixels, with pixel centres at whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atelier.filtering.noise import lit, noise
from atelier.maths.compiled import floats, kernel

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

_TIP = 256  # side of the bristle texture in pixels


@dataclass(frozen=True, eq=False)
class Strokes:
    """N strokes in painting order.

    Stroke i has the control points `points[starts[i]:starts[i + 1]]` (M, 2), the radius `radii[i]` in pixels
    and the sRGB colour `colours[i]` (3,). `starts` has N + 1 entries.
    """

    starts: Integers
    points: Floats
    radii: Floats
    colours: Floats

    def __len__(self) -> int:
        return len(self.radii)

    @classmethod
    def joined(cls, parts: Sequence[Strokes]) -> Strokes:
        """Concatenates the strokes of all parts, in order."""
        starts, offset = [np.zeros(1, np.int32)], 0
        for part in parts:
            starts.append(part.starts[1:] + np.int32(offset))
            offset += len(part.points)
        return cls(
            np.concatenate(starts).astype(np.int32),
            floats(np.concatenate([np.zeros((0, 2), np.float32), *(part.points for part in parts)])),
            floats(np.concatenate([np.zeros(0, np.float32), *(part.radii for part in parts)])),
            floats(np.concatenate([np.zeros((0, 3), np.float32), *(part.colours for part in parts)])),
        )

    def part(self, first: int, last: int) -> Strokes:
        """Strokes `first` to `last`, exclusive."""
        begin, end = self.starts[first], self.starts[last]
        return Strokes(
            (self.starts[first : last + 1] - begin).astype(np.int32),
            self.points[begin:end],
            self.radii[first:last],
            self.colours[first:last],
        )


class Canvas:
    """The painting so far: its `colour` (H, W, 3) in sRGB and the `height` (H, W) of the paint.

    `size` is (height, width) and `ground` the colour (3,) to start from. `opacity` 0..1 applies to every
    stroke. `texture` 0..1 is the strength of the bristle marks, which `seed` determines.
    """

    def __init__(
        self, size: tuple[int, int], ground: Floats, *, opacity: float, texture: float, seed: int
    ) -> None:
        self.colour = np.empty((*size, 3), np.float32)
        self.colour[:] = ground
        self.height = np.zeros(size, np.float32)
        self.opacity, self.texture, self.seed = opacity, texture, seed
        self.painted = 0
        tip = noise((_TIP, _TIP), 2.0, seed) + 0.7 * noise((_TIP, _TIP), 9.0, seed + 1)
        self._tip = floats((0.5 + 0.28 * tip).clip(0, 1))
        self._near = np.empty((3, *size), np.float32)
        self._owner = np.full(size, -1, np.int32)

    def paint(self, strokes: Strokes) -> None:
        """Paints the strokes on top, in order."""
        if not len(strokes):
            return
        _paint(
            strokes.starts,
            strokes.points,
            strokes.radii,
            strokes.colours,
            float(self.opacity),
            float(self.texture),
            self.painted,
            self._tip,
            self._near,
            self._owner,
            self.colour,
            self.height,
        )
        self.painted += len(strokes)

    def picture(self, impasto: float) -> Floats:
        """The canvas (H, W, 3), lit from the upper left; with `impasto` 0 only its colour."""
        if impasto <= 0:
            return self.colour.clip(0, 1)
        shade = lit(self.height, strength=impasto)
        # Highlights brighten less than shadows darken, and gloss is white.
        gloss = 0.35 * np.maximum(0, shade - 1)[..., None]
        return floats((self.colour * shade[..., None] * (1 - gloss) + gloss).clip(0, 1))


def bezier(points: Floats) -> Floats:
    """The S cubic Bézier curves (S, 4, 2) of a stroke with control points (S + 1, 2)."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = (padded[index : index + len(points) - 1] for index in range(4))
    return floats(
        np.stack([(a + 4 * b + c) / 6, (2 * b + c) / 3, (b + 2 * c) / 3, (b + 4 * c + d) / 6], axis=1)
    )


@kernel
def _flattened(points: Floats, radius: float, line: Floats) -> int:
    """Writes the spline as a polyline (x, y, arc length) to `line` and returns its number of points."""
    count = len(points)
    line[0, 0], line[0, 1], line[0, 2] = points[0, 0], points[0, 1], 0
    if count == 1:
        return 1
    used, last = 1, len(line) - 1
    for segment in range(count - 1):
        x1, y1, x2, y2 = (
            points[segment, 0],
            points[segment, 1],
            points[segment + 1, 0],
            points[segment + 1, 1],
        )
        if segment > 0:
            x0, y0 = points[segment - 1, 0], points[segment - 1, 1]
        else:
            x0, y0 = 2 * x1 - x2, 2 * y1 - y2
        if segment < count - 2:
            x3, y3 = points[segment + 2, 0], points[segment + 2, 1]
        else:
            x3, y3 = 2 * x2 - x1, 2 * y2 - y1
        length = math.sqrt((x2 - x1) ** 2 + (y2 - y1) ** 2)
        pieces = 1 if count == 2 else max(2, min(8, int(length / 4) + 1))
        for piece in range(1, pieces + 1):
            t = piece / pieces
            a, b = (1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6
            c, d = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6
            x, y = a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3
            if used > last:
                return used
            step = math.sqrt((x - line[used - 1, 0]) ** 2 + (y - line[used - 1, 1]) ** 2)
            line[used, 0], line[used, 1], line[used, 2] = x, y, line[used - 1, 2] + step
            used += 1
    return used


@kernel
def _paint(
    starts: Integers,
    points: Floats,
    radii: Floats,
    colours: Floats,
    opacity: float,
    texture: float,
    painted: int,
    tip: Floats,
    near: Floats,
    owner: Integers,
    colour: Floats,
    height: Floats,
) -> None:
    line = np.empty((512, 3), np.float32)
    for index in range(len(radii)):
        radius, mark = radii[index], painted + index
        used = _flattened(points[starts[index] : starts[index + 1]], radius, line)
        box = _measure(line, used, radius, mark, near, owner)
        length = line[used - 1, 2]
        # Each stroke starts at a different place in the bristle texture.
        shift_u, shift_v = (mark * 73) % 251, (mark * 151) % 241
        red, green, blue = colours[index, 0], colours[index, 1], colours[index, 2]
        for row in range(box[0], box[1]):
            for column in range(box[2], box[3]):
                if owner[row, column] != mark:
                    continue
                distance, u, v = near[0, row, column], near[1, row, column], near[2, row, column]
                ti = int(v / radius * 20 + 64) + shift_v
                tj = int(u / radius * 2.5 + 64) + shift_u
                bristle = tip[tj % 256, ti % 256]
                # The brush runs dry towards the end of the stroke, and its rim is ragged.
                dry = texture * (0.25 + 0.6 * max(0.0, u / (length + 2 * radius)) ** 2)
                reach = radius * (1 - 0.3 * texture * (1 - bristle))
                cover = min(1.0, max(0.0, reach + 0.5 - distance))
                cover *= min(1.0, max(0.0, 1 - 2.2 * dry * (0.9 - 1.25 * bristle)))
                share = np.float32(opacity * cover)
                colour[row, column, 0] += share * (red - colour[row, column, 0])
                colour[row, column, 1] += share * (green - colour[row, column, 1])
                colour[row, column, 2] += share * (blue - colour[row, column, 2])
                rim = min(1.0, distance / max(radius, 1e-6))
                ridge = (0.45 + 0.9 * bristle) * (1 - rim * rim * rim * rim) * min(radius, 6.0) * 0.5
                height[row, column] += share * (ridge + 0.12 * height[row, column] - height[row, column])


@kernel
def _measure(
    line: Floats, used: int, radius: float, mark: int, near: Floats, owner: Integers
) -> tuple[int, int, int, int]:
    """Fills `near` for all pixels that the brush reaches and returns their box (top, bottom, left, right).

    `near` (3, H, W) is the distance to the line, the position along it, and the signed offset across it.
    `owner` (H, W) is set to `mark` for these pixels.
    """
    rows, columns = owner.shape
    box = (rows, 0, columns, 0)
    reach = radius + 1
    for piece in range(max(1, used - 1)):
        x0, y0 = line[piece, 0], line[piece, 1]
        x1, y1 = (line[piece + 1, 0], line[piece + 1, 1]) if used > 1 else (x0, y0)
        dx, dy = x1 - x0, y1 - y0
        square = dx * dx + dy * dy
        length = math.sqrt(square)
        top, bottom = max(0, int(min(y0, y1) - reach)), min(rows, int(max(y0, y1) + reach) + 2)
        left, right = max(0, int(min(x0, x1) - reach)), min(columns, int(max(x0, x1) + reach) + 2)
        box = (min(box[0], top), max(box[1], bottom), min(box[2], left), max(box[3], right))
        for row in range(top, bottom):
            for column in range(left, right):
                px, py = column - x0, row - y0
                t = (px * dx + py * dy) / square if square > 1e-12 else 0.0
                inside = min(1.0, max(0.0, t))
                ex, ey = px - inside * dx, py - inside * dy
                distance = math.sqrt(ex * ex + ey * ey)
                if distance > reach or (owner[row, column] == mark and distance >= near[0, row, column]):
                    continue
                owner[row, column] = mark
                near[0, row, column] = distance
                if square > 1e-12:
                    near[1, row, column] = line[piece, 2] + t * length
                    near[2, row, column] = (dx * py - dy * px) / length
                else:
                    near[1, row, column], near[2, row, column] = px, py
    return box
