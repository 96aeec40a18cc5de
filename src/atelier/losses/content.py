"""Content: the same features at the same places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class ContentLoss:
    """Mean squared difference from the features (B, C, H, W) of the content.

    Gatys et al. 2016, eq. 1, as a mean. With `relative` it is divided by what all-zero features would
    cost, so that layers and encoders compare. Raises ValueError for features of another shape.

    >>> ContentLoss(torch.zeros(1, 1, 2, 2))(torch.full((1, 1, 2, 2), 3.0)).item()
    9.0
    """

    def __init__(self, target: Tensor, *, relative: bool = False) -> None:
        self.target = _exact(target.detach())
        self.unit = (
            self.target.square().mean().clamp(min=torch.finfo(torch.float32).tiny) if relative else 1.0
        )

    def __call__(self, features: Tensor) -> Tensor:
        if features.shape != self.target.shape:
            raise ValueError(
                f"the features have shape {tuple(features.shape)}, "
                f"and the content target {tuple(self.target.shape)}"
            )
        apart: Tensor = _MeanSquare.apply(features, self.target)  # type: ignore[no-untyped-call]
        return apart / self.unit


class _MeanSquare(torch.autograd.Function):
    """Mean of (features - target)^2, the difference in float32.

    `mse_loss` would hand its gradient on in NCHW, and every layer behind it would reorder: a fifth of an
    iteration with VGG-19.
    """

    @staticmethod
    def forward(context: Any, features: Tensor, target: Tensor) -> Tensor:
        apart = _exact(features) - target
        context.save_for_backward(apart)
        context.dtype = features.dtype
        return apart.square().mean()

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (apart,) = context.saved_tensors
        return (apart * (gradient * (2 / apart.numel()))).to(context.dtype), None


def _exact(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))
