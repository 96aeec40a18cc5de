"""A Laplacian pyramid that halves without a filter, as the program of Kolkin et al. 2022 (NNST) has it.

Each level has half the side of the one before, rounded down; `pyramid.py` rounds up and filters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def halved(image: Tensor, depth: int) -> list[Tensor]:
    """`depth` details of (B, C, H, W), fine to coarse, and the rest; fewer where a side gets too short."""
    levels = []
    for _ in range(depth):
        height, width = image.shape[-2:]
        if min(height, width) < 2:
            break
        small = _scaled(image, (height // 2, width // 2))
        levels.append(image - _scaled(small, (height, width)))
        image = small
    return [*levels, image]


def joined(levels: Sequence[Tensor]) -> Tensor:
    """The image of a pyramid's levels; differentiable."""
    *details, image = levels
    for detail in reversed(details):
        height, width = detail.shape[-2:]
        image = detail + _scaled(image, (height, width))
    return image


def _scaled(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image, size, mode="bilinear", align_corners=False)
