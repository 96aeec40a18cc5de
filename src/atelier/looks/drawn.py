"""Line looks: XDoG, flow lines, pencil, cross-hatching.

Pictures are float32 (H, W, 3) sRGB in 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from atelier.filtering import noise as grain
from atelier.filtering.hatching import hatch, turned
from atelier.filtering.structure_tensor import blur, directions, flow, smooth_along, structure_tensor
from atelier.filtering.xdog import flow_lines, xdog
from atelier.looks.base import Hand, contrast, on_paper, tone
from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]


def brush_drawing(image: Floats, hand: Hand) -> Floats:
    """XDoG: dark areas are filled with ink, edges are drawn, and the rest is paper."""
    light = floats(cv2.bilateralFilter(tone(image), 0, 0.11, 2.5 * hand.unit))
    light = floats(cv2.ximgproc.guidedFilter(light, light, max(1, round(5 * hand.unit)), 1e-3))
    vectors, _ = flow(blur(image, hand.unit), 2.5 * hand.unit)
    level = float(np.percentile(light[::3, ::3], 30).clip(0.3, 0.6))
    ink = xdog(light, vectors, 1.3 * hand.unit, strength=36 * hand.lines, level=level, slope=20, noise=0.002)
    # Adds faint edges in light areas, which the threshold misses.
    ink = np.minimum(ink, _contours(image, hand, 1.2))
    return on_paper(ink, hand, image)


def line_drawing(image: Floats, hand: Hand) -> Floats:
    """Only lines: the flow-based difference of Gaussians of coherent line drawing."""
    return on_paper(_contours(image, hand, 1.2), hand, image)


def _contours(image: Floats, hand: Hand, width: float) -> Floats:
    calm = floats(cv2.bilateralFilter(contrast(image), 0, 0.08, 2.5 * hand.unit))
    vectors, _ = flow(blur(image, 1.2 * hand.unit), 2.5 * hand.unit)
    return flow_lines(calm, vectors, width * hand.unit, weight=1.4 * hand.lines)


def pencil(image: Floats, hand: Hand) -> Floats:
    """Graphite: soft outlines, shading strokes that cross in dark areas, and paper grain.

    After Mao, Nagasaka & Imamiya, "Automatic generation of pencil drawing from 2D images using line
    integral convolution", 2001.
    """
    unit, size = hand.unit, image.shape[:2]
    dark = 1 - tone(image)
    shading = 0.9 * ((blur(floats(dark), 0.8 * unit) - 0.06) / 0.94).clip(0, 1) ** 1.25
    grain_height = grain.paper(size, 0.6 * unit, hand.seed + 41)
    vectors = _shading_directions(image, hand)
    strokes = _streaks(size, vectors, hand, 42)
    crossing = _streaks(size, turned(vectors, 55), hand, 43)
    deep = ((shading - 0.4) / 0.4).clip(0, 1)
    texture = 0.34 * strokes + 0.30 * deep * crossing + 0.20 * hand.surface * grain_height
    deposit = shading * (1 + texture)
    lines = 1 - _contours(image, hand, 0.9)
    deposit = 1 - (1 - deposit.clip(0, 0.93)) * (
        1 - 0.75 * lines * (1 + 0.25 * grain_height).clip(0, 1.2)
    ).clip(0, 1)
    return on_paper(floats(1 - deposit.clip(0, 1)), hand, image, colour=(0.17, 0.17, 0.19))


def _shading_directions(image: Floats, hand: Hand) -> Floats:
    """Directions (H, W, 2) of the shading strokes: along clear edges, else from lower left to upper right."""
    tensor = structure_tensor(blur(image, 2 * hand.unit), 8 * hand.unit)
    own = np.array([0.5, 0.48, 0.5], np.float32) * np.float32(2.5e-4)
    return directions(floats(tensor + own))[0]


def _streaks(size: tuple[int, int], vectors: Floats, hand: Hand, seed: int) -> Floats:
    """Pencil marks (H, W) along `vectors`, with mean 0 and standard deviation 1."""
    marks = grain.noise(size, max(1.3 * hand.unit, 1.0), hand.seed + seed)
    streaks = smooth_along(marks, vectors, 9 * hand.unit)
    return floats(streaks / max(float(streaks.std()), 1e-6))


#: Families of lines: angle to the edges in degrees, darkness where lines start and reach full width, width.
_FAMILIES = ((0, 0.18, 0.62, 2.5), (68, 0.42, 0.85, 2.7), (34, 0.62, 0.93, 3.0), (-34, 0.75, 1.0, 3.2))


def cross_hatching(image: Floats, hand: Hand) -> Floats:
    """Pen and ink: up to four families of lines at fixed angles to the edges, each for darker tones."""
    unit = hand.unit
    dark = blur(floats(1 - tone(image)), 1.0 * unit) ** 1.1
    vectors = _shading_directions(image, hand)
    ink = 1 - _contours(image, hand, 1.1)
    for index, (angle, start, full, width) in enumerate(_FAMILIES):
        amount = ((dark - start) / (full - start)).clip(0, 1)
        amount = np.where(amount > 0, 0.35 + 0.65 * amount, 0)
        lines = hatch(
            floats(amount),
            turned(vectors, angle),
            spacing=max(4.6 * unit, 2.0),
            width=width * unit,
            length=70 * unit,
            seed=hand.seed + index,
        )
        ink = np.maximum(ink, lines)
    return on_paper(floats(1 - ink), hand, image)
