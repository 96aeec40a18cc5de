"""Moment matching of features: AdaIN, whitening and colouring, CORAL.

The statistics of a style are computed once, and blended if there are several styles. Moments and
decompositions are computed in float32 or better, whatever the dtype of the features. A weight map
(B, 1, H, W), 0..1, restricts the moments to a region. Rank-deficient features (flat pictures, fewer positions
than channels) are valid input: missing directions are not amplified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from atelier.maths.moments import channel_moments
from atelier.maths.roots import one_thread, sqrtm
from atelier.maths.running import held
from atelier.maths.visible import visible_pixels

# Covariances are summed over blocks of positions, so that float32 copies stay small.
_BLOCK = 1 << 16
# Eigenvalues below this fraction of the largest come from rounding in float32 products.
_NOISE = 4 * torch.finfo(torch.float32).eps
# Deviations below this fraction of the features' scale come from rounding in float32 convolutions.
_ROUNDING = 1e-6
# Li et al.'s code treats eigenvalues below this as zero.
_NOTHING = 1e-5


class Colouring(NamedTuple):
    """The statistics of a style: a mean (B, C) and the square root (B, C, C) of a covariance, in float64."""

    mean: Tensor
    root: Tensor


def adain(
    features: Tensor,
    mean: Tensor,
    deviation: Tensor,
    *,
    strength: float = 1.0,
    eps: float = 1e-5,
    weight: Tensor | None = None,
) -> Tensor:
    """Features (B, C, H, W) with the style's `mean` and `deviation`, both (B, C, 1, 1).

    `strength` 0..1 blends the features with the result. Huang & Belongie 2017, eq. 8, with the unbiased
    variance plus `eps`, as in the authors' code.

    >>> moved = adain(torch.tensor([[[[1.0, 3.0]]]]), torch.full((1, 1, 1, 1), 10.0), torch.ones(1, 1, 1, 1))
    >>> [round(value, 2) for value in moved.flatten().tolist()]
    [9.29, 10.71]
    """
    # In half precision, sums far from zero round visibly once the gain amplifies them. So an approximate
    # mean, from a subset of positions, is subtracted first.
    centre = features[..., ::4, ::4].to(torch.promote_types(features.dtype, torch.float32))
    centre = centre.mean((2, 3), keepdim=True).to(features.dtype)
    centred = features - centre
    rest, spread = channel_moments(centred, unbiased=True, eps=eps, weight=weight)
    own_mean = rest + centre
    rest, spread = rest + (held("mean", own_mean) - own_mean), held("deviation", spread)
    # Deviations at rounding level are not stretched, so flat pictures stay flat.
    own_deviation = (spread.square() + (torch.finfo(features.dtype).eps * centre.to(rest)).square()).sqrt()
    gain = torch.lerp(own_deviation, deviation.to(own_deviation), strength) / own_deviation
    shift = torch.lerp(rest + centre, mean.to(rest), strength) - rest * gain
    return torch.addcmul(shift.to(features.dtype), centred, gain.to(features.dtype))


def colouring(features: Tensor, *, weight: Tensor | None = None) -> Colouring:
    """The statistics of a style for `whiten_and_colour`, from its features (B, C, H, W)."""
    mean, covariance = _moments(features, weight)
    return Colouring(mean, _power(covariance, 0.5, mean.new_tensor(_NOTHING)))


def blend(styles: Sequence[Colouring], shares: Sequence[float]) -> Colouring:
    """Blends several styles into one. Colouring is linear, so this equals blending their results."""
    pairs = list(zip(styles, shares, strict=True))
    mean = torch.stack([share * style.mean for style, share in pairs]).sum(0)
    return Colouring(mean, torch.stack([share * style.root for style, share in pairs]).sum(0))


def whiten_and_colour(
    features: Tensor,
    style: Colouring,
    *,
    strength: float = 1.0,
    ridge: float = 1.0,
    relative: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """Features (B, C, H, W) with the mean and covariance of `style`, blended in by `strength` 0..1.

    Li et al. 2017, eqs. 2 and 3. Their code adds the identity to the covariance of the content; here it is
    `ridge` times the identity, in units of the mean variance if `relative`. With a ridge of 0 the result has
    the covariance of the style if the features have full rank; a larger ridge amplifies weak directions less.
    """
    mean, covariance = _moments(features, weight)
    identity = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None]
    unit = trace / mean.shape[-1] if relative else torch.ones_like(trace)
    # The only variance of a flat picture is rounding, which must not be stretched to that of the style.
    rounding = max(_ROUNDING, torch.finfo(features.dtype).eps / 4)
    nothing = rounding**2 * (trace + mean.square().sum(-1, keepdim=True))
    nothing = nothing if relative else nothing.clamp(min=_NOTHING)
    whitening = _power(covariance + ridge * unit[..., None] * identity, -0.5, nothing)
    matrix = torch.lerp(identity.expand_as(whitening), style.root.to(mean) @ whitening, strength)
    return _moved(features, matrix, mean, torch.lerp(mean, style.mean.to(mean), strength))


def coral(source: Tensor, target: Tensor, *, seen: Tensor | None = None) -> Tensor:
    """`source` (B, 3, H, W) with the colours of `target`; not clamped.

    Only pixels that are visible in the alpha `seen` (1, 1, H, W) count in the statistics of the source.

    Sun, Feng & Saenko 2016, "Return of frustratingly easy domain adaptation", as implemented in the AdaIN
    authors' code: colours are standardised per channel, and the identity is added to the sums (not means) of
    their products.
    """
    shown = visible_pixels(source, seen)
    counted, own_mean, own_deviation = _standardised(shown)
    own = counted if shown is source else _standardised(source, own_mean, own_deviation)[0]
    other, mean, deviation = _standardised(target)
    identity = torch.eye(own.shape[1], dtype=own.dtype, device=own.device)
    root, wanted = (sqrtm(colours @ colours.mT + identity) for colours in (counted, other))
    moved = (wanted @ torch.linalg.solve(root, own)) * deviation + mean
    result: Tensor = moved.reshape(source.shape).to(source)
    return result


def _standardised(
    image: Tensor, mean: Tensor | None = None, deviation: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Colours (B, 3, N) with mean 0 and deviation 1, and the mean and deviation (B, 3, 1) used, in float64.

    `mean` and `deviation` replace those of the colours themselves.
    """
    colours = image.to(_exact_device(image)).double().flatten(2)
    if mean is not None and deviation is not None:
        return (colours - mean) / deviation.clamp(min=1e-6), mean, deviation
    mean = colours.mean(2, keepdim=True)
    spread = (colours - mean).square().sum(2, keepdim=True) / max(1, colours.shape[2] - 1)
    deviation = spread.sqrt()
    # The limit keeps the rounding of a constant channel from being stretched.
    return (colours - mean) / deviation.clamp(min=1e-6), mean, deviation


