"""How far the result's style is from the style picture's, by Gram matrices of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from atelier.maths import gram
from atelier.metrics.base import STYLE_TAPS, Encoder, style_distance


@dataclass(frozen=True)
class GramDistance:
    """Relative distance of Gram matrices, from 0 (the same style) upwards; about 1 is an unrelated picture.

    After Gatys et al. 2016, eq. 4, without the square. Raises `InputError` for a picture that is too small
    to reach the deepest of `taps`.
    """

    name: ClassVar[str] = "Gram"
    higher_is_better: ClassVar[bool] = False

    encoder: Encoder
    taps: Sequence[str] = STYLE_TAPS

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Tensor) -> float:
        return style_distance(gram, result, style, self.encoder, self.taps)
