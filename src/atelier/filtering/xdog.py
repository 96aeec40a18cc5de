"""Line drawing by differences of Gaussians: XDoG, and the flow-based variant of coherent line drawing.

Winnemöller, Kyprianidis & Olsen, "XDoG: an extended difference-of-Gaussians compendium", 2012;
Kang, Lee & Chui, "Coherent line drawing", 2007. Lightness is float32 (H, W) in 0..1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from atelier.filtering.structure_tensor import blur, smooth_along
from atelier.maths.compiled import floats, in_bands, kernel

Floats = npt.NDArray[np.float32]

_RATIO = 1.6  # wide to narrow sigma: the best approximation of a Laplacian


def blurred_twice(lightness: Floats, sigma: float, vectors: Floats | None = None) -> tuple[Floats, Floats]:
    """Blurs by `sigma` and 1.6 `sigma` pixels; with `vectors` (H, W, 2), only perpendicular to them."""
    if vectors is None:
        return blur(lightness, sigma), blur(lightness, _RATIO * sigma)
    narrow, wide = np.empty_like(lightness), np.empty_like(lightness)
    arguments = (floats(lightness), floats(vectors), float(sigma), _RATIO * sigma, narrow, wide)
    in_bands(_across, lightness.shape[0], *arguments)
    return narrow, wide


def soft_threshold(values: Floats, level: float, slope: float) -> Floats:
    """1 above `level`, and 1 + tanh(slope (value - level)) below it (eq. 5 of XDoG)."""
    return floats(np.where(values >= level, 1, 1 + np.tanh(slope * (values - level))))


def xdog(
    lightness: Floats,
    vectors: Floats,
    sigma: float,
    *,
    strength: float = 16.0,
    level: float = 0.5,
    slope: float = 12.0,
    along: float = 3.0,
    noise: float = 0.0,
) -> Floats:
    """XDoG (H, W), 0 for ink and 1 for paper: (1 + p) G(sigma) - p G(1.6 sigma) (eq. 7), thresholded.

    `strength` is p, the sharpening of edges. The result is smoothed along `vectors` (H, W, 2), and values
    below `level` become ink. Differences of the Gaussians up to `noise` count as 0, so flat surfaces are not
    sharpened.
    """
    narrow, wide = blurred_twice(lightness, sigma, vectors)
    edges = narrow - wide
    edges = np.sign(edges) * np.maximum(np.abs(edges) - np.float32(noise), 0)
    sharp = smooth_along(narrow + np.float32(strength) * edges, vectors, along * sigma)
    return soft_threshold(sharp, level, slope)


def flow_lines(
    lightness: Floats, vectors: Floats, sigma: float, *, weight: float = 1.0, along: float = 3.5
) -> Floats:
    """Lines (H, W) regardless of tone, 0 for ink and 1 for paper; a larger `weight` draws fainter edges too.

    H = G(sigma) - rho G(1.6 sigma), integrated along the flow (Kang, eqs. 6 to 9).
    """
    narrow, wide = blurred_twice(lightness, sigma, vectors)
    response = smooth_along(narrow - wide, vectors, along * sigma)
    return soft_threshold(response, -0.004 / max(weight, 1e-3), 110 * weight)


@kernel
def _across(
    lightness: Floats,
    vectors: Floats,
    sigma: float,
    wide: float,
    narrow_result: Floats,
    wide_result: Floats,
    top: int,
    bottom: int,
) -> None:
    height, width = lightness.shape
    reach = math.ceil(2 * wide)
    steps = np.arange(reach + 1)
    narrow_weights = np.exp(-0.5 * (steps / sigma) ** 2).astype(np.float32)
    wide_weights = np.exp(-0.5 * (steps / wide) ** 2).astype(np.float32)
    for row in range(top, bottom):
        for column in range(width):
            dx, dy = -vectors[row, column, 1], vectors[row, column, 0]
            narrow = broad = lightness[row, column]
            narrow_weight = broad_weight = np.float32(1)
            for step in range(1, reach + 1):
                for sign in range(-1, 2, 2):
                    x = np.float32(column) + np.float32(sign * step) * dx
                    y = np.float32(row) + np.float32(sign * step) * dy
                    x = min(max(x, np.float32(0)), np.float32(width - 1))
                    y = min(max(y, np.float32(0)), np.float32(height - 1))
                    left, upper = int(x), int(y)
                    right, lower = min(left + 1, width - 1), min(upper + 1, height - 1)
                    fx, fy = x - np.float32(left), y - np.float32(upper)
                    above = lightness[upper, left] * (1 - fx) + lightness[upper, right] * fx
                    below = lightness[lower, left] * (1 - fx) + lightness[lower, right] * fx
                    value = above * (1 - fy) + below * fy
                    narrow += narrow_weights[step] * value
                    narrow_weight += narrow_weights[step]
                    broad += wide_weights[step] * value
                    broad_weight += wide_weights[step]
            narrow_result[row, column] = narrow / narrow_weight
            wide_result[row, column] = broad / broad_weight
