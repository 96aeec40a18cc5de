"""Likeness to hypercolumns: to the ones that were chosen for each place, and to any of the style's.

Kolkin et al. 2022, equations 3 and 5: cosine distances, after both sides were centred by the style's mean.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


class NeighbourLoss:
    """Mean cosine distance from targets (B, D, h, w) at the same places, both centred by the style's mean.

    `style` are the style's hypercolumns (B, D, h', w'). `near` is the mean distance from the nearest of
    them, wherever it is.
    """

    def __init__(self, target: Tensor, style: Tensor) -> None:
        self.centre = mean(style.detach())
        self.target = directions(target.detach(), self.centre)
        self.style = directions(style.detach(), self.centre)

    def __call__(self, columns: Tensor) -> Tensor:
        return self.match(self.towards(columns))

    def towards(self, columns: Tensor) -> Tensor:
        """The directions (B, D, h w) of hypercolumns (B, D, h, w) from the style's mean."""
        return directions(columns, self.centre)

    def match(self, painted: Tensor) -> Tensor:
        """1 - cosine to the target, for directions (B, D, h w)."""
        return 1 - (painted * self.target).sum(1, dtype=self.centre.dtype).mean()

    def near(self, painted: Tensor) -> Tensor:
        """1 - the highest cosine to any of the style's, for directions (B, D, h w)."""
        return 1 - (painted.mT @ self.style).amax(2).to(self.centre.dtype).mean()


def swap(queries: Tensor, style: Tensor) -> Tensor:
    """For each query (B, D, h, w) the style's hypercolumn (B, D, h', w') of highest cosine, both centred."""
    likeness = directions(queries, mean(queries)).mT @ directions(style, mean(style))
    index = likeness.argmax(2)[:, None].expand(-1, style.shape[1], -1)
    return style.flatten(2).gather(2, index).view_as(queries)


def mean(columns: Tensor) -> Tensor:
    """(B, D, 1) of (B, D, h, w), in float32 or better."""
    columns = columns.flatten(2)
    return (columns if columns.element_size() > 2 else columns.float()).mean(2, keepdim=True)


def directions(columns: Tensor, centre: Tensor) -> Tensor:
    """Hypercolumns (B, D, h, w) from `centre` (B, D, 1), of length 1: (B, D, h w)."""
    return F.normalize(columns.flatten(2) - centre.to(columns.dtype), dim=1)
