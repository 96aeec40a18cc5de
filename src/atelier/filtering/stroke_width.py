"""The width of the marks in a picture: strokes, dabs, hatching."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from atelier.colour.cielab import lightness
from atelier.filtering.structure_tensor import blur, flow
from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]


def stroke_width(image: Floats) -> float:
    """The typical width in pixels of the marks in a picture (H, W, 3), measured across their direction.

    It is derived from the autocorrelation of high-pass lightness across the structure tensor's direction. For
    stripes, this falls to one half at a third of their width. The width is 1 if there are no marks.
    """
    long_side = max(image.shape[:2])
    light = lightness(image)
    fine = light - blur(light, max(2.0, long_side / 40))
    vectors, clear = flow(image, 2.0)
    weight = clear * np.abs(fine)
    power = float((weight * fine**2).sum())
    if power <= 1e-9:
        return 1.0
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    before = 1.0
    for lag in range(1, max(2, long_side // 12)):
        across, down = floats(x - lag * vectors[..., 1]), floats(y + lag * vectors[..., 0])
        moved = cv2.remap(floats(fine), across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        now = float((weight * fine * moved).sum()) / power
        if now < 0.5:
            return 3 * (lag - 1 + (before - 0.5) / max(before - now, 1e-6))
        before = now
    return 3.0 * lag
