"""Oklab, and the colour step of NNST: the hues of the photo with the spread of the style's hues.

Ottosson 2020, "A perceptual color space for image processing". The colour step reproduces the code of Kolkin
et al. 2022 (NNST), including its numbers: it skips the sRGB transfer function and uses rounded inverse
matrices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.maths.roots import power

_RGB_TO_LMS = (
    (0.4121656120, 0.5362752080, 0.0514575653),
    (0.2118591070, 0.6807189584, 0.1074065790),
    (0.0883097947, 0.2818474174, 0.6302613616),
)
_ROOTS_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_LAB_TO_ROOTS = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_LMS_TO_RGB = (
    (4.0767245293, -3.3072168827, 0.2307590544),
    (-1.2681437731, 2.6093323231, -0.3411344290),
    (-0.0041119885, -0.7034763098, 1.7068625689),
)
#: A style with less chroma variance is grey, so the result takes its colours instead of the photo's.
_GREY = 6e-5
_RIDGE = 1e-4


def rgb_to_oklab(rgb: Tensor) -> Tensor:
    """Oklab of (B, 3, H, W): lightness 0..1, a and b about -0.3..0.3; sRGB values are taken as linear."""
    return _mixed(_mixed(rgb.clamp(0, 1), _RGB_TO_LMS) ** (1 / 3), _ROOTS_TO_LAB)


def oklab_to_rgb(lab: Tensor) -> Tensor:
    """The inverse of `rgb_to_oklab`, clamped to 0..1."""
    return _mixed(_mixed(lab, _LAB_TO_ROOTS) ** 3, _LMS_TO_RGB).clamp(0, 1)


def photo_hues(content: Tensor, style: Tensor, picture: Tensor, *, own: bool = False) -> Tensor:
    """The lightness of `picture` with the hues of `content`, matched to the spread of the style's hues.

    All are (1, 3, H, W) in 0..1; `picture` has the size of the content. Hues are smoothed where the lightness
    is smooth. For a grey style, or with `own`, the colours of `picture` itself are moved to the mean and
    covariance of the style instead.
    """
    painted, wanted = rgb_to_oklab(picture), rgb_to_oklab(style)
    low, high = wanted.amin((2, 3), keepdim=True), wanted.amax((2, 3), keepdim=True)
    lightness = painted[:, :1].clamp(low[:, :1], high[:, :1])
    if own or float(_covariance(wanted[:, 1:]).abs().max()) < _GREY:
        mixed = moved(torch.cat([lightness, painted[:, 1:]], 1), wanted)
    else:
        hues = moved(rgb_to_oklab(content)[:, 1:], wanted[:, 1:])
        mixed = smooth_chroma(torch.cat([lightness, hues], 1))
    return oklab_to_rgb(mixed.clamp(low, high))


def moved(values: Tensor, target: Tensor) -> Tensor:
    """`values` (1, C, H, W), whitened and coloured to the mean and covariance of `target`."""
    own, wanted = _covariance(values), _covariance(target)
    ridge = _RIDGE * torch.eye(len(own)).to(own)  # limits how far nearly grey colours are stretched
    stretch = power(wanted + ridge, 0.5) @ power(own + ridge, -0.5)
    rest = (values - _mean(values)).flatten(2).double()
    return (stretch @ rest).to(values.dtype).view_as(values) + _mean(target)


def smooth_chroma(lab: Tensor, *, rounds: int = 5) -> Tensor:
    """Averages chroma over 3x3 windows `rounds` times, weighted by similarity of lightness."""
    lightness, chroma = lab[:, :1], lab[:, 1:]
    height, width = lab.shape[-2:]
    shifts = [(y, x) for y in range(3) for x in range(3)]
    around = F.pad(lightness, (1, 1, 1, 1), mode="replicate")
    weights = [
        (-10 * (around[..., y : y + height, x : x + width] - lightness).abs()).exp() for y, x in shifts
    ]
    whole = torch.stack(weights).sum(0)
    for _ in range(rounds):
        around = F.pad(chroma, (1, 1, 1, 1), mode="replicate")
        chroma = torch.zeros_like(chroma)
        for (y, x), weight in zip(shifts, weights, strict=True):
            chroma += weight * around[..., y : y + height, x : x + width]
        chroma /= whole
    return torch.cat([lightness, chroma], 1)


def _mixed(values: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", values.new_tensor(matrix), values)


def _mean(values: Tensor) -> Tensor:
    return values.mean((2, 3), keepdim=True)


def _covariance(values: Tensor) -> Tensor:
    """The covariance (C, C) over the positions of (1, C, H, W), in float64."""
    rest = (values - _mean(values))[0].flatten(1).double()
    return rest @ rest.T / rest.shape[1]
