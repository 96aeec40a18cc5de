"""Content loss: compares features position by position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class ContentLoss:
    """Mean squared difference from the content's features (B, C, H, W).

    Gatys et al. 2016, eq. 1, as a mean. `relative` divides by the loss of all-zero features, which makes
    layers and encoders comparable. Raises ValueError if the shapes differ.

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
                f"but the content target has shape {tuple(self.target.shape)}"
            )
        difference: Tensor = _MeanSquare.apply(features, self.target)  # type: ignore[no-untyped-call]
        return difference / self.unit


class _MeanSquare(torch.autograd.Function):
    """Mean of (features - target)^2, with the difference in float32.

    `mse_loss` returns its gradient in NCHW layout, so every layer below converts it: a fifth of the time of
    an iteration with VGG-19.
    """

    @staticmethod
    def forward(context: Any, features: Tensor, target: Tensor) -> Tensor:
        difference = _exact(features) - target
        context.save_for_backward(difference)
        context.dtype = features.dtype
        return difference.square().mean()

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = context.saved_tensors
        return (difference * (gradient * (2 / difference.numel()))).to(context.dtype), None


def _exact(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))
