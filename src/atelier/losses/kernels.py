"""Maximum mean discrepancy: style as a distribution of features, compared through a kernel.

Li et al. 2017, "Demystifying Neural Style Transfer": for a kernel k, picture features x and style features
y, MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y). Matching Gram matrices is the kernel (x.y)^2; matching
means is the kernel x.y. Each loss takes features (B, C, H, W) of any height and width and, for the target
and the picture, an optional weight map (B, 1, H, W) in 0..1. `relative` divides by the loss of all-zero
features, which makes layers, encoders and kernels comparable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from atelier.core.errors import UsageError, did_you_mean
from atelier.maths.moments import channel_moments, gram

Estimator = Literal["full", "linear"]
Kernel = Callable[[Tensor, Tensor], Tensor]

_ESTIMATORS = ("full", "linear")


class LinearKernelLoss:
    """MMD^2 of the kernel x.y: squared distance between the mean features, averaged over the batch."""

    def __init__(self, target: Tensor, *, relative: bool = False, weight: Tensor | None = None) -> None:
        self.target = _means(target.detach(), weight)
        self.unit = _positive(_squares(self.target)) if relative else 1.0

    def __call__(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        return _squares(_means(features, weight) - self.target) / self.unit


class PolynomialKernelLoss:
    """MMD^2 of the kernel (x.y + offset)^2 over all pairs of positions, averaged over the batch.

    With offset 0 it is the sum of squared differences of Gram matrices (Li et al. 2017, eq. 9 to 11); an
    offset c adds 2c times the linear kernel. The average factorises, so pairs are never built explicitly.
    """

    def __init__(
        self, target: Tensor, *, offset: float = 0.0, relative: bool = False, weight: Tensor | None = None
    ) -> None:
        self.offset = offset
        self.gram, self.mean = gram(target.detach(), weight=weight), _means(target.detach(), weight)
        self.unit: Tensor | float = 1.0
        if relative:
            self.unit = _positive(_squares(self.gram) + 2 * offset * _squares(self.mean))

    def __call__(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        loss = _squares(gram(features, weight=weight) - self.gram)
        if self.offset:
            loss = loss + 2 * self.offset * _squares(_means(features, weight) - self.mean)
        return loss / self.unit


class GaussianKernelLoss:
    """Unbiased estimate of MMD^2 of the kernel exp(-|x - y|^2 / (2 s^2)), for one picture (1, C, H, W).

    s^2 is `bandwidth` times the mean squared distance between two positions of the target. The "full"
    estimator averages over all pairs among `samples` positions of each side. The "linear" estimator averages
    over as many quadruples as `samples` allow (Gretton et al. 2012, lemmas 6 and 14): it costs less per
    position and is noisier. Positions are drawn from `seed`: new ones on every call with `fresh`, otherwise
    the same ones for a given number of positions. Near the target the estimate is negative half of the time.
    With a weight map, only positions of weight 0.5 or more are drawn.
    """

    def __init__(
        self,
        target: Tensor,
        *,
        estimator: Estimator = "full",
        samples: int = 1024,
        bandwidth: float = 1.0,
        relative: bool = False,
        fresh: bool = True,
        seed: int = 0,
        weight: Tensor | None = None,
    ) -> None:
        if estimator not in _ESTIMATORS:
            raise UsageError(f"MMD has no estimator '{estimator}': {did_you_mean(estimator, _ESTIMATORS)}")
        self.estimator, self.samples, self.fresh, self.seed = estimator, samples, fresh, seed
        self.generator = torch.Generator().manual_seed(seed)
        self.target = _positions(target.detach(), weight)
        # As a map one column wide, which is what the moments take.
        self.square = bandwidth * _spread(
            target.detach() if weight is None else self.target.T[None, ..., None]
        )
        self.unit = 1.0
        if relative:
            # A point mass at zero features: k(0, 0) = 1.
            some = self._draw(self.target)
            near = self._kernel(some, torch.zeros_like(some[:1])).mean()
            self.unit = float((1 + self._within(some) - 2 * near).clamp(min=1e-6))

    def __call__(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        if not self.fresh:
            self.generator.manual_seed(self.seed)
        found, target = self._draw(_positions(features, weight)), self._draw(self.target)
        if self.estimator == "linear":
            count = min(len(found), len(target))
            across = self._pairwise(found[:count], target[:count].roll(1, 0))
            return (self._chain(found) + self._chain(target) - 2 * across) / self.unit
        across = self._kernel(found, target).mean()
        return (self._within(found) + self._within(target) - 2 * across) / self.unit

    def _draw(self, vectors: Tensor) -> Tensor:
        if self.estimator == "full" and len(vectors) <= self.samples:
            return vectors
        order = torch.randperm(len(vectors), generator=self.generator)[: self.samples]
        return vectors[order.to(vectors.device)]

    def _within(self, vectors: Tensor) -> Tensor:
        """The mean kernel over pairs of different positions."""
        count = len(vectors)
        if count < 2:
            return vectors.new_ones(())
        return (self._kernel(vectors, vectors).sum() - count) / (count * (count - 1))

    def _chain(self, vectors: Tensor) -> Tensor:
        """The mean kernel over disjoint pairs of positions."""
        half = len(vectors) // 2
        if half == 0:
            return vectors.new_ones(())
        return self._pairwise(vectors[:half], vectors[half : 2 * half])

    def _pairwise(self, first: Tensor, second: Tensor) -> Tensor:
        return (-(first - second).square().sum(1) / (2 * self.square)).exp().mean()

    def _kernel(self, first: Tensor, second: Tensor) -> Tensor:
        """The kernel matrix (N, M) of N and M positions."""
        lengths = first.square().sum(1)[:, None] + second.square().sum(1)
        # Rounding can make the distance from a position to itself negative.
        distance = (lengths - 2 * first @ second.T).clamp(min=0)
        return (-distance / (2 * self.square)).exp()


def _means(features: Tensor, weight: Tensor | None = None) -> Tensor:
    return channel_moments(features, weight=weight)[0].flatten(1)


def _squares(values: Tensor) -> Tensor:
    """The sum of squares of each batch element, averaged over the batch."""
    return values.square().flatten(1).sum(1).mean()


def _positions(features: Tensor, weight: Tensor | None = None) -> Tensor:
    """The vectors (N, C) of features (1, C, H, W) at positions with weight, in float32 or better."""
    if len(features) != 1:
        raise ValueError(f"the Gaussian kernel loss expects a batch of one picture, got {len(features)}")
    vectors = features[0].flatten(1).T.to(torch.promote_types(features.dtype, torch.float32))
    if weight is None:
        return vectors
    flat = weight.flatten()
    return vectors[flat >= flat.max().clamp(max=0.5)]


def _spread(features: Tensor) -> Tensor:
    """The mean squared distance between two positions: twice the trace of the covariance."""
    _, deviation = channel_moments(features, eps=0.0)
    mean_square = features.to(torch.promote_types(features.dtype, torch.float32)).square().mean((2, 3)).sum()
    # A flat style has no spread; fall back on the scale of its features.
    return torch.maximum(2 * deviation.square().sum(), 1e-4 * mean_square).clamp(min=1e-12)


def _positive(unit: Tensor) -> Tensor:
    return unit.clamp(min=1e-12)
