"""Cholesky-WCT: whitening and colouring with Cholesky factors.

Wen, Gao & Zou 2023 (section 3.2) use Cholesky factors instead of eigenvectors: with K = L L' for the
covariances, T = L_s L_c^-1 maps that of the content to that of the style. T is the only such map that is
lower triangular with a positive diagonal. It costs a fraction of an eigendecomposition and is differentiable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

#: The published value, added to the diagonal of a covariance without a factor until it has one.
RIDGE = 2e-5
# A pivot (L_ii squared) below this fraction of the largest variance is rounding; its inverse is noise.
_NOISE = 1e-9
_TRIES = 64
_BLOCK = 1024


class Gaussian(NamedTuple):
    """A mean (B, C) and the lower Cholesky factor (B, C, C) of a covariance, in float64."""

    mean: Tensor
    root: Tensor


#: Pairs of a weight and statistics.
Weighted = Sequence[tuple[float, Gaussian]]


def gaussian(features: Tensor, where: Tensor | None = None) -> Gaussian:
    """The mean and the Cholesky factor of the unbiased covariance of features (B, C, H, W).

    `where` (H, W), bool, selects positions. Singular covariances (flat pictures, fewer positions than
    channels) are regularised; see `factor`.
    """
    vectors = _vectors(features)
    vectors = vectors if where is None else vectors[:, where.flatten()]
    mean = _mean(vectors)
    return Gaussian(mean, factor(_covariance(vectors, mean)))


def factor(covariance: Tensor) -> Tensor:
    """The lower triangular L with L L' = `covariance` (B, C, C); NaN for NaN.

    A singular covariance gets a growing multiple of the identity until it has a factor.

    >>> factor(torch.tensor([[[4.0, 2.0], [2.0, 5.0]]])).tolist()
    [[[2.0, 0.0], [1.0, 2.0]]]
    """
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    largest = covariance.detach().diagonal(dim1=-2, dim2=-1).amax(-1)
    # The published constant alone would be negligible for features on a larger scale than the paper's.
    step = (_NOISE * largest).clamp(min=RIDGE)
    ridge, total = torch.zeros_like(step), torch.zeros_like(step)
    root = covariance
    for _ in range(_TRIES):
        root, problem = torch.linalg.cholesky_ex(covariance + total[:, None, None] * identity)
        pivots = root.detach().diagonal(dim1=-2, dim2=-1).amin(-1).square()
        bad = (problem > 0) | (pivots <= _NOISE * largest)
        if not bad.any():
            break
        ridge = torch.where(bad, ridge + step, ridge)
        total = torch.where(bad, total + ridge, total)
    return root


def interpolated(styles: Weighted, now: Gaussian, strength: float = 1.0) -> Gaussian:
    """Interpolates means and roots: the styles by their shares times `strength`, the content by the rest.

    This is the interpolation of the paper. The shares need not sum to 1.
    """
    whole = sum(share for share, _ in styles)
    parts = [(strength * share / whole, style) for share, style in styles] + [(1 - strength, now)]
    kept = [(weight, part) for weight, part in parts if weight]
    like = now.mean.device  # cached statistics are on the CPU
    mean = torch.stack([weight * part.mean.to(like) for weight, part in kept]).sum(0)
    return Gaussian(mean, torch.stack([weight * part.root.to(like) for weight, part in kept]).sum(0))


def recoloured(features: Tensor, now: Gaussian, wanted: Gaussian) -> Tensor:
    """Features (B, C, H, W) with statistics `now`, mapped to the statistics `wanted`."""
    moved = _moved(_vectors(features), now, wanted)
    return moved.unflatten(1, features.shape[-2:]).permute(0, 3, 1, 2)  # type: ignore[no-untyped-call,no-any-return]


def recoloured_by_region(
    features: Tensor,
    places: Tensor,
    styles: Mapping[int, Weighted],
    *,
    strength: float = 1.0,
    inside: Tensor | None = None,
) -> Tensor:
    """Features (1, C, H, W), with each region mapped from its own statistics to those of its style.

    `places` (H, W) holds the labels; regions without a style do not change. Only positions `inside` (H, W),
    bool, count in the statistics.
    """
    vectors = _vectors(features)
    result = vectors.clone()
    for label, some in styles.items():
        here = places == label
        counted = here if inside is None else here & inside
        if counted.any():
            now = gaussian(features, counted)
            wanted = interpolated(some, now, strength)
            result[:, here.flatten()] = _moved(vectors[:, here.flatten()], now, wanted)
    return result.unflatten(1, features.shape[-2:]).permute(0, 3, 1, 2)  # type: ignore[no-untyped-call,no-any-return]


def _moved(vectors: Tensor, now: Gaussian, wanted: Gaussian) -> Tensor:
    change = torch.linalg.solve_triangular(now.root, wanted.root, upper=False, left=False)
    shift = wanted.mean - (change @ now.mean[..., None])[..., 0]
    like = {"device": vectors.device, "dtype": vectors.dtype}
    # Autocast would multiply in bfloat16, and the rounding would be visible in the picture.
    with torch.autocast(vectors.device.type, enabled=False):
        return torch.baddbmm(shift[:, None].to(**like), vectors, change.mT.to(**like))


def _vectors(features: Tensor) -> Tensor:
    """Features (B, C, H, W) as vectors (B, H W, C); a view if they are channels-last."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _exact(tensor: Tensor) -> Tensor:
    # Apple's GPU has no float64.
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _mean(vectors: Tensor) -> Tensor:
    """The mean (B, C) in float64: short sums in float32 for speed, their total in float64."""
    parts = torch.split(vectors, _BLOCK, 1)
    return torch.stack([_exact(part.sum(1)) for part in parts]).sum(0) / vectors.shape[1]


def _covariance(vectors: Tensor, mean: Tensor) -> Tensor:
    """The unbiased covariance (B, C, C) in float64; vectors are centred before they are multiplied."""
    parts = [_exact(part) - mean[:, None] for part in torch.split(vectors, _BLOCK, 1)]
    return torch.stack([part.mT @ part for part in parts]).sum(0) / max(1, vectors.shape[1] - 1)
