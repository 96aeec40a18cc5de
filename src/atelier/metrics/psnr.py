"""The pixels' error as a signal-to-noise ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from atelier.metrics.base import Style, alike


@dataclass(frozen=True)
class PSNR:
    """Peak signal-to-noise ratio in decibels, -10 log10 of the mean squared error; infinite where equal.

    Of all channels, or with `luma` of the luminance.

    >>> content = torch.zeros(1, 3, 4, 4)
    >>> round(PSNR()(content + 0.1, content, content), 3)
    20.0
    """

    luma: bool = False

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        pictures = (alike(result, content).double(), content.double())
        one, other = (luminance(p) if self.luma else p for p in pictures)
        error = float((one - other).square().mean())
        return -10 * math.log10(error) if error else math.inf


def luminance(picture: Tensor) -> Tensor:
    """0.299 R + 0.587 G + 0.114 B of a picture (1, 3, H, W), as (1, 1, H, W) in float64."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64, device=picture.device)
    return torch.einsum("bchw,c->bhw", picture.double(), weights)[:, None]