def _moments(features: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean (B, C) and unbiased covariance (B, C, C) in float64, from products in float32 or better."""
    exact = torch.promote_types(features.dtype, torch.float32)
    vectors = features.flatten(2).mT
    blocks = torch.split(vectors, _BLOCK, 1)
    shares: Sequence[Tensor | None] = [None] * len(blocks)
    count = vectors.new_full((1, 1), vectors.shape[1], dtype=torch.float64)
    if weight is not None:
        positions = weight.flatten(2).mT.to(exact)
        shares, count = torch.split(positions, _BLOCK, 1), positions.sum(1, dtype=torch.float64)
    pairs = list(zip(blocks, shares, strict=True))
    sums = [_shared(some.to(exact), share).sum(1).double() for some, share in pairs]
    mean = torch.stack(sums).sum(0) / torch.where(count > 0, count, 1.0)
    products = torch.zeros((), dtype=torch.float64, device=features.device)
    for some, share in pairs:
        centred = some.to(exact) - mean[:, None].to(exact)
        products = products + (centred.mT @ _shared(centred, share)).double()
    covariance = products / (count - 1).clamp(min=1)[..., None]
    home = _exact_device(features)
    return mean.to(home), covariance.to(home)


def _shared(vectors: Tensor, share: Tensor | None) -> Tensor:
    return vectors if share is None else vectors * share


def _power(matrix: Tensor, exponent: float, nothing: Tensor) -> Tensor:
    """A power of a symmetric matrix (B, C, C); eigenvalues up to `nothing` (B, 1) count as zero."""
    values, vectors = one_thread(torch.linalg.eigh, (matrix + matrix.mT) / 2)
    floor = torch.maximum(nothing, _NOISE * values[..., -1:]).clamp(min=torch.finfo(torch.float32).tiny)
    powers = torch.where(values > floor, torch.maximum(values, floor) ** exponent, 0.0)
    return (vectors * powers[..., None, :]) @ vectors.mT


def _moved(features: Tensor, matrix: Tensor, mean: Tensor, target: Tensor) -> Tensor:
    """matrix (x - mean) + target at every position, in the dtype and memory format of the features."""
    # As in `adain`, the mean is subtracted first; the target compensates for the rounding of the mean.
    centre = mean.to(features.device).to(features.dtype)
    target = target + (matrix @ (centre.to(mean) - mean)[..., None])[..., 0]
    vectors = features.flatten(2).mT - centre[:, None]
    moved = torch.baddbmm(target[:, None].to(vectors), vectors, matrix.mT.to(vectors))
    return moved.mT.reshape(features.shape)


def _exact_device(tensor: Tensor) -> torch.device:
    # MPS supports neither float64 nor the eigendecomposition.
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device
