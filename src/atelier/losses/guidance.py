"""Guidance of a picture by encodings, such as CLIP's: the losses of the whole and of random patches.

Kwon & Ye 2022, eqs. 2 to 4. Patches are encoded in batches, so that memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from atelier.features.clip import ImageTower
from atelier.features.views import Patches, fitted, patch_views
from atelier.losses.directions import DirectionLoss


class Guidance:
    """The directional losses of a picture: of the whole, and of its patches."""

    def __init__(
        self, tower: ImageTower, whole: DirectionLoss, patch: DirectionLoss, *, batch: int = 16
    ) -> None:
        self.tower, self.whole, self.patch, self.batch = tower, whole, patch, batch

    def of_whole(self, picture: Tensor) -> Tensor:
        """The loss of the whole picture (1, 3, H, W), squeezed into the network's square input."""
        return self.whole(self.tower.image(fitted(picture, self.tower.side)))

    def of_patches(self, picture: Tensor, patches: Patches) -> Tensor:
        """The mean loss of the patches of a picture (1, 3, H, W)."""
        return self.of_views(patch_views(picture, patches, self.tower.side))

    def of_views(self, views: Tensor) -> Tensor:
        """The mean loss of views (N, 3, side, side) of the picture."""
        return in_batches(self._distance, views, self.batch) / len(views)

    def _distance(self, views: Tensor) -> Tensor:
        return self.patch.distances(self.tower.image(views)).sum()


def in_batches(loss: Callable[[Tensor], Tensor], pictures: Tensor, batch: int) -> Tensor:
    """The sum of `loss` (a scalar) over batches of pictures (N, 3, H, W).

    Where a gradient is needed, that of each batch is computed at once, so that only one batch is in memory.

    >>> in_batches(lambda some: some.sum(), torch.ones(5, 3, 2, 2), 2).item()
    60.0
    """
    total: Tensor = _Batches.apply(pictures, loss, batch)  # type: ignore[no-untyped-call]
    return total


class _Batches(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, pictures: Tensor, loss: Callable[[Tensor], Tensor], batch: int) -> Tensor:
        needed = context.needs_input_grad[0]
        slope = torch.empty_like(pictures) if needed else None
        total = pictures.new_zeros(())
        for start in range(0, len(pictures), batch):
            some = pictures[start : start + batch].detach().requires_grad_(needed)
            with torch.set_grad_enabled(needed):
                value = loss(some)
            if slope is not None:
                (slope[start : start + batch],) = torch.autograd.grad(value, some)
            total += value.detach()
        context.slope = slope
        return total

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> Any:
        return context.slope * gradient, None, None
