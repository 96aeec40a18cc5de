"""Strokes as SVG: each stroke is a path with round ends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from atelier.strokes.canvas import Strokes, bezier

Floats = npt.NDArray[np.float32]


def to_svg(strokes: Strokes, size: tuple[int, int], ground: Floats, opacity: float) -> str:
    """The text of an SVG file with a painting of `size` (height, width) on a `ground` colour (3,).

    Curves are the cubic Béziers of the strokes, rounded to tenths of a pixel. Bristle marks and lighting
    exist only on the canvas and are left out.
    """
    return "\n".join(_lines(strokes, size, ground, opacity)) + "\n"


def _lines(strokes: Strokes, size: tuple[int, int], ground: Floats, opacity: float) -> Iterator[str]:
    height, width = size
    yield (
        # Pixel centres are at whole numbers, so the picture starts at -0.5.
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="-0.5 -0.5 {width} {height}">'
    )
    yield f'<rect x="-0.5" y="-0.5" width="{width}" height="{height}" fill="{_hexadecimal(ground)}"/>'
    yield f'<g fill="none" stroke-linecap="round" stroke-linejoin="round" stroke-opacity="{opacity:g}">'
    for index in range(len(strokes)):
        path = _path(strokes.points[strokes.starts[index] : strokes.starts[index + 1]])
        colour, wide = _hexadecimal(strokes.colours[index]), f"{2 * strokes.radii[index]:.2f}"
        yield f'<path d="{path}" stroke="{colour}" stroke-width="{wide}"/>'
    yield "</g>"
    yield "</svg>"


def _path(points: Floats) -> str:
    tenths = np.rint(points[:1] * 10).astype(int)[0]
    start = f"M{_tenth(tenths[0])} {_tenth(tenths[1])}"
    if len(points) == 1:
        return start + "h.01"
    if len(points) == 2:
        end = np.rint(points[1] * 10).astype(int)
        return f"{start}L{_tenth(end[0])} {_tenth(end[1])}"
    curves = np.rint(bezier(points) * 10).astype(int)
    pairs = curves[:, 1:].reshape(-1, 2)
    return start + "C" + " ".join(f"{_tenth(x)} {_tenth(y)}" for x, y in pairs)


def _tenth(value: int) -> str:
    whole, part = divmod(abs(int(value)), 10)
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"


def _hexadecimal(colour: Floats) -> str:
    red, green, blue = (int(channel) for channel in np.rint(colour.clip(0, 1) * 255))
    return f"#{red:02x}{green:02x}{blue:02x}"
