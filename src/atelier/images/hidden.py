"""Colours hidden by transparency: they are not part of a picture, so no method may use them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]


def fill_hidden(pixels: Floats, alpha: Floats) -> Floats:
    """`pixels` (H, W, 3) with hidden pixels, where `alpha` (H, W) is 0, set to the nearest visible colour.

    Convolutions then see no colours that the viewer does not see. A fully hidden picture becomes grey.
    """
    hidden = alpha <= 0
    if not hidden.any():
        return pixels
    if hidden.all():
        return np.full_like(pixels, 0.5)
    nearest = ndimage.distance_transform_edt(hidden, return_distances=False, return_indices=True)
    filled: Floats = pixels[nearest[0], nearest[1]]
    return filled
