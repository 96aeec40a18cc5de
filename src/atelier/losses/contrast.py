"""Contrast loss: keeps the colour differences between positions of the content.

The content loss in the published code of Kolkin et al. 2022 (NNST). The paper does not describe it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_SIDE = 32


class ContrastLoss:
    """Mean absolute difference between the pairwise colour distances of two pictures (1, 3, H, W).

    Both pictures are resized to a grid of about 32 positions along the longer side of `content`. Colours may
    change freely as long as the distances between them stay the same.
    """

    def __init__(self, content: Tensor) -> None:
        height, width = content.shape[-2:]
        step = max(1, max(height, width) // _SIDE)
        self.size = (max(1, height // step), max(1, width // step))
        self.target = self.distances(content.detach())

    def __call__(self, picture: Tensor) -> Tensor:
        return (self.distances(picture) - self.target).abs().mean()

    def distances(self, picture: Tensor) -> Tensor:
        """The colour distance (N, N) between each pair of positions."""
        small = F.interpolate(picture, self.size, mode="bilinear", align_corners=True)
        colours = small[0].flatten(1).T
        squares = colours.square().sum(1)
        difference = squares[:, None] + squares[None] - 2 * colours @ colours.T
        return difference.clamp(min=1e-8).sqrt()
