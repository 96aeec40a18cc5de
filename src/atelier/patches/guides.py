"""Correspondence maps, by which patches of a painting are matched to places in a photo.

Efros & Freeman, "Image quilting for texture synthesis and transfer", 2001, section 4. A map can be any
quantity of both pictures, such as blurred lightness. The map of the photo is matched to the range of the
painting's, so the darkest parts of one correspond to the darkest parts of the other.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from atelier.colour.cielab import lightness, to_lab
from atelier.colour.transfer import match_histograms, sliced
from atelier.maths.compiled import floats
from atelier.maths.layout import to_array, to_tensor

Floats = npt.NDArray[np.float32]
By = Literal["lightness", "colours"]

_CHROMA = 0.7  # weight of a and b relative to lightness


def guides(photo: Floats, painting: Floats, by: By, blur: float, seed: int) -> tuple[Floats, Floats]:
    """Maps of the photo (H, W, G) and of the painting (H', W', G), with lightness in about 0..1.

    `by` is "lightness" (G = 1) or "colours" (G = 3: CIELAB, after a transfer of the painting's colours to the
    photo). `blur` is the standard deviation of a Gaussian in pixels.
    """
    if by == "lightness":
        theirs = lightness(painting)[None, None]
        matched = match_histograms(torch.from_numpy(lightness(photo)[None, None]), torch.from_numpy(theirs))
        return _soft(matched[0, 0].numpy()[..., None], blur), _soft(theirs[0, 0, ..., None], blur)
    moved = sliced(to_tensor(photo), to_tensor(painting), iterations=8, seed=seed).clamp(0, 1)
    graded = to_array(moved)
    return _soft(_perceived(graded), blur), _soft(_perceived(painting), blur)


def _perceived(image: Floats) -> Floats:
    """CIELAB divided by 100, with less weight on chroma."""
    return floats(to_lab(image) / 100 * (1, _CHROMA, _CHROMA))


def _soft(image: Floats, blur: float) -> Floats:
    if blur <= 0:
        return floats(image)
    soft = cv2.GaussianBlur(image, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
    return floats(soft.reshape(image.shape))
