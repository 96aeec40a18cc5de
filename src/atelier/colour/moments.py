"""Preserve the colours of the content, or match the colour moments of another picture.

All functions take and return sRGB (B, C, H, W) in 0..1 unless stated otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from atelier.colour.cielab import lab_to_rgb, rgb_to_lab
from atelier.core.errors import InputError
from atelier.maths.roots import power
from atelier.maths.running import held

#: Five 8-bit levels.
_NOISE = 0.02
#: Rows processed at a time, so that float64 copies stay small.
_STRIP = 256


def keep_colour(result: Tensor, content: Tensor) -> Tensor:
    """The lightness of `result` with the chroma of `content`, both (B, 3, H, W) with the same size.

    Gatys et al., "Preserving color in neural artistic style transfer", 2016, section 3.2 (luminance-only
    transfer), in CIELAB instead of YIQ. Raises InputError if the sizes differ.
    """
    if result.shape[-2:] != content.shape[-2:]:
        raise InputError(
            f"colours can only be kept between pictures of the same size, not {tuple(result.shape[-2:])} "
            f"and {tuple(content.shape[-2:])}: resize one"
        )
    chroma = rgb_to_lab(content)[:, 1:].expand(result.shape[0], -1, -1, -1)
    return lab_to_rgb(torch.cat([rgb_to_lab(result)[:, :1], chroma], dim=1))


def match_moments(
    image: Tensor, reference: Tensor, *, where: Tensor | None = None, noise: float = 0.0
) -> Tensor:
    """Maps `image` linearly to the colour mean and covariance of `reference`; not clamped.

    Both are (B, C, H, W) of any size; a reference with a batch size of 1 applies to the whole batch. The
    linear Monge-Kantorovich map moves colours least: T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2 for covariances A
    to B (Pitié and Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based colour
    transfer", 2007). It is computed in float64. Directions in which `image` has no variance (flat or grey
    pictures) gain none. `where` (B, 1, H, W), 0..1, weights the pixels of the image for its moments. `noise`
    is the standard deviation that counts as noise: directions with little more are not stretched to the
    reference.
    """
    found = _between(image, reference, where, noise)
    moved = torch.empty_like(image)
    for strip, place in zip(_strips(image), _strips(moved), strict=True):
        place.copy_(_moved(strip, *found))
    return moved


def lend_colours(
    picture: Tensor,
    styles: Sequence[Tensor],
    shares: Sequence[float] | Tensor,
    strength: float = 1.0,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Moves a picture (1, 3, H, W) towards the colour moments of its styles, clamped to 0..1.

    `shares` are either the weights of the K styles, which sum to 1, or their share of every pixel
    (K, 1, H, W). With maps, each style's part of the picture takes the moments of that style, and pixels
    without a style do not change. `strength` 0..1 blends with the original. Nearly flat or grey pictures stay
    so, because stretching would only amplify noise. `out`, which may be the picture itself, receives the
    result.
    """
    maps = []
    for style, share in zip(styles, shares, strict=True):
        where = share[None] if isinstance(share, Tensor) else None
        if where is None or bool(where.any()):
            # The share for each strip: a map, or one number for all strips.
            of_strips: Iterator[Any] = itertools.repeat(share) if where is None else iter(_strips(where))
            maps.append((_between(picture, style, where, _NOISE), of_strips))
    lent = torch.empty_like(picture) if out is None else out
    for strip, place in zip(_strips(picture), _strips(lent), strict=True):
        change = torch.zeros_like(strip)
        for found, of_strips in maps:
            change += (_moved(strip, *found) - strip) * next(of_strips)
        place.copy_((strip + strength * change).clamp_(0, 1))
    return lent


def _between(
    image: Tensor, reference: Tensor, where: Tensor | None, noise: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean of the image, the Monge-Kantorovich map, and the mean of the reference."""
    mean, covariance = (held("colour", one) for one in moments_of(image, where))
    covariance = covariance + noise**2 * torch.eye(image.shape[1]).to(covariance)
    target_mean, target = moments_of(reference)
    return mean, transport(covariance, target), target_mean


def transport(covariance: Tensor, target: Tensor) -> Tensor:
    """The Monge-Kantorovich map (..., C, C) from one covariance to another: symmetric, of least change."""
    root, inverse_root = power(covariance, 0.5), power(covariance, -0.5)
    found: Tensor = inverse_root @ power(root @ target @ root, 0.5) @ inverse_root
    return found


def _moved(strip: Tensor, mean: Tensor, matrix: Tensor, target_mean: Tensor) -> Tensor:
    flat = strip.to(matrix.device).flatten(2)
    moved: Tensor = matrix.to(flat) @ (flat - mean.to(flat)) + target_mean.to(flat)
    return moved.view(strip.shape).to(strip.device)


def moments_of(image: Tensor, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean (B, C, 1) and covariance (B, C, C) of the pixels, weighted by `where`, in float64."""
    # Metal has no float64, and a 3 x 3 problem is cheap on the CPU.
    home = torch.device("cpu") if image.device.type == "mps" else image.device
    if where is None:
        where = image.new_ones((1, 1, 1, 1)).expand(len(image), 1, *image.shape[2:])
    strips = list(zip(_strips(image.to(home)), _strips(where.to(home)), strict=True))
    parts = [(one.flatten(2), share.to(one).flatten(2)) for one, share in strips]
    count = torch.stack([share.sum(2, keepdim=True).double() for _, share in parts]).sum(0)
    sums = [(one @ share.mT).double() for one, share in parts]
    mean = torch.stack(sums).sum(0) / count
    # Centred values allow short sums in float32; the total is in float64.
    centred = ((one - mean.to(one), share) for one, share in parts)
    return mean, torch.stack([((one * share) @ one.mT).double() for one, share in centred]).sum(0) / count


def _strips(maps: Tensor) -> Sequence[Tensor]:
    return torch.split(maps, _STRIP, 2)
