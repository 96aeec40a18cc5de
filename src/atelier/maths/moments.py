"""First and second moments of features over the positions of a picture.

All functions accumulate in float32 or better, whatever the dtype of the features. A weight map (B, 1, H, W),
0..1, restricts them to a region; if it is zero everywhere, the moments are zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_MOST_BLOCKS = 16
_SUM_BLOCK = 256


class Gaussian(NamedTuple):
    """The mean (B, C) and the covariance (B, C, C) of features over their positions."""

    mean: Tensor
    covariance: Tensor

    def deviations(self, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
        """The mean and standard deviation of each channel, both (B, C, 1, 1), as `channel_moments`.

        >>> Gaussian(torch.tensor([[2.0]]), torch.tensor([[[9.0]]])).deviations(eps=0.0)[1].item()
        3.0
        """
        variance = self.covariance.diagonal(dim1=-2, dim2=-1)
        return self.mean[..., None, None], (variance + eps).sqrt()[..., None, None]


def gram(features: Tensor, *, centred: bool = False, weight: Tensor | None = None) -> Tensor:
    """The Gram matrix (B, C, C) of features (B, C, H, W), divided by the number of positions H W.

    Gatys et al. 2016 (eq. 3) use the sum; the mean makes pictures of different sizes comparable. `centred`
    subtracts the mean of each channel first, which gives the covariance.

    >>> gram(torch.tensor([[[[1.0, 3.0]]]])).item(), gram(torch.tensor([[[[1.0, 3.0]]]]), centred=True).item()
    (5.0, 1.0)
    """
    features = _computable(features)
    if centred:
        features = _centred(features, _mean(features, weight))
    if weight is not None:
        features = features * weight.sqrt().to(features.dtype)
    product: Tensor = _SelfProduct.apply(features.flatten(2).mT)  # type: ignore[no-untyped-call]
    return product / _count(features, weight).view(-1, 1, 1)


def mean_and_covariance(
    features: Tensor, *, unbiased: bool = False, weight: Tensor | None = None
) -> Gaussian:
    """The mean (B, C) and the covariance (B, C, C) of features (B, C, H, W) over their positions."""
    covariance = gram(features, centred=True, weight=weight)
    if unbiased:
        covariance = covariance * _bessel(_count(features, weight)).view(-1, 1, 1)
    return Gaussian(_mean(features, weight).flatten(1), covariance)


def channel_moments(
    features: Tensor, *, unbiased: bool = False, eps: float = 1e-5, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of each channel, both (B, C, 1, 1), of features (B, C, H, W).

    `eps` is added to the variance, so that the deviation of a constant channel has a finite gradient.

    >>> mean, deviation = channel_moments(torch.tensor([[[[1.0, 3.0]]]]), eps=0.0)
    >>> mean.item(), deviation.item()
    (2.0, 1.0)
    """
    features = _computable(features)
    mean, count = _mean(features, weight), _count(features, weight).view(-1, 1, 1, 1)
    variance = _mean(_centred(features, mean).square(), weight)
    if unbiased:
        variance = variance * _bessel(count)
    return mean, (variance + eps).sqrt()


def _computable(features: Tensor) -> Tensor:
    # Sums of squares over a picture exceed the range of float16.
    return features.float() if features.dtype == torch.float16 else features


def _count(features: Tensor, weight: Tensor | None) -> Tensor:
    """The number of positions (1,), or the sum of the weights (B,)."""
    if weight is None:
        # Neither `numel` nor `float`: they would tie an exported network to the size of its example.
        positions = features.shape[2] * features.shape[3]
        return torch.full((1,), positions, dtype=torch.float32, device=features.device)
    total = weight.sum((1, 2, 3), dtype=torch.promote_types(weight.dtype, torch.float32))
    return torch.where(total > 0, total, 1.0)


def _bessel(count: Tensor) -> Tensor:
    return count / (count - 1).clamp(min=1)


def _mean(features: Tensor, weight: Tensor | None) -> Tensor:
    """The mean (B, C, 1, 1) over positions, in float32 or better."""
    if weight is not None:
        features = features * weight.to(features.dtype)
    return _sum(features) / _count(features, weight).view(-1, 1, 1, 1)


def _centred(features: Tensor, mean: Tensor) -> Tensor:
    """Subtracts the mean before any product, because E[x x'] - mean mean' loses small variances.

    The mean is detached: its gradient from second moments is a sum of centred features, which is zero.
    """
    return features - mean.detach().to(features.dtype)


def _sum(features: Tensor) -> Tensor:
    """The sum (B, C, 1, 1) over positions, in float32 or better."""
    if features.dtype != torch.bfloat16:
        return features.sum((2, 3), keepdim=True)
    # Summing bfloat16 in float32 takes ten times as long as blockwise products with ones.
    vectors = features.flatten(2).mT
    whole = vectors.shape[1] - vectors.shape[1] % _SUM_BLOCK
    total: Tensor = vectors[:, whole:].sum(1, dtype=torch.float32)
    if whole:
        parts = vectors[:, :whole].unflatten(1, (-1, _SUM_BLOCK))  # type: ignore[no-untyped-call]
        total = total + (parts.new_ones(1, _SUM_BLOCK) @ parts).sum((1, 2), dtype=torch.float32)
    return total[..., None, None]


class _SelfProduct(torch.autograd.Function):
    """x'x of (B, P, C), in float32 or better; the gradient needs one product instead of autograd's two."""

    @staticmethod
    def forward(context: Any, vectors: Tensor) -> Tensor:
        context.save_for_backward(vectors)
        if vectors.dtype == torch.bfloat16:
            return _in_blocks(vectors)
        return vectors.mT @ vectors

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (vectors,) = context.saved_tensors
        change: Tensor = vectors @ (gradient + gradient.mT).to(vectors.dtype)
        return change


def _in_blocks(vectors: Tensor) -> Tensor:
    """x'x of bfloat16 vectors (B, P, C), block by block.

    A bfloat16 product accumulates in float32 but rounds its result to 8 bits. Summing the products of several
    blocks in float32 averages the rounding errors: 5e-4 of the matrix instead of 2e-3, in half the time of a
    float32 product.
    """
    positions, channels = vectors.shape[1:]
    blocks = max(1, min(_MOST_BLOCKS, positions // (2 * channels)))
    whole = positions - positions % blocks
    parts = vectors[:, :whole].unflatten(1, (blocks, -1))  # type: ignore[no-untyped-call]
    product: Tensor = (parts.mT @ parts).sum(1, dtype=torch.float32)
    if whole < positions:
        rest = vectors[:, whole:]
        product = product + (rest.mT @ rest).float()
    return product
