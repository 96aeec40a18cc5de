"""Likeness to hypercolumns: to the ones that were chosen for each place, and to any of the style's.

Kolkin et al. 2022, equations 3 and 5: cosine distances, after both sides were centred by the style's mean.
"""

from __future__ import annotations

import torch
from torch import Tensor


class NeighbourLoss:
    """Mean cosine distance from targets (B, D, h, w) at the same places, both centred by the style's mean.

    `style` are the style's hypercolumns (B, D, h', w'). `near` is the mean distance from the nearest of
    them, wherever it is; it looks at every third place, which is enough for a mean.
    """

    def __init__(self, target: Tensor, style: Tensor) -> None:
        self.centre = mean(style.detach())
        self.target = directions(target.detach(), self.centre)
        self.style = directions(style.detach(), self.centre)

    def __call__(self, columns: Tensor) -> Tensor:
        return self.match(self.towards(columns))

    def towards(self, columns: Tensor) -> Tensor:
        """The directions (B, h w, D) of hypercolumns (B, D, h, w) from the style's mean."""
        return directions(columns, self.centre)

    def match(self, painted: Tensor) -> Tensor:
        """1 - cosine to the target, for directions (B, h w, D)."""
        return 1 - (painted * self.target).sum(2, dtype=self.centre.dtype).mean()

    def near(self, painted: Tensor) -> Tensor:
        """1 - the highest cosine to any of the style's, for directions (B, h w, D)."""
        return 1 - (painted[:, ::3] @ self.style.mT).amax(2).to(self.centre.dtype).mean()


def swap(queries: Tensor, style: Tensor) -> Tensor:
    """For each query (B, D, h, w) the style's hypercolumn (B, D, h', w') of highest cosine, both centred."""
    likeness = directions(queries, mean(queries)) @ directions(style, mean(style)).mT
    index, columns = likeness.argmax(2), places(style)
    swapped = torch.stack([one[chosen] for one, chosen in zip(columns, index, strict=True)])
    return swapped.view(len(swapped), *queries.shape[2:], -1).permute(0, 3, 1, 2)


def places(columns: Tensor) -> Tensor:
    """(B, D, h, w) as (B, h w, D): a view where they are channels-last."""
    return columns.permute(0, 2, 3, 1).flatten(1, 2)


def mean(columns: Tensor) -> Tensor:
    """(B, 1, D) of (B, D, h, w), in float32 or better."""
    exact = torch.promote_types(columns.dtype, torch.float32)
    return places(columns).mean(1, keepdim=True, dtype=exact)


def directions(columns: Tensor, centre: Tensor) -> Tensor:
    """Hypercolumns (B, D, h, w) from `centre` (B, 1, D), of length 1: (B, h w, D)."""
    centred = places(columns) - centre.to(columns.dtype)
    length: Tensor = torch.linalg.vector_norm(centred, dim=2, keepdim=True)
    return centred / length.clamp(min=1e-6).to(centred.dtype)
