"""Colour: CIELAB, luminance, and two ways of keeping or lending colours.

Everything takes and gives (B, C, H, W) in sRGB 0..1 unless it says otherwise. The conversions are
differentiable, with finite gradients at black.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from atelier.core.errors import InputError

# Rec. 709 primaries with the white point D65 of the 2 degree observer.
_RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE = (0.95047, 1.0, 1.08883)
_BEND = 6 / 29

# Variances below these are rounding, not colour: a flat or grey picture has directions without any.
_RELATIVE_FLOOR = 1e-10
_ABSOLUTE_FLOOR = 1e-12
#: Five shades of 255.
_NOISE = 0.02
#: Rows at a time where a copy in float64 would be large.
_STRIP = 256


def luminance(rgb: Tensor) -> Tensor:
    """Relative luminance Y (B, 1, H, W) 0..1 of linear light (IEC 61966-2-1)."""
    weights = rgb.new_tensor(_RGB_TO_XYZ[1]).view(1, 3, 1, 1)
    return (_to_linear(rgb) * weights).sum(dim=1, keepdim=True)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """CIELAB (D65): lightness 0..100, a and b about -110..110 (CIE 15:2004)."""
    matrix = rgb.new_tensor(_RGB_TO_XYZ) / rgb.new_tensor(_WHITE)[:, None]
    xyz = torch.einsum("ij,bjhw->bihw", matrix, _to_linear(rgb))
    root = torch.where(xyz > _BEND**3, xyz.clamp_min(_BEND**3) ** (1 / 3), xyz / (3 * _BEND**2) + 4 / 29)
    x, y, z = root.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """sRGB of CIELAB (D65); colours that sRGB cannot show are clipped to 0..1."""
    lightness, a, b = lab.unbind(dim=1)
    y = (lightness + 16) / 116
    root = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    xyz = torch.where(root > _BEND, root.clamp_min(_BEND) ** 3, 3 * _BEND**2 * (root - 4 / 29))
    matrix = torch.linalg.inv(torch.tensor(_RGB_TO_XYZ, dtype=torch.float64)) * torch.tensor(
        _WHITE, dtype=torch.float64
    )
    return _to_coded(torch.einsum("ij,bjhw->bihw", matrix.to(lab), xyz))


def keep_colour(result: Tensor, content: Tensor) -> Tensor:
    """The lightness of `result` with the chroma of `content`, both (B, 3, H, W) of one size.

    Gatys et al., "Preserving color in neural artistic style transfer", 2016, section 3.2
    (luminance-only transfer), in CIELAB where they use YIQ. Raises InputError where sizes differ.
    """
    if result.shape[-2:] != content.shape[-2:]:
        raise InputError(
            f"colours can be kept between pictures of one size, not {tuple(result.shape[-2:])} "
            f"and {tuple(content.shape[-2:])}: resize one"
        )
    chroma = rgb_to_lab(content)[:, 1:].expand(result.shape[0], -1, -1, -1)
    return lab_to_rgb(torch.cat([rgb_to_lab(result)[:, :1], chroma], dim=1))


def match_moments(
    image: Tensor, reference: Tensor, *, where: Tensor | None = None, noise: float = 0.0
) -> Tensor:
    """`image` moved linearly to the colour mean and covariance of `reference`; not clamped.

    Both (B, C, H, W), sizes free; a `reference` of one serves the whole batch. The map is the
    Monge-Kantorovich one, which moves colours least: T = A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2 for
    covariances A to B (Pitié and Kokaram, "The linear Monge-Kantorovitch linear colour mapping
    for example-based colour transfer", 2007), found in float64. Where `image` has no
    variance in some direction (flat, grey) there is nothing to stretch and it gains none there.
    `where` (B, 1, H, W), 0..1, says how much each place of the image counts for its moments. A deviation
    of `noise` counts as such: directions with little more are not stretched to the reference's.
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
    """A picture (1, 3, H, W) with the colour moments of its styles, as much as `strength` says; 0..1.

    `shares` are the styles' weights, which sum to 1, or their share of every pixel (K, 1, H, W): the
    moments of each style's part of the picture are then that style's, and what is no style's stays. What is
    nearly flat or grey stays so: noise would be all that could be stretched. `out`, which may be the picture
    itself, is where the result goes.
    """
    maps = []
    for style, share in zip(styles, shares, strict=True):
        where = share[None] if isinstance(share, Tensor) else None
        if where is None or bool(where.any()):
            # The share of each strip: of its pixels, or of them all.
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
    """The image's mean, the Monge-Kantorovich map, and the reference's mean."""
    mean, covariance = _moments(image, where)
    covariance = covariance + noise**2 * torch.eye(image.shape[1]).to(covariance)
    target_mean, target = _moments(reference)
    root, inverse_root = _roots(covariance)
    middle, _ = _roots(root @ target @ root)
    return mean, inverse_root @ middle @ inverse_root, target_mean


def _moved(strip: Tensor, mean: Tensor, matrix: Tensor, target_mean: Tensor) -> Tensor:
    flat = strip.to(matrix.device).flatten(2)
    moved: Tensor = matrix.to(flat) @ (flat - mean.to(flat)) + target_mean.to(flat)
    return moved.view(strip.shape).to(strip.device)


def _moments(image: Tensor, where: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(B, C, 1) mean and (B, C, C) covariance of the pixels, in float64, strip by strip."""
    # Metal has no float64, and a 3 x 3 problem is no work for the processor.
    home = torch.device("cpu") if image.device.type == "mps" else image.device
    if where is None:
        where = image.new_ones((1, 1, 1, 1)).expand(len(image), 1, *image.shape[2:])
    strips = list(zip(_strips(image.to(home)), _strips(where.to(home)), strict=True))
    parts = [(one.flatten(2), share.to(one).flatten(2)) for one, share in strips]
    count = torch.stack([share.sum(2, keepdim=True).double() for _, share in parts]).sum(0)
    sums = [(one @ share.mT).double() for one, share in parts]
    mean = torch.stack(sums).sum(0) / count
    # Of what is centred, short sums in float32 are exact enough, and their sum is in float64.
    centred = ((one - mean.to(one), share) for one, share in parts)
    return mean, torch.stack([((one * share) @ one.mT).double() for one, share in centred]).sum(0) / count


def _strips(maps: Tensor) -> Sequence[Tensor]:
    return torch.split(maps, _STRIP, 2)


def _roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a symmetric positive matrix and its pseudo-inverse."""
    values, vectors = torch.linalg.eigh(matrix)
    floor = (values.amax(dim=-1, keepdim=True) * _RELATIVE_FLOOR).clamp_min(_ABSOLUTE_FLOOR)
    solid = values > floor
    root = torch.where(solid, values, 0.0).sqrt()
    inverse = torch.where(solid, values.clamp_min(_ABSOLUTE_FLOOR) ** -0.5, 0.0)
    return (vectors * root[:, None]) @ vectors.mT, (vectors * inverse[:, None]) @ vectors.mT


def _to_linear(rgb: Tensor) -> Tensor:
    power = ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(rgb > 0.04045, power, rgb / 12.92)


def _to_coded(linear: Tensor) -> Tensor:
    power = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, power, 12.92 * linear).clamp(0, 1)
