"""Style as optimal transport between feature columns, content as self-similarity of the columns.

Kolkin, Salavon & Shakhnarovich 2019, "Style Transfer by Relaxed Optimal Transport and Self-Similarity", as
computed by its published code. Columns are (N, C): one feature vector for each of N positions, in any order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# The first axis is grey; the other two are opponent colours, which are zero for greys. Rows have length 1.
_ROOT = 3**-0.5
_HIGH, _LOW = (1 + _ROOT) / 2, (1 - _ROOT) / 2
PALETTE = ((_ROOT, _ROOT, _ROOT), (-_ROOT, _HIGH, -_LOW), (-_ROOT, -_LOW, _HIGH))


class TransportLoss:
    """Relaxed earth mover's distance to the style's columns, with cosine distance as cost (eq. 5 to 7).

    Each column is matched to its nearest column on the other side, without capacity limits. The loss is the
    larger of the two directions. The search for nearest columns runs in `dtype`; the distance is exact.
    """

    def __init__(self, target: Tensor, *, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or target.dtype
        self.target = unit(target.detach())
        self.keys = self.target.to(self.dtype)

    def __call__(self, columns: Tensor) -> Tensor:
        found = unit(columns)
        with torch.no_grad():
            costs = 1 - found.to(self.dtype) @ self.keys.T
        return relaxed(costs, lambda i, j: 1 - (found.index_select(0, i) * self.target[j]).sum(1))


class PaletteLoss:
    """Relaxed earth mover's distance between colours (N, 3), RGB in 0..1: cosine plus Euclidean distance.

    The paper uses the Euclidean distance only. Colours are rotated first, so that greys lie on an axis.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = rotated(target.detach())

    def __call__(self, colours: Tensor) -> Tensor:
        found = rotated(colours)
        with torch.no_grad():
            costs = (1 - unit(found) @ unit(self.target).T) + _near(squared_distances(found, self.target))
        return relaxed(costs, lambda i, j: self._cost(found.index_select(0, i), self.target[j]))

    def _cost(self, first: Tensor, second: Tensor) -> Tensor:
        """The cost (N,) of N pairs of colours."""
        square = first.square().sum(1) + second.square().sum(1) - 2 * (first * second).sum(1)
        return 1 - (unit(first) * unit(second)).sum(1) + _near(square)


class ColumnMomentLoss:
    """Mean absolute difference of the means plus that of all covariance entries (eq. 8)."""

    def __init__(self, target: Tensor) -> None:
        self.mean, self.covariance = _moments(target.detach())

    def __call__(self, columns: Tensor) -> Tensor:
        mean, covariance = _moments(columns)
        return (mean - self.mean).abs().mean() + (covariance - self.covariance).abs().mean()


class SelfSimilarityLoss:
    """Difference between the pairwise distances of the columns and those of the content's columns (eq. 9).

    Both are matrices of cosine distances, with each matrix column divided by its sum. The loss keeps regions
    similar to each other if they are similar in the content, and does not constrain their appearance.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = _similarity(target.detach())

    def __call__(self, columns: Tensor) -> Tensor:
        return (_similarity(columns) - self.target).abs().mean() * len(columns)


def relaxed(costs: Tensor, cost: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The relaxed earth mover's distance for constant `costs` (N, M), differentiable through `cost`.

    `cost` returns the costs of the pairs (row i, column j). Only the smallest cost of each row or column
    enters the distance, so only those pairs need a gradient.
    """
    rows, columns = (torch.arange(size, device=costs.device) for size in costs.shape)
    if costs.amin(1).float().mean() >= costs.amin(0).float().mean():
        return cost(rows, costs.argmin(1)).mean()
    # Searching along the last dimension takes a tenth of the time.
    return cost(costs.T.contiguous().argmin(1), columns).mean()


def unit(columns: Tensor) -> Tensor:
    """Columns (N, C) normalised to length 1. A zero column stays zero and gets no gradient.

    Otherwise a black pixel would turn the palette's cosine, and then the picture, into NaN.
    """
    square = columns.square().sum(1, keepdim=True)
    some = square > torch.finfo(columns.dtype).tiny
    return columns * torch.where(some, torch.where(some, square, 1.0).rsqrt(), 0.0)


def rotated(colours: Tensor) -> Tensor:
    """RGB colours (N, 3) rotated to the palette's axes: lightness and two opponent colours."""
    return colours @ colours.new_tensor(PALETTE).T


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """|x - y|^2 between N and M columns, (N, M); rounding can make it slightly negative."""
    return first.square().sum(1)[:, None] + second.square().sum(1) - 2 * first @ second.T


def _near(square: Tensor) -> Tensor:
    """The Euclidean part of the palette's cost. Below 1e-5 the gradient is 0, because sqrt has none at 0."""
    return (square.clamp(1e-5, 1e5) / 3).sqrt()


def _moments(columns: Tensor) -> tuple[Tensor, Tensor]:
    mean = columns.mean(0)
    centred = columns - mean
    return mean, centred.T @ centred / len(columns)


def _similarity(columns: Tensor) -> Tensor:
    normal = unit(columns)
    distances = 1 - normal @ normal.T
    sums = distances.sum(0, keepdim=True)
    # Where a column equals all others, as in a flat picture, the distances are only rounding errors.
    some = sums > 8 * torch.finfo(distances.dtype).eps * len(columns)
    return torch.where(some, distances / torch.where(some, sums, 1.0), 0.0)
