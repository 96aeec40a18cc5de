"""Contrast: places whose colours differ in the photo differ as much in the picture.

The content loss of the program of Kolkin et al. 2022 (NNST), which the paper does not describe.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_SIDE = 32


class ContrastLoss:
    """Mean absolute difference between two pictures' (1, 3, H, W) tables of colour distances.

    Both are looked at on one grid, about 32 places along the longer side of `content`. Colours may turn into
    any others as long as their distances stay.
    """

    def __init__(self, content: Tensor) -> None:
        height, width = content.shape[-2:]
        step = max(1, max(height, width) // _SIDE)
        self.size = (max(1, height // step), max(1, width // step))
        self.target = self.distances(content.detach())

    def __call__(self, picture: Tensor) -> Tensor:
        return (self.distances(picture) - self.target).abs().mean()

    def distances(self, picture: Tensor) -> Tensor:
        """The distance between the colours of each two places, (N, N)."""
        small = F.interpolate(picture, self.size, mode="bilinear", align_corners=True)
        colours = small[0].flatten(1).T
        squares = colours.square().sum(1)
        apart = squares[:, None] + squares[None] - 2 * colours @ colours.T
        return apart.clamp(min=1e-8).sqrt()
