"""Style as a set of feature columns to be moved, content as how columns resemble each other.

Kolkin, Salavon & Shakhnarovich 2019, "Style Transfer by Relaxed Optimal Transport and Self-Similarity", as
its published code computes it. Columns are (N, C): one vector of features for each of N places, in any order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Greys on the first axis, opponent colours on the other two, which vanish for greys; rows have length 1.
_ROOT = 3**-0.5
_HIGH, _LOW = (1 + _ROOT) / 2, (1 - _ROOT) / 2
PALETTE = ((_ROOT, _ROOT, _ROOT), (-_ROOT, _HIGH, -_LOW), (-_ROOT, -_LOW, _HIGH))


class TransportLoss:
    """Relaxed earth mover's distance to the style's columns under the cosine distance (eq. 5 to 7).

    Each column goes to its nearest one of the other side, at no limit of capacity; of both directions the
    dearer counts. Nearest columns are searched in `dtype`; the distance to them is exact.
    """

    def __init__(self, target: Tensor, *, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype or target.dtype
        self.target = unit(target.detach())
        self.keys = self.target.to(self.dtype)

    def __call__(self, columns: Tensor) -> Tensor:
        found = unit(columns)
        with torch.no_grad():
            costs = 1 - found.to(self.dtype) @ self.keys.T
        return relaxed(costs, lambda i, j: 1 - (found[i] * self.target[j]).sum(1))


class PaletteLoss:
    """Relaxed earth mover's distance between colours (N, 3), RGB in 0..1: cosine and Euclidean distance.

    The paper has the Euclidean distance alone. The colours are rotated first, so that greys lie on an axis.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = rotated(target.detach())

    def __call__(self, colours: Tensor) -> Tensor:
        found = rotated(colours)
        with torch.no_grad():
            costs = (1 - unit(found) @ unit(self.target).T) + _near(squared_distances(found, self.target))
        return relaxed(costs, lambda i, j: self._cost(found[i], self.target[j]))

    def _cost(self, first: Tensor, second: Tensor) -> Tensor:
        """The cost of each of N pairs, (N,)."""
        square = first.square().sum(1) + second.square().sum(1) - 2 * (first * second).sum(1)
        return 1 - (unit(first) * unit(second)).sum(1) + _near(square)


class ColumnMomentLoss:
    """Mean absolute difference of the means, and of all entries of the covariances (eq. 8)."""

    def __init__(self, target: Tensor) -> None:
        self.mean, self.covariance = _moments(target.detach())

    def __call__(self, columns: Tensor) -> Tensor:
        mean, covariance = _moments(columns)
        return (mean - self.mean).abs().mean() + (covariance - self.covariance).abs().mean()


class SelfSimilarityLoss:
    """How much the distances among the columns differ from those among the content's (eq. 9).

    Both are cosine distances between all pairs, each column of the matrix divided by its sum: what is alike
    in the content stays alike, whatever it turns into.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = _similarity(target.detach())

    def __call__(self, columns: Tensor) -> Tensor:
        return (_similarity(columns) - self.target).abs().mean() * len(columns)


def relaxed(costs: Tensor, cost: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The relaxed earth mover's distance of the constant `costs` (N, M), differentiable through `cost`.

    `cost` gives the costs of pairs (rows i, columns j). Only the cheapest of each row or column enter the
    distance, so only those need a gradient.
    """
    rows, columns = (torch.arange(size, device=costs.device) for size in costs.shape)
    if costs.amin(1).float().mean() >= costs.amin(0).float().mean():
        return cost(rows, costs.argmin(1)).mean()
    # The search along the last dimension takes a tenth of the time.
    return cost(costs.T.contiguous().argmin(1), columns).mean()


def unit(columns: Tensor) -> Tensor:
    """Columns (N, C) at length 1; one without length stays zero and has no gradient.

    Without that a black pixel would make the palette's cosine, and then the picture, not a number.
    """
    square = columns.square().sum(1, keepdim=True)
    some = square > torch.finfo(columns.dtype).tiny
    return columns * torch.where(some, torch.where(some, square, 1.0).rsqrt(), 0.0)


def rotated(colours: Tensor) -> Tensor:
    """RGB colours (N, 3) on the palette's axes: lightness and two opponent colours."""
    return colours @ colours.new_tensor(PALETTE).T


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """|x - y|^2 for each of N columns and each of M, (N, M); rounding may make it slightly negative."""
    return first.square().sum(1)[:, None] + second.square().sum(1) - 2 * first @ second.T


def _near(square: Tensor) -> Tensor:
    """The Euclidean part of the palette's cost; no gradient below 1e-5, where the root has none."""
    return (square.clamp(1e-5, 1e5) / 3).sqrt()


def _moments(columns: Tensor) -> tuple[Tensor, Tensor]:
    mean = columns.mean(0)
    centred = columns - mean
    return mean, centred.T @ centred / len(columns)


def _similarity(columns: Tensor) -> Tensor:
    normal = unit(columns)
    distances = 1 - normal @ normal.T
    sums = distances.sum(0, keepdim=True)
    # Where nothing is unlike the place, as in a flat picture, the distances are rounding.
    some = sums > 8 * torch.finfo(distances.dtype).eps * len(columns)
    return torch.where(some, distances / torch.where(some, sums, 1.0), 0.0)
