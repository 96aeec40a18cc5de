"""How far the result's style is from the style picture's, by Gram matrices of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atelier.maths import gram
from atelier.metrics.base import STYLE_TAPS, Encoder, Style, mean, picture_style, style_distance


@dataclass(frozen=True)
class GramDistance:
    """Relative distance of Gram matrices, from 0 (the same style) upwards; about 1 is an unrelated picture.

    After Gatys et al. 2016, eq. 4, without the square. Raises `InputError` for a picture that is too small
    to reach the deepest of `taps`.
    """

    encoder: Encoder
    taps: Sequence[str] = STYLE_TAPS

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        return mean(self.per_tap(result, picture_style(style)))

    @torch.inference_mode()
    def per_tap(self, result: Tensor, style: Tensor) -> dict[str, float]:
        """The distance at each tap."""
        return style_distance(gram, result, style, self.encoder, self.taps)


@dataclass(frozen=True)
class GramError:
    """Mean squared difference of Gram matrices F F' / (C H W), averaged over taps; 0 is the same style.

    The usual taps are relu1_1 to relu5_1 of VGG-19. Papers that report a "Gram" number leave its
    normalisation open: numbers of different papers cannot be compared.
    """

    encoder: Encoder
    taps: Sequence[str] = (*STYLE_TAPS, "relu5_1")

    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        return mean(self.per_tap(result, picture_style(style)))

    @torch.inference_mode()
    def per_tap(self, result: Tensor, style: Tensor) -> dict[str, float]:
        """The error at each tap."""
        found, wanted = self.encoder(result, self.taps), self.encoder(style, self.taps)
        return {tap: gram_error(found[tap], wanted[tap]) for tap in self.taps}


def gram_error(one: Tensor, other: Tensor) -> float:
    """Mean squared difference of the Gram matrices of two features (1, C, H, W), each over C H W."""
    first, second = (gram(features.double()) / features.shape[1] for features in (one, other))
    return float((first - second).square().mean())


def gatys_error(one: Tensor, other: Tensor) -> float:
    """The style loss of one layer, Gatys et al. 2016, eq. 4, for features (1, C, H, W) of one size."""
    _, channels, height, width = one.shape
    first, second = (gram(features.double()) * (height * width) for features in (one, other))
    return float((first - second).square().sum() / (4 * channels**2 * (height * width) ** 2))
