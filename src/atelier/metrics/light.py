"""How much of the content's light and dark is still there, at a small size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from atelier.colour import rgb_to_lab
from atelier.core.errors import InputError
from atelier.images.resize import resize
from atelier.metrics.base import Style

#: A quarter of this is the side of the window of SSIM.
_SMALLEST = 28


@dataclass(frozen=True)
class LightSimilarity:
    """SSIM (Wang et al. 2004) of CIE lightness at a quarter of the content's size, -1..1; 1 is the same.

    The small size leaves out brush strokes and keeps shapes. A result of another size is brought to the
    content's. Raises `InputError` for a content of less than 28 px a side.
    """

    @torch.inference_mode()
    def __call__(self, result: Tensor, content: Tensor, style: Style) -> float:
        height, width = content.shape[-2:]
        if min(height, width) < _SMALLEST:
            raise InputError(
                f"A picture of {width}x{height} px is too small to compare its light: "
                f"{_SMALLEST} px a side are needed."
            )
        small = (height // 4, width // 4)
        one, other = (
            rgb_to_lab(resize(picture, small))[0, 0].double().cpu().numpy() / 100
            for picture in (result, content)
        )
        return float(structural_similarity(one, other, data_range=1.0))  # type: ignore[no-untyped-call]
