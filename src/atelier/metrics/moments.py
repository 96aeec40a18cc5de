"""How far the result's style is from the style picture's, by means and deviations of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from atelier.maths import channel_moments
from atelier.metrics.base import STYLE_TAPS, Encoder, style_distance


@dataclass(frozen=True)
class MomentDistance:
    """Relative distance of each channel's mean and standard deviation, from 0 (the same style) upwards.

    After Huang & Belongie 2017, eq. 12, without the square. Raises `InputError` for a picture that is too
    small to reach the deepest of `taps`.
    """

    name: ClassVar[str] = "moments"
    higher_is_better: ClassVar[bool] = False

    encoder: Encoder
    taps: Sequence[str] = STYLE_TAPS

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Tensor) -> float:
        return style_distance(_moments, result, style, self.encoder, self.taps)


def _moments(features: Tensor) -> Tensor:
    return torch.cat(channel_moments(features))
