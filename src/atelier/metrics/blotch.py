"""Stains that a method puts where the photo is flat, such as a sky."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from atelier.images.resize import resize
from atelier.metrics.base import Style, at_most

Floats = npt.NDArray[np.float32]
#: Long side in px at which pictures are compared.
LONG_SIDE = 384
#: Deviation of the photo's tone, of 1, below which a place is flat, and the blur in which it is measured.
FLAT, REACH = 0.03, 12.0
#: Blur of the result's colours, and the number of tones that may each have a colour of its own.
SOFT, TONES = 8.0, 12
#: The least share of flat places.
LEAST = 0.05


@dataclass(frozen=True)
class Blotch:
    """Deviation of the result's soft colours, where the photo is flat, that no map of its tones explains.

    In percent of the range: 0 is a photo or any recolouring of it, and more than about 5 is seen as stains.
    Not a number if less than a twentieth of the photo is flat.
    """

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        photo = at_most(content, LONG_SIDE)
        made = _pixels(resize(result, (photo.shape[-2], photo.shape[-1])))
        tone = np.asarray(_pixels(photo) @ np.array([0.299, 0.587, 0.114], np.float32))
        flat = np.sqrt((_soft(tone * tone, REACH) - _soft(tone, REACH) ** 2).clip(0)) < FLAT
        if flat.mean() < LEAST:
            return float("nan")
        tones, colours = _soft(tone, SOFT)[flat], _soft(made, SOFT)[flat]
        return float(100 * np.sqrt(np.square(_unexplained(tones, colours)).mean()))


def _unexplained(tones: Floats, colours: Floats) -> Floats:
    """The colours (N, 3), less the mean of those with about the same tone (N,)."""
    groups = np.digitize(tones, np.quantile(tones, np.linspace(0, 1, TONES + 1)[1:-1]))
    rest = np.zeros_like(colours)
    for group in np.unique(groups):
        mine = groups == group
        rest[mine] = colours[mine] - colours[mine].mean(0)
    return rest


def _pixels(picture: Tensor) -> Floats:
    return np.ascontiguousarray(picture[0].permute(1, 2, 0).float().cpu().numpy())


def _soft(image: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
