"""Black, grey and flat styles: what a style does not vary in, its pictures do not vary in either."""

from __future__ import annotations

import torch
from torch import Tensor

from atelier.colour.moments import moments_of

#: A deviation below half a shade of 255 is rounding.
_LEAST = 0.5 / 255


def confine(picture: Tensor, style: Tensor, *, seen: Tensor | None = None) -> Tensor:
    """`picture` (B, 3, H, W) without colour in the directions in which `style` (1, 3, H', W') has none.

    The colours of a grey style lie on a line, those of a flat one in a point: deviations of the picture
    from the style's mean colour are projected onto the directions in which the style deviates. A style
    with colours in all directions leaves the picture as it is. `seen` (1, 1, H', W'), 0..1, says which
    pixels of the style count.
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
