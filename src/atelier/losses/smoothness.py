"""Smoothness: neighbouring pixels alike."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.core.errors import UsageError, did_you_mean

Norm = Literal["absolute", "isotropic", "squared"]

_NORMS = ("absolute", "isotropic", "squared")


class TotalVariation:
    """The mean over an image (B, C, H, W) of its differences to the right (dx) and downwards (dy).

    `absolute` |dx| + |dy| and `isotropic` sqrt(dx^2 + dy^2) (Rudin, Osher & Fatemi 1992) keep edges;
    `squared` dx^2 + dy^2 (Mahendran & Vedaldi 2015 with beta 2) blurs them and punishes single pixels.

    >>> TotalVariation("squared")(torch.tensor([[[[0.0, 1.0]]]])).item()
    0.5
    """

    def __init__(self, norm: Norm = "squared") -> None:
        if norm not in _NORMS:
            raise UsageError(f"Total variation has no norm '{norm}': {did_you_mean(norm, _NORMS)}")
        self.norm = norm

    def __call__(self, image: Tensor) -> Tensor:
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        # The last row and column are their own neighbours: all differences keep the image's shape.
        dx = F.pad(image[..., 1:] - image[..., :-1], (0, 1))
        dy = F.pad(image[..., 1:, :] - image[..., :-1, :], (0, 0, 0, 1))
        if self.norm == "absolute":
            return (dx.abs() + dy.abs()).mean()
        squares = dx.square() + dy.square()
        if self.norm == "squared":
            return squares.mean()
        # The root has no gradient at 0, where flat areas are.
        return torch.where(squares > 0, torch.where(squares > 0, squares, 1.0).sqrt(), 0.0).mean()
