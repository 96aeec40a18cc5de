"""Shared by all looks: their settings, tone, and ink on paper.

Pictures are float32 (H, W, 3) sRGB in 0..1; lightness is CIELAB L* divided by 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from atelier.colour.cielab import from_lab, lightness, to_lab
from atelier.filtering.noise import paper
from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]
Inks = Literal["own", "black", "colour"]

WHITE = (0.975, 0.965, 0.94)  # paper
BLACK = (0.09, 0.085, 0.10)  # ink


@dataclass(frozen=True)
class Hand:
    """Settings of a look.

    `unit` scales all lengths, in pixels: 1 for a picture with a long side of 1024 pixels at coarseness 1.
    `lines` scales the strength of lines and `surface` that of paper and canvas texture. `inks` are the
    look's own, black, or the colours of the picture.
    """

    unit: float = 1.0
    lines: float = 1.0
    surface: float = 1.0
    inks: Inks = "own"
    seed: int = 0


def contrast(image: Floats) -> Floats:
    """Lightness (H, W) 0..1, darkened for saturated colours so that red stands out from pink."""
    return floats(0.6 * lightness(image) + 0.4 * image.min(axis=2))


def tone(image: Floats) -> Floats:
    """`contrast` with automatic exposure: stretched to the full range, its median moved towards 0.58."""
    light = contrast(image)
    low, high = np.percentile(light[::3, ::3], (0.5, 99.8))
    light = ((light - low) / max(high - low, 0.05)).clip(0, 1)
    middle = float(np.median(light[::3, ::3]).clip(0.1, 0.9))
    # The exponent 0.5 moves the median only half the way to 0.58.
    gamma = (np.log(0.58) / np.log(middle)) ** 0.5
    return floats(light**gamma)


def vivid(image: Floats, chroma: float) -> Floats:
    """The picture with its chroma multiplied by `chroma`, less where it is already strong."""
    lab = to_lab(image)
    strength = np.hypot(lab[..., 1], lab[..., 2])[..., None]
    lab[..., 1:] *= 1 + (chroma - 1) * np.exp(-strength / 60)
    return from_lab(lab)


def on_paper(ink: Floats, hand: Hand, image: Floats, *, colour: tuple[float, float, float] = BLACK) -> Floats:
    """A drawing from an ink map (H, W), 0 for ink and 1 for paper, in `colour` or the picture's colours."""
    sheet = np.asarray(WHITE, np.float32) + np.zeros((*ink.shape, 1), np.float32)
    if hand.surface > 0:
        grain = paper(ink.shape, hand.unit, hand.seed + 101)
        sheet = sheet * (1 + np.float32(0.012 * hand.surface) * grain[..., None])
    pigment = np.asarray(colour, np.float32) if hand.inks != "colour" else deep(image)
    return floats((pigment + (sheet - pigment) * ink[..., None]).clip(0, 1))


def deep(image: Floats) -> Floats:
    """The picture's colours as inks: dark and saturated, because the paper provides the light tones."""
    lab = to_lab(floats(cv2.bilateralFilter(image, 5, 0.1, 3)))
    lab[..., 0] = 12 + 0.45 * lab[..., 0]
    lab[..., 1:] *= 1.35
    return from_lab(lab)
