"""Smoothness losses: total variation in two forms, and a penalty on periodic grid artefacts."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.core.errors import UsageError, did_you_mean

Norm = Literal["absolute", "isotropic", "squared"]

_NORMS = ("absolute", "isotropic", "squared")


class TotalVariation:
    """Mean difference between neighbouring pixels, dx horizontally and dy vertically, of (B, C, H, W).

    `absolute`, |dx| + |dy|, and `isotropic`, sqrt(dx^2 + dy^2) (Rudin, Osher & Fatemi 1992), keep edges.
    `squared`, dx^2 + dy^2 (Mahendran & Vedaldi 2015 with beta 2), blurs edges and penalises isolated pixels.

    >>> TotalVariation("squared")(torch.tensor([[[[0.0, 1.0]]]])).item()
    0.5
    """

    def __init__(self, norm: Norm = "squared") -> None:
        if norm not in _NORMS:
            raise UsageError(f"total variation has no norm '{norm}': {did_you_mean(norm, _NORMS)}")
        self.norm = norm

    def __call__(self, image: Tensor) -> Tensor:
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        # Pad with zero differences at the last row and column, so that dx and dy keep the image's shape.
        dx = F.pad(image[..., 1:] - image[..., :-1], (0, 1))
        dy = F.pad(image[..., 1:, :] - image[..., :-1, :], (0, 0, 0, 1))
        if self.norm == "absolute":
            return (dx.abs() + dy.abs()).mean()
        squares = dx.square() + dy.square()
        if self.norm == "squared":
            return squares.mean()
        # sqrt has no gradient at 0, which is the value in flat areas.
        return torch.where(squares > 0, torch.where(squares > 0, squares, 1.0).sqrt(), 0.0).mean()


class NeighbourNorm:
    """The sum of the L2 norms of the differences to the right, lower and both diagonal neighbours.

    The total variation of CLIPstyler (Kwon & Ye 2022). It is neither squared nor a mean: it grows with the
    square root of the number of pixels.

    >>> NeighbourNorm()(torch.tensor([[[[0.0, 3.0], [0.0, 3.0]]]])).item()  # 3 sqrt(2) + 0 + 3 + 3
    10.242640495300293
    """

    def __call__(self, image: Tensor) -> Tensor:
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        upper, lower, left, right = image[..., :-1, :], image[..., 1:, :], image[..., :-1], image[..., 1:]
        differences = (
            right - left,
            lower - upper,
            lower[..., :-1] - upper[..., 1:],
            lower[..., 1:] - upper[..., :-1],
        )
        norms: Tensor = torch.stack([torch.linalg.vector_norm(one) for one in differences]).sum()
        return norms


class LatticeLoss:
    """Strength of a pattern that repeats every `period` pixels in an image (B, C, H, W), in pixel values.

    Decoders with upsampling steps produce such a grid in flat areas. The details (the image minus a blur of
    one period) are averaged, within windows of `cells` periods, over pixels at the same phase of the period.
    A grid survives the averaging and natural texture does not. The loss is the root mean square of the
    averages.
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
