"""Perceptual distance of the result and the content (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atelier.metrics.base import Style, alike

#: Features (B, C, H, W) at the layers that are compared, for pictures (B, 3, H, W) in 0..1.
Trunk = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class LPIPS:
    """LPIPS 0.1, from 0 (the same) to about 1.

    At each layer the features get length 1 at every position; `heads` (1, C, 1, 1) weigh the squared
    differences of channels. Without heads every channel counts alike (the paper's uncalibrated baseline).
    The result is brought to the content's size; nothing else is resized. With `grey` both pictures are
    reduced to their luminance first, as StyleID does to leave colour to the style.
    """

    trunk: Trunk
    heads: Sequence[Tensor] | None = None
    grey: bool = False

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        pictures = (alike(result, content), content)
        one, other = (_grey(picture) for picture in pictures) if self.grey else pictures
        return float(self.layers(one, other).sum())

    @torch.inference_mode()
    def layers(self, one: Tensor, other: Tensor) -> Tensor:
        """The distance (B, L) of pictures (B, 3, H, W) at each layer; their sum is LPIPS."""
        found = []
        for index, pair in enumerate(zip(self.trunk(one), self.trunk(other), strict=True)):
            first, second = (_unit(features.float()) for features in pair)
            difference = (first - second).square()
            head = difference.new_ones(1) if self.heads is None else self.heads[index].to(difference)
            found.append((difference * head).sum(1).mean((1, 2)))
        return torch.stack(found, 1)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _grey(picture: Tensor) -> Tensor:
    weights = picture.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (picture * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)
