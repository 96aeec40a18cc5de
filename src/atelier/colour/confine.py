"""Black, grey and flat styles: results vary only in the colour directions in which the style varies."""

from __future__ import annotations

import torch
from torch import Tensor

from atelier.colour.moments import moments_of

#: A standard deviation below half an 8-bit level is rounding.
_LEAST = 0.5 / 255


def confine(picture: Tensor, style: Tensor, *, seen: Tensor | None = None) -> Tensor:
    """Limits `picture` (B, 3, H, W) to the colour directions in which `style` (1, 3, H', W') varies.

    The colours of a grey style lie on a line, and those of a flat style in a point. Deviations of the picture
    from the mean colour of the style are projected onto that line or point. A style that varies in all
    directions leaves the picture unchanged. `seen` (1, 1, H', W'), 0..1, weights the pixels of the style.
    """
    mean, covariance = moments_of(style, seen)
    variances, directions = torch.linalg.eigh(covariance)
    used = variances[0] > _LEAST**2
    if bool(used.all()):
        return picture
    kept = directions[0][:, used]
    projection, centre = (kept @ kept.mT).to(picture), mean.to(picture)
    flat = picture.flatten(2)
    confined: Tensor = projection @ (flat - centre) + centre
    return confined.view(picture.shape)
