"""Feature splitting: each layer's features move to the nearest of the style's, layer by layer.

Kolkin et al. 2022, section 3.4: the last stage of NNST. The hypercolumns' stages keep what belongs together;
this one lets every layer choose for itself and brings the finest details.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.maths.neighbours import nearest

#: About so many rows or columns of each layer are compared.
_SIDE = 64

Draw = Callable[[int], tuple[int, int]]


class SplittingLoss:
    """The terms of many layers' maps (1, C, H, W): mean cosine distance to the nearest of the style's.

    Of a layer that is longer than 64 positions every t-th row and column is compared, t = side // 64, from
    the first ones that `draw(t)` says. Both sides are centred, and the nearest are searched anew each time.

    `stale` repeats a slip of the authors' program, which its pictures of up to 520 px have: for a layer of at
    most 64 positions the values that were compared last are read as if they were this layer's.
    """

    def __init__(self, style: Sequence[Tensor], draw: Draw, *, stale: bool = False) -> None:
        self.style, self.draw, self.stale = [one.detach() for one in style], draw, stale

    def __call__(self, maps: Sequence[Tensor]) -> Tensor:
        """(L,), one term for each layer."""
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
        """The map that was compared last as rows of so many channels; None where that cannot be."""
        if last is None or last.numel() % channels:
            return None
        return last.contiguous().view(channels, -1).T


def nearest_distance(rows: Tensor, others: Tensor) -> Tensor:
    """Mean over `rows` (N, C) of the smallest cosine distance to `others` (M, C), each side centred."""
    others = F.normalize(others - others.mean(0), dim=1)
    rows = F.normalize(rows - rows.mean(0), dim=1)
    with torch.no_grad():
        index, _ = nearest(rows, others)
    return 1 - (rows * others[index]).sum(1).mean()


def _every(features: Tensor, step: int, first: tuple[int, int]) -> Tensor:
    """Every `step`-th row and column; where the first would lie outside, the last there is."""
    row, column = (min(one, side - 1) for one, side in zip(first, features.shape[-2:], strict=True))
    return features[..., row::step, column::step]


def _rows(features: Tensor) -> Tensor:
    return features[0].flatten(1).T
