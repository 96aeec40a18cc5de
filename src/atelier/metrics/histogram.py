"""How far the result's colours are from the style picture's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.metrics.base import Style, picture_style

#: Bins a side over -3..3 of the log ratios, and the width of a colour's kernel.
BINS, SIGMA = 64, 0.02
_SIDE, _EPS = 256, 1e-6


@dataclass(frozen=True)
class HistogramDistance:
    """Hellinger distance of RGB-uv histograms, 0..1; 0 is the same palette.

    Afifi et al. 2021 (HistoGAN), eqs. 1 to 4, as StyleID evaluates it: a picture with a side above 256 px is
    squeezed into 256x256.
    """

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        one, other = histogram(result), histogram(picture_style(style))
        return float((one.sqrt() - other.sqrt()).square().sum().sqrt() / 2**0.5)


def histogram(picture: Tensor) -> Tensor:
    """The RGB-uv histogram (1, 3, 64, 64) of a picture (1, 3, H, W), which sums to 1.

    For each channel it counts the log ratios to the other two, weighted by the pixel's brightness.
    """
    picture = picture.clamp(0, 1)
    if max(picture.shape[-2:]) > _SIDE:
        picture = F.interpolate(picture, (_SIDE, _SIDE), mode="bilinear", align_corners=False)
    colours = picture[0].flatten(1).T.float()
    bright = (colours.square().sum(1) + _EPS).sqrt()[:, None]
    logs = (colours + _EPS).log()
    bins = torch.linspace(-3, 3, BINS, dtype=torch.float64, device=picture.device)
    planes = []
    for channel, (u, v) in enumerate(((1, 2), (0, 2), (0, 1))):
        first, second = (_kernel(logs[:, channel] - logs[:, other], bins) for other in (u, v))
        planes.append((bright * first).T @ second)
    counts = torch.stack(planes)[None]
    return counts / (counts.sum() + _EPS)


def _kernel(ratios: Tensor, bins: Tensor) -> Tensor:
    """The inverse quadratic kernel (N, 64) of log ratios (N,)."""
    return (1 / (1 + ((ratios[:, None] - bins).abs() / SIGMA).square())).float()
