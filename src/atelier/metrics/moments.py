"""How far the result's style is from the style picture's, by means and deviations of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atelier.maths import channel_moments
from atelier.metrics.base import STYLE_TAPS, Encoder, Style, mean, picture_style, style_distance


@dataclass(frozen=True)
class MomentDistance:
    """Relative distance of each channel's mean and standard deviation, from 0 (the same style) upwards.

    After Huang & Belongie 2017, eq. 12, without the square. Raises `InputError` for a picture that is too
    small to reach the deepest of `taps`.
    """

    encoder: Encoder
    taps: Sequence[str] = STYLE_TAPS

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        return mean(self.per_tap(result, picture_style(style)))

    @torch.inference_mode()
    def per_tap(self, result: Tensor, style: Tensor) -> dict[str, float]:
        """The distance at each tap."""
        return style_distance(_moments, result, style, self.encoder, self.taps)


def _moments(features: Tensor) -> Tensor:
    return torch.cat(channel_moments(features))
