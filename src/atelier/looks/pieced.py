"""Looks assembled from pieces: stained glass and mosaic.

Pictures are float32 (H, W, 3) sRGB in 0..1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atelier.colour.cielab import from_lab, lightness, to_lab
from atelier.filtering import noise as grain
from atelier.filtering.kuwahara import kuwahara
from atelier.filtering.structure_tensor import blur, flow
from atelier.filtering.tessellation import border_distance, mean_colours, panes, square_tiles
from atelier.looks.base import Hand, vivid
from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]


def stained_glass(image: Floats, hand: Hand) -> Floats:
    """Panes of glowing glass set in lead."""
    unit, size = hand.unit, image.shape[:2]
    labels = panes(
        kuwahara(image, max(1, round(6 * unit))),
        33 * unit,
        smoothness=5.5 * unit,
        seed=hand.seed,
    )
    lab = mean_colours(to_lab(vivid(image, 2.0)), labels)
    lab[:, 0] = 16 + 0.95 * lab[:, 0]
    glass = from_lab(lab[labels])
    streaks = grain.noise(size, 40 * unit, hand.seed + 71, octaves=4)
    bubbles = grain.noise(size, 5 * unit, hand.seed + 72, octaves=2)
    distance = border_distance(labels)
    glow = 1 + 0.07 * streaks + 0.03 * bubbles + 0.12 * (1 - np.exp(-distance / (9 * unit))) - 0.05
    glass = glass * glow[..., None]
    if hand.lines <= 0:
        return floats(glass.clip(0, 1))
    lead = 2.9 * unit * hand.lines
    cover = (lead + 0.5 - distance).clip(0, 1)[..., None]
    # Lead came has a round profile, so its middle catches the light.
    bulge = np.sqrt(np.maximum(0, 1 - (distance / max(lead, 0.5)).clip(0, 1) ** 2))
    shine = grain.lit(floats(bulge * lead), strength=0.5)
    metal = np.asarray((0.13, 0.135, 0.15), np.float32) * (0.5 + 0.9 * shine[..., None])
    return floats((glass * (1 - cover) + metal * cover).clip(0, 1))


def mosaic(image: Floats, hand: Hand) -> Floats:
    """Square stones in rows along the edges of the picture, with grout between them."""
    unit = hand.unit
    side = max(13.0 * unit, 4.0)
    soft = blur(image, 2.5 * unit)
    vectors, _ = flow(soft, 8 * unit)
    slope = np.hypot(*np.gradient(lightness(soft))) if min(image.shape[:2]) > 1 else np.zeros(image.shape[:2])
    tiles = square_tiles(vectors, floats((slope * 14 * unit).clip(0, 1)), side, rounds=10, seed=hand.seed)
    lab = mean_colours(to_lab(vivid(image, 1.35)), tiles.labels)
    generator = np.random.default_rng(hand.seed + 81)
    lab[:, 0] += generator.normal(0, 3.4, len(lab))
    lab[:, 1:] += generator.normal(0, 2.8, (len(lab), 2))
    stone = from_lab(floats(lab)[tiles.labels])
    tilt = generator.normal(0, 0.05, (len(lab), 2))[tiles.labels]
    inside = tiles.position / np.float32(side / 2)
    stone = stone * (1 + (tilt * inside).sum(axis=2, keepdims=True))
    stone = stone * (1 + 0.035 * grain.noise(image.shape[:2], 4 * unit, hand.seed + 82, octaves=2)[..., None])
    grout = 1.3 * unit * max(hand.lines, 0)
    depth = np.minimum(tiles.gap - grout, 1.25 * side - 2 * np.abs(tiles.position).max(axis=2))
    cover = (depth + 0.5).clip(0, 1)[..., None]
    bevel = grain.lit(floats(2.0 * unit * (depth / (2.5 * unit)).clip(0, 1)), strength=0.35)
    mortar = np.asarray((0.66, 0.63, 0.58), np.float32) * (
        0.86 + 0.05 * grain.noise(image.shape[:2], 2.0, hand.seed + 83)[..., None]
    )
    if hand.lines <= 0:
        return floats(stone.clip(0, 1))
    return floats((stone * bevel[..., None] * cover + mortar * (1 - cover)).clip(0, 1))
