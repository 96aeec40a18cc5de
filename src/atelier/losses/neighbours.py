"""Cosine distance to style hypercolumns: to the one chosen for each position, and to the nearest one.

Kolkin et al. 2022, equations 3 and 5. Both sides are centred by subtracting the style's mean.
"""

from __future__ import annotations

import torch
from torch import Tensor


class NeighbourLoss:
    """Mean cosine distance to `target` (B, D, h, w), position by position, after centring.

    `style` (B, D, h', w') holds the style's hypercolumns; both sides are centred by their mean. `near` is
    the mean distance to the nearest style hypercolumn at any position. It samples every third position,
    which is enough to estimate a mean.
    """

    def __init__(self, target: Tensor, style: Tensor) -> None:
        self.centre = mean(style.detach())
        self.target = directions(target.detach(), self.centre)
        self.style = directions(style.detach(), self.centre)

    def __call__(self, columns: Tensor) -> Tensor:
        return self.match(self.towards(columns))

    def towards(self, columns: Tensor) -> Tensor:
        """Unit vectors (B, h w, D) from the style's mean to the hypercolumns (B, D, h, w)."""
        return directions(columns, self.centre)

    def match(self, painted: Tensor) -> Tensor:
        """Mean of 1 - cosine to the target, for unit vectors (B, h w, D)."""
        return 1 - (painted * self.target).sum(2, dtype=self.centre.dtype).mean()

    def near(self, painted: Tensor) -> Tensor:
        """Mean of 1 - the highest cosine to any style hypercolumn, for unit vectors (B, h w, D)."""
        return 1 - (painted[:, ::3] @ self.style.mT).amax(2).to(self.centre.dtype).mean()


def swap(queries: Tensor, style: Tensor, penalty: Tensor | None = None) -> Tensor:
    """Replace each query (B, D, h, w) by the `style` hypercolumn (B, D, h', w') with the highest score.

    Each side is centred by its own mean before the comparison. The score is the cosine. With a `penalty`
    (B, h w, h' w') it is q.k / rms|q| - penalty, for queries q and unit vectors k: where the queries are
    short, the penalty decides.
    """
    centre = mean(queries)
    likeness = directions(queries, centre) @ directions(style, mean(style)).mT
    if penalty is not None:
        length = torch.linalg.vector_norm(places(queries) - centre.to(queries.dtype), dim=2, keepdim=True)
        likeness = likeness * (length / length.square().mean(1, keepdim=True).sqrt()) - penalty
    index, columns = likeness.argmax(2), places(style)
    swapped = torch.stack([one[chosen] for one, chosen in zip(columns, index, strict=True)])
    return swapped.view(len(swapped), *queries.shape[2:], -1).permute(0, 3, 1, 2)


def places(columns: Tensor) -> Tensor:
    """(B, D, h, w) as (B, h w, D): a view if the input is channels-last."""
    return columns.permute(0, 2, 3, 1).flatten(1, 2)


def mean(columns: Tensor) -> Tensor:
    """The mean over positions, (B, 1, D) from (B, D, h, w), in float32 or better."""
    exact = torch.promote_types(columns.dtype, torch.float32)
    return places(columns).mean(1, keepdim=True, dtype=exact)


def directions(columns: Tensor, centre: Tensor) -> Tensor:
    """Unit vectors (B, h w, D) from `centre` (B, 1, D) to hypercolumns (B, D, h, w)."""
    centred = places(columns) - centre.to(columns.dtype)
    length: Tensor = torch.linalg.vector_norm(centred, dim=2, keepdim=True)
    return centred / length.clamp(min=1e-6).to(centred.dtype)
