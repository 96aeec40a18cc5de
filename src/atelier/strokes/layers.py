"""Painting in layers, from coarse to fine brushes, with curved strokes along the edges.

Hertzmann, "Painterly rendering with curved brush strokes of multiple sizes", 1998. Unlike the paper, which
uses the gradient at one point, stroke directions come from the smoothed structure tensor, so strokes stay
steady across areas without a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from atelier.filtering.structure_tensor import blur, flow
from atelier.maths.compiled import floats, kernel
from atelier.strokes.canvas import Canvas, Strokes

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Manner:
    """The style parameters of the paper (section 3, "Rendering styles"), with its symbols.

    `radii` apply to a picture with a long side of 512 pixels. The paper does not define the width of a jitter
    of 1; here colours change by up to a quarter of the range. `body`, the thickness of the paint, is not in
    the paper.
    """

    threshold: float  # T, a colour difference in 0..255
    radii: tuple[float, ...]  # R, coarse to fine
    curvature: float  # f_c
    blur: float  # f_sigma
    opacity: float  # alpha
    grid: float  # f_g
    shortest: int  # minLength, in control points
    longest: int  # maxLength
    hue: float = 0.0  # j_h
    value: float = 0.0  # j_v
    red_green_blue: float = 0.0  # j_r = j_g = j_b
    body: float = 1.0


MANNERS = {
    "impressionist": Manner(100, (8, 4, 2), 1.0, 0.5, 1.0, 1.0, 4, 16),
    "expressionist": Manner(50, (8, 4, 2), 0.25, 0.5, 0.7, 1.0, 10, 16, value=0.5),
    "wash": Manner(200, (8, 4, 2), 1.0, 0.5, 0.5, 1.0, 4, 16, red_green_blue=0.3, body=0.25),
    "pointillist": Manner(100, (4, 2), 1.0, 0.5, 1.0, 0.5, 0, 0, hue=0.3, value=1.0, body=0.6),
}


def layers(
    source: Floats, canvas: Canvas, manner: Manner, radii: tuple[float, ...], seed: int
) -> Iterator[Strokes]:
    """Yields the strokes of each layer for the picture `source` (H, W, 3).

    The caller paints each layer on `canvas` before it requests the next one. `radii` are the brush radii in
    pixels, one per layer. The first layer covers the whole canvas.
    """
    generator = np.random.default_rng(seed)
    for index, radius in enumerate(radii):
        reference = blur(source, manner.blur * radius)
        vectors, _ = flow(reference, max(1.0, 0.75 * radius))
        difference = 255 * np.sqrt(((canvas.colour - reference) ** 2).sum(axis=2))
        if index == 0:
            difference = np.full_like(difference, 1e3)
        starts = _worst_places(difference, max(1, round(manner.grid * radius)), manner.threshold)
        starts = starts[generator.permutation(len(starts))]
        strokes = _traced(reference, canvas.colour, vectors, starts, radius, manner)
        yield _jittered(strokes, manner, generator)


def _worst_places(difference: Floats, step: int, threshold: float) -> Floats:
    """The worst pixel (N, 2), as (x, y), of each grid square whose mean difference exceeds `threshold`.

    Squares have sides of `step` pixels.
    """
    height, width = difference.shape
    rows, columns = -(-height // step), -(-width // step)
    padded = np.full((rows * step, columns * step), -1.0, np.float32)
    padded[:height, :width] = difference
    squares = padded.reshape(rows, step, columns, step).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    inside = squares >= 0
    mean = np.where(inside, squares, 0).sum(axis=2) / inside.sum(axis=2)
    # Where all pixels are equal, as in the first layer, take the middle, not the corner.
    centre = (step // 2) * step + step // 2
    worst = np.where(squares[..., centre] >= squares.max(axis=2), centre, squares.argmax(axis=2))
    row, column = np.nonzero(mean > threshold)
    place = worst[row, column]
    return floats(np.stack([column * step + place % step, row * step + place // step], axis=1))


def _traced(
    reference: Floats, painted: Floats, vectors: Floats, starts: Floats, radius: float, manner: Manner
) -> Strokes:
    most = max(manner.longest, 1)
    points = np.empty((len(starts), most, 2), np.float32)
    counts = np.zeros(len(starts), np.int32)
    colours = np.empty((len(starts), 3), np.float32)
    _trace(
        reference,
        floats(painted),
        vectors,
        starts,
        float(radius),
        float(manner.curvature),
        manner.shortest,
        points,
        counts,
        colours,
    )
    kept = np.arange(most) < counts[:, None]
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return Strokes(ends, floats(points[kept]), np.full(len(starts), radius, np.float32), colours)


@kernel
def _trace(
    reference: Floats,
    painted: Floats,
    vectors: Floats,
    starts: Floats,
    radius: float,
    curvature: float,
    shortest: int,
    points: Floats,
    counts: npt.NDArray[np.int32],
    colours: Floats,
) -> None:
    height, width = reference.shape[:2]
    for index in range(len(starts)):
        x, y = starts[index, 0], starts[index, 1]
        row, column = int(y), int(x)
        points[index, 0, 0], points[index, 0, 1] = x, y
        for channel in range(3):
            colours[index, channel] = reference[row, column, channel]
        last_x = last_y = np.float32(0)
        count = 1
        while count < points.shape[1]:
            if count > shortest:
                to_painted = to_stroke = np.float32(0)
                for channel in range(3):
                    wanted = reference[row, column, channel]
                    to_painted += (wanted - painted[row, column, channel]) ** 2
                    to_stroke += (wanted - colours[index, channel]) ** 2
                if to_painted < to_stroke:
                    break
            dx, dy = vectors[row, column, 0], vectors[row, column, 1]
            if last_x * dx + last_y * dy < 0:
                dx, dy = -dx, -dy
            dx, dy = curvature * dx + (1 - curvature) * last_x, curvature * dy + (1 - curvature) * last_y
            size = math.sqrt(dx * dx + dy * dy)
            if size < 1e-6:
                break
            last_x, last_y = np.float32(dx / size), np.float32(dy / size)
            x, y = x + np.float32(radius) * last_x, y + np.float32(radius) * last_y
            row, column = int(y + np.float32(0.5)), int(x + np.float32(0.5))
            if x < 0 or y < 0 or row >= height or column >= width:
                break
            points[index, count, 0], points[index, count, 1] = x, y
            count += 1
        counts[index] = count


def _jittered(strokes: Strokes, manner: Manner, generator: np.random.Generator) -> Strokes:
    """The strokes with random changes to their colours, as the manner defines them."""
    colours = strokes.colours.copy()
    if manner.hue or manner.value:
        hsv = cv2.cvtColor(colours[None], cv2.COLOR_RGB2HSV)[0] if len(colours) else colours
        change = generator.uniform(-0.25, 0.25, (2, len(colours)))
        hsv[:, 0] = (hsv[:, 0] + 360 * manner.hue * change[0]) % 360
        hsv[:, 2] = (hsv[:, 2] + manner.value * change[1]).clip(0, 1)
        colours = cv2.cvtColor(floats(hsv)[None], cv2.COLOR_HSV2RGB)[0] if len(colours) else colours
    if manner.red_green_blue:
        colours = colours + np.float32(manner.red_green_blue) * floats(
            generator.uniform(-0.25, 0.25, colours.shape)
        )
    return Strokes(strokes.starts, strokes.points, strokes.radii, floats(colours).clip(0, 1))
