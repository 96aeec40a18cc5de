"""Style as statistics of the features over all positions, independent of spatial layout.

Each loss takes features (B, C, H, W) of any height and width and, for the target and the picture, an
optional weight map (B, 1, H, W) in 0..1 that selects a region. The target may also be given by its mean and
covariance alone (`Gaussian`). `relative` divides by the loss of all-zero features, which makes layers,
encoders and losses comparable: a value of 1 means no style at all.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from atelier.core.errors import UsageError, did_you_mean
from atelier.maths.moments import Gaussian, channel_moments, gram, mean_and_covariance
from atelier.maths.roots import sqrtm

Scale = Literal["tutorial", "published", "relative"]

_SCALES = ("tutorial", "published", "relative")


class GramLoss:
    """Squared difference of Gram matrices (Gatys et al. 2016), or of covariances with `centred`.

    G is the Gram matrix divided by the number of positions, and N the number of channels. `scale` is
    "tutorial" for the mean of (G - G*)^2 / N^2 over the entries, as in PyTorch's neural style tutorial;
    "published" for the sum of (G - G*)^2 / (4 N^2), eq. 4 of the paper; or "relative" for the sum of
    (G - G*)^2 divided by the sum of G*^2.
    """

    def __init__(
        self,
        target: Tensor | Gaussian,
        *,
        centred: bool = False,
        scale: Scale = "tutorial",
        weight: Tensor | None = None,
    ) -> None:
        if scale not in _SCALES:
            raise UsageError(f"a Gram loss has no scale '{scale}': {did_you_mean(scale, _SCALES)}")
        self.centred = centred
        self.target = _second_moments(target, centred, weight)
        if scale == "relative":
            # A flat style has zero covariance: without this floor the loss divides rounding by rounding.
            whole = _second_moments(target, False, weight).square().mean()
            self.unit = _positive(torch.maximum(self.target.square().mean(), 1e-4 * whole))
        else:
            self.unit = torch.tensor(4.0 if scale == "published" else float(self.target.shape[1] ** 2))

    def __call__(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        found = gram(features, centred=self.centred, weight=weight)
        return (found - self.target).square().mean() / self.unit


class MomentLoss:
    """Mean squared difference of the channel means plus that of the channel standard deviations.

    Huang & Belongie 2017, eq. 12, averaged over channels and with the unbiased variance, as in their code.
    """

    def __init__(
        self, target: Tensor | Gaussian, *, relative: bool = False, weight: Tensor | None = None
    ) -> None:
        if isinstance(target, Gaussian):
            self.mean, self.deviation = target.deviations()
        else:
            self.mean, self.deviation = channel_moments(target.detach(), unbiased=True, weight=weight)
        self.unit = _positive(self.mean.square().mean() + self.deviation.square().mean()) if relative else 1.0

    def __call__(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        mean, deviation = channel_moments(features, unbiased=True, weight=weight)
        loss = (mean - self.mean).square().mean() + (deviation - self.deviation).square().mean()
        return loss / self.unit


class WassersteinLoss:
    """Squared 2-Wasserstein distance between Gaussians with the features' means and covariances.

    |m - m*|^2 + tr(S + S* - 2 (S*^1/2 S S*^1/2)^1/2) (Dowson & Landau 1982), averaged over the batch. There
    may be fewer positions than channels.
    """

    def __init__(
        self, target: Tensor | Gaussian, *, relative: bool = False, weight: Tensor | None = None
    ) -> None:
        target = target if isinstance(target, Gaussian) else target.detach()
        self.mean, self.covariance = _gaussian(target, weight)
        self.root = sqrtm(self.covariance)
        energy = self.mean.square().sum(-1) + _trace(self.covariance)
        self.unit = _positive(energy.mean()) if relative else 1.0

    def __call__(self, features: Tensor, weight: Tensor | None = None) -> Tensor:
        mean, covariance = _gaussian(features, weight)
        shift = (mean - self.mean).square().sum(-1)
        common = sqrtm(self.root @ covariance @ self.root)
        spread = _trace(covariance + self.covariance - 2 * common)
        distance = (shift + spread.clamp(min=0)).mean() / self.unit
        return distance.to(torch.promote_types(features.dtype, torch.float32)).to(features.device)


def _second_moments(target: Tensor | Gaussian, centred: bool, weight: Tensor | None) -> Tensor:
    """The Gram matrices (B, C, C) of a target, or its covariances if `centred`."""
    if not isinstance(target, Gaussian):
        return gram(target.detach(), centred=centred, weight=weight)
    if centred:
        return target.covariance
    return target.covariance + target.mean[:, :, None] * target.mean[:, None, :]


def _gaussian(features: Tensor | Gaussian, weight: Tensor | None) -> Gaussian:
    if not isinstance(features, Gaussian):
        features = mean_and_covariance(features, weight=weight)
    mean, covariance = features
    # The product of covariances squares their condition number: in float32 every channel below 1/200 of the
    # strongest would be lost. MPS supports neither float64 nor the decomposition.
    device = "cpu" if mean.device.type == "mps" else mean.device
    return Gaussian(mean.to(device).double(), covariance.to(device).double())


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _positive(unit: Tensor) -> Tensor:
    return unit.clamp(min=torch.finfo(torch.float32).tiny)
