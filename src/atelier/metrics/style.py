"""How far a picture's style is from a painting's: means, deviations and Gram matrices of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atelier.features import VGG
from atelier.maths import channel_moments, gram

TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


@torch.inference_mode()
def style_distance(
    picture: Tensor, style: Tensor, encoder: VGG, taps: Sequence[str] = TAPS
) -> tuple[float, float]:
    """Distance of moments and of Gram matrices between two pictures (1, 3, H, W), 0..1, of any sizes.

    Each is the mean over `taps` of the Euclidean distance, relative to the length of the style's own
    statistics: 0 is the same style, about 1 no style at all. After Huang & Belongie 2017, eq. 12, and Gatys
    et al. 2016, eq. 4, both without the square.
    """
    found, wanted = encoder(picture, taps), encoder(style, taps)
    pairs = [(found[tap].float(), wanted[tap].float()) for tap in taps]
    moments = [_relative(_moments(one), _moments(other)) for one, other in pairs]
    grams = [_relative(gram(one), gram(other)) for one, other in pairs]
    return sum(moments) / len(taps), sum(grams) / len(taps)


def _moments(features: Tensor) -> Tensor:
    mean, deviation = channel_moments(features)
    return torch.cat([mean, deviation])


def _relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-12))
