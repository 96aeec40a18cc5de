"""Smoothness: neighbouring pixels alike, and no grid woven into them."""

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
            raise UsageError(f"total variation has no norm '{norm}': {did_you_mean(norm, _NORMS)}")
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


class LatticeLoss:
    """How strongly an image (B, C, H, W) repeats itself every `period` pixels, in units of its values.

    A decoder that enlarges in steps weaves such a grid into flat areas. In windows of `cells` periods, the
    details (what a blur of the period takes away) are averaged over the places that lie alike in their
    periods: a grid stays, a texture of the picture's own does not. The root of the mean square of the rest.
    """

    def __init__(self, period: int = 4, *, cells: int = 8) -> None:
        self.period, self.cells = period, cells

    def __call__(self, image: Tensor) -> Tensor:
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        side = 2 * (self.period // 2) + 1
        detail = image - F.avg_pool2d(image, side, 1, side // 2, count_include_pad=False)
        height, width = (max(1, size // self.period) * self.period for size in image.shape[-2:])
        alike = F.pixel_unshuffle(detail[..., :height, :width], self.period)
        window = (min(self.cells, alike.shape[-2]), min(self.cells, alike.shape[-1]))
        means = F.avg_pool2d(alike, window, stride=max(1, self.cells // 2))
        return (means.square().mean() + 1e-10).sqrt()
