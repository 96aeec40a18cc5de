"""Procedural surfaces: smooth noise, paper, canvas. The same seed gives the same surface.

Sizes are (height, width), `scale` is in pixels, and everything is float32 (H, W).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from atelier.filtering.structure_tensor import blur
from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]


def noise(size: tuple[int, int], scale: float, seed: int, *, octaves: int = 1) -> Floats:
    """Smooth noise with mean 0 and standard deviation 1; its largest bumps are about `scale` pixels wide.

    Each further octave has half the width and half the amplitude of the previous one.
    """
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        step = max(scale / 2**octave, 1.0)
        generator = np.random.default_rng((seed, octave))
        grid = [int(np.ceil(side / step)) + 3 for side in size]
        hills = generator.standard_normal(grid, dtype=np.float32)
        wide = cv2.resize(
            hills, (round(grid[1] * step), round(grid[0] * step)), interpolation=cv2.INTER_CUBIC
        )
        top, left = (int(step * generator.random()) for _ in range(2))
        total += wide[top : top + size[0], left : left + size[1]] * np.float32(0.5**octave)
    total -= total.mean()
    return total / np.float32(max(float(total.std()), 1e-6))


def paper(size: tuple[int, int], unit: float, seed: int) -> Floats:
    """The height of cold-pressed paper, with mean 0 and deviation about 1: bumps a few pixels wide."""
    bumps = noise(size, 4.5 * unit, seed, octaves=2)
    fibres = blur(noise(size, 1.0, seed + 1), 0.5 * unit)
    return floats(np.tanh(0.8 * bumps) + 0.6 * fibres / max(float(fibres.std()), 1e-6))


def canvas(size: tuple[int, int], unit: float, seed: int) -> Floats:
    """The height of a linen weave with uneven threads, with mean 0 and standard deviation about 1."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    pitch = max(4.0 * unit, 3.0)
    x = x + 0.5 * unit * noise(size, 24 * unit, seed)
    y = y + 0.5 * unit * noise(size, 24 * unit, seed + 1)
    across, down = np.sin(2 * np.pi * x / pitch), np.sin(2 * np.pi * y / pitch)
    # Warp and weft alternate on top.
    over = np.sin(np.pi * x / pitch) * np.sin(np.pi * y / pitch)
    weave = 0.5 * (across + down) + 0.6 * over
    return floats(weave / 0.65)


def lit(height: Floats, *, strength: float, angle: float = 135.0) -> Floats:
    """Shading (H, W) of a surface: 1 where it is flat, more on slopes that face the light at `angle`.

    `angle` is in degrees, 90 for up. `height` (H, W) is in pixels, so a slope of 1 is 45 degrees.
    """
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125, borderType=cv2.BORDER_REPLICATE)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125, borderType=cv2.BORDER_REPLICATE)
    towards = np.cos(np.radians(angle)) * slope_x - np.sin(np.radians(angle)) * slope_y
    # A surface that faces the light falls towards it.
    return floats(1 - strength * np.tanh(towards))
