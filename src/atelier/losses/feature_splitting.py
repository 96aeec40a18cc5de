"""Feature splitting: each layer's features are matched to their nearest style features independently.

Kolkin et al. 2022, section 3.4: the last stage of NNST. Matching whole hypercolumns keeps the layers
consistent with each other; matching each layer separately adds the finest details.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.maths.neighbours import nearest

#: The approximate number of rows or columns of each layer that are compared.
_SIDE = 64

Draw = Callable[[int], tuple[int, int]]


class SplittingLoss:
    """Mean cosine distance to the nearest style features, for each of several feature maps (1, C, H, W).

    If the longer side of a map exceeds 64 positions, only every t-th row and column is compared, with
    t = side // 64; `draw(t)` chooses the first row and column. Both sides are centred, and the nearest style
    features are searched for on every call.

    `stale` reproduces a bug of the authors' code, which affects its pictures of up to 520 px: a layer of at
    most 64 positions is compared using the values of the last subsampled layer instead of its own.
    """

    def __init__(self, style: Sequence[Tensor], draw: Draw, *, stale: bool = False) -> None:
        self.style, self.draw, self.stale = [one.detach() for one in style], draw, stale

    def __call__(self, maps: Sequence[Tensor]) -> Tensor:
        """One term for each layer, (L,)."""
        terms, last = [], None
        for found, wanted in zip(maps, self.style, strict=True):
            side = max(found.shape[-2:])
            if side > _SIDE:
                step = side // _SIDE
                first = self.draw(step)
                last = _every(found, step, first)
                rows, wanted = _rows(last), _every(wanted, step, first)
            else:
                stale = self._stale(last, wanted.shape[1]) if self.stale else None
                rows = _rows(found) if stale is None else stale
            terms.append(nearest_distance(rows, _rows(wanted)))
        return torch.stack(terms)

    @staticmethod
    def _stale(last: Tensor | None, channels: int) -> Tensor | None:
        """The last subsampled map as rows of `channels` values; None if its size does not allow that."""
        if last is None or last.numel() % channels:
            return None
        return last.contiguous().view(channels, -1).T


def nearest_distance(rows: Tensor, others: Tensor) -> Tensor:
    """Mean over `rows` (N, C) of the smallest cosine distance to `others` (M, C), both sides centred."""
    others = F.normalize(others - others.mean(0), dim=1)
    rows = F.normalize(rows - rows.mean(0), dim=1)
    with torch.no_grad():
        index, _ = nearest(rows, others)
    return 1 - (rows * others.index_select(0, index)).sum(1).mean()


def _every(features: Tensor, step: int, first: tuple[int, int]) -> Tensor:
    """Every `step`-th row and column from `first`, which is clamped to the map."""
    row, column = (min(one, side - 1) for one, side in zip(first, features.shape[-2:], strict=True))
    return features[..., row::step, column::step]


def _rows(features: Tensor) -> Tensor:
    return features[0].flatten(1).T
