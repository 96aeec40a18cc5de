"""Print looks: halftone, stipple, linocut.

Pictures are float32 (H, W, 3) sRGB in 0..1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atelier.colour.cielab import from_lab, to_lab
from atelier.colour.palette import nearest, palette
from atelier.filtering import noise as grain
from atelier.filtering.hatching import hatch
from atelier.filtering.stippling import draw_dots, stipple
from atelier.filtering.structure_tensor import blur, flow
from atelier.filtering.xdog import xdog
from atelier.looks.base import BLACK, WHITE, Hand, on_paper, tone, vivid
from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]

#: Screen angle in degrees and colour on white paper of each ink.
_PRESS = {
    "cyan": (15.0, (0.05, 0.62, 0.86)),
    "magenta": (75.0, (0.87, 0.09, 0.51)),
    "yellow": (0.0, (1.0, 0.90, 0.08)),
    "black": (45.0, BLACK),
}


def halftone(image: Floats, hand: Hand) -> Floats:
    """A screen of dots for each ink, as in newspapers and comics.

    Coverage is computed from sRGB values, not from linear light. Most programs average sRGB values when they
    shrink a picture, so the result keeps the tone of the photo at any zoom.
    """
    pitch = max(6.5 * hand.unit, 3.0)
    if hand.inks == "black":
        light = tone(image)
        return on_paper(1 - _screen(1 - light, pitch, 45.0), hand, image)
    sheet = np.asarray(WHITE, np.float32) + np.zeros_like(image)
    for amount, (angle, colour) in zip(_separations(image), _PRESS.values(), strict=True):
        dots = _screen(amount, pitch, angle)[..., None]
        sheet *= 1 - dots * (1 - np.asarray(colour, np.float32))
    if hand.surface > 0:
        sheet *= (
            1
            + np.float32(0.012 * hand.surface) * grain.paper(image.shape[:2], hand.unit, hand.seed)[..., None]
        )
    return floats(sheet.clip(0, 1))


def _separations(image: Floats) -> tuple[Floats, ...]:
    """Coverage (H, W) of cyan, magenta, yellow and black; black ink takes over part of the dark tones."""
    # The masking equations of colour printing: how much of R, G and B each ink absorbs, inverted.
    taken = np.array([[1 - part for part in _PRESS[name][1]] for name in ("cyan", "magenta", "yellow")])
    taken = taken.astype(np.float32)
    back = np.linalg.inv(taken)
    wanted = vivid(image, 1.2)
    black = 0.8 * (1 - wanted.max(axis=2)) ** 1.4
    rest = (wanted / (1 - 0.91 * black[..., None])).clip(0, 1)
    amounts = ((1 - rest) @ back).clip(0, 1)
    for _ in range(3):  # dots overlap at random, so transmittances multiply (Demichel)
        seen = np.prod([1 - amounts[..., ink, None] * taken[ink] for ink in range(3)], axis=0)
        amounts = (amounts + (seen - rest) @ back).clip(0, 1)
    return tuple(floats(ink) for ink in (*np.moveaxis(amounts, 2, 0), black))


def _screen(amount: Floats, pitch: float, angle: float) -> Floats:
    """Coverage (H, W) of round dots, `pitch` pixels apart, that ink the fraction `amount` of the paper.

    `angle` is in degrees.
    """
    height, width = amount.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    u, v = (x * cosine + y * sine) / pitch, (y * cosine - x * sine) / pitch
    spot = 0.5 * (np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v))
    levels = _levels()
    wanted = np.interp(blur(amount, 0.22 * pitch), np.linspace(0, 1, len(levels)), levels)
    # The spot function changes by at most about pi / pitch per pixel, so edges are about one pixel soft.
    edge = (0.5 + (spot - wanted) * pitch / 3.6).clip(0, 1)
    return floats(edge)


def _levels() -> npt.NDArray[np.float64]:
    """Thresholds (257,) of the spot function: the area above entry i is the fraction i / 256."""
    phase = 2 * np.pi * (np.arange(256) + 0.5) / 256
    heights = np.sort(0.5 * (np.cos(phase)[:, None] + np.cos(phase)), axis=None)[::-1]
    levels: npt.NDArray[np.float64] = np.interp(
        np.linspace(0, 1, 257), np.linspace(0, 1, heights.size), heights
    )
    levels[0], levels[-1] = 1.25, -1.25
    return levels


def stippling(image: Floats, hand: Hand) -> Floats:
    """Ink dots placed by weighted Voronoi cells, larger in dark areas."""
    unit = hand.unit
    dark = (1.06 * (1 - tone(image)) ** 1.3 - 0.03).clip(0, 0.94)
    radius = np.maximum((1.25 + 0.75 * dark) * unit, 0.6)
    # Discs overlap: placed at random, an area density of -log(1 - dark) covers the fraction `dark`.
    covered = 0.65 * dark + 0.35 * -np.log(1 - dark)
    points = stipple(floats((covered / (math.pi * radius**2)).clip(0, 1)), rounds=12, seed=hand.seed)
    place = points.round().astype(int)
    radii = radius[place[:, 1], place[:, 0]] if len(points) else np.zeros(0, np.float32)
    jitter = np.random.default_rng(hand.seed + 1).uniform(0.85, 1.15, len(points))
    return on_paper(1 - draw_dots(image.shape[:2], points, floats(radii * jitter)), hand, image)


def linocut(image: Floats, hand: Hand) -> Floats:
    """A block print: white cut from black, with gouge marks along the edges in the midtones."""
    unit, size = hand.unit, image.shape[:2]
    light = tone(image)
    vectors, _ = flow(blur(image, 2 * unit), 5 * unit)
    low, high = (float(level) for level in np.percentile(light[::3, ::3], (22, 62)).clip(0.25, 0.8))
    key = xdog(light, vectors, 1.8 * unit, strength=12 * hand.lines, level=high, slope=14)
    middle = ((blur(light, 1.5 * unit) - low) / max(high - low, 0.05)).clip(0, 1)
    cuts = hatch(
        floats(np.where(middle > 0.08, 0.3 + 0.7 * middle, 0)),
        vectors,
        spacing=max(5.5 * unit, 2.5),
        width=3.6 * unit,
        length=42 * unit,
        seed=hand.seed,
        taper=0.5,
    )
    white = np.maximum(key, cuts)
    return _printed(floats(white), image, hand, size)


def _printed(white: Floats, image: Floats, hand: Hand, size: tuple[int, int]) -> Floats:
    """Ink from a roller: hard edges, and specks of paper in black areas."""
    hard = ((blur(white, 0.5 * hand.unit) - 0.5) * 3.5 + 0.5).clip(0, 1)
    salt = grain.noise(size, 3 * hand.unit, hand.seed + 61, octaves=2)
    salt += 0.8 * grain.noise(size, 120 * hand.unit, hand.seed + 62)
    specks = ((salt - 2.5) * 2).clip(0, 1) * min(hand.surface, 1.5)
    hard = np.maximum(hard, 0.8 * specks)
    if hand.inks != "colour":
        return on_paper(floats(hard), hand, image)
    lab = to_lab(vivid(image, 1.6))
    lab[..., 0] = 35 + 0.65 * lab[..., 0]
    lab = blur(lab, 2.5 * hand.unit)
    colours = palette(lab, 6, hand.seed)
    ground = blur(from_lab(colours[nearest(lab.reshape(-1, 3), colours)].reshape(lab.shape)), 0.6)
    return floats(ground * hard[..., None] + np.asarray(BLACK, np.float32) * (1 - hard[..., None]))
