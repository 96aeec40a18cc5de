"""Content: the same features at the same places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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
                f"Content has shape {tuple(self.target.shape)}, features {tuple(features.shape)}."
            )
        return F.mse_loss(_exact(features), self.target) / self.unit


def _exact(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))
