"""Coarse to fine: the sizes of an optimisation, and the Laplacian pyramid.

Burt & Adelson 1983, "The Laplacian Pyramid as a Compact Image Code", here with bilinear interpolation and
exact reconstruction at all sizes, including odd ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from atelier.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def sizes(
    final: tuple[int, int], *, smallest: int = 128, levels: int | None = None, ratio: float = 2.0
) -> list[tuple[int, int]]:
    """Sizes (height, width) from coarse to fine, in a geometric sequence that ends at `final`.

    The long side always starts at `smallest`, because the first size determines how large brush strokes are.
    The factor between sizes is as close to `ratio` as possible; `levels` fixes the number of sizes instead. A
    picture no larger than `smallest` has one size.

    >>> sizes((512, 384), smallest=128)
    [(128, 96), (256, 192), (512, 384)]
    >>> sizes((1000, 500), smallest=100, levels=2)
    [(100, 50), (1000, 500)]
    """
    growth = max(final) / smallest
    if growth <= 1 or levels == 1:
        return [final]
    steps = (levels - 1) if levels is not None else max(1, round(math.log(growth, ratio)))
    scales = [growth ** (step / steps - 1) for step in range(steps)]
    return [_scaled(final, scale) for scale in scales] + [final]


#: How levels are halved: "antialiased", rounded up; "floored", without a filter and rounded down, as in the
#: code of Kolkin et al. 2022 (NNST); or "corners", sampled with aligned corners, as in the code of Kolkin et
#: al. 2019 (STROTSS). The choice changes the result of an optimisation over the levels.
Halving = Literal["antialiased", "floored", "corners"]


def split(image: Tensor, levels: int, *, halving: Halving = "antialiased") -> list[Tensor]:
    """The Laplacian pyramid of an image (B, C, H, W): `levels` - 1 details, fine to coarse, and the residual.

    Each level has half the side of the previous one; `merge` with the same `halving` is the inverse. Once a
    side is too short to be halved, "floored" returns fewer levels, and the others keep it at one pixel.
    """
    pyramid = []
    for _ in range(levels - 1):
        if halving == "floored" and min(image.shape[-2:]) < 2:
            break
        coarse = _halved(image, halving)
        pyramid.append(image - _enlarged(coarse, image, halving))
        image = coarse
    return [*pyramid, image]


def merge(pyramid: Sequence[Tensor], *, halving: Halving = "antialiased") -> Tensor:
    """The image (B, C, H, W) of a Laplacian pyramid. Differentiable, so the levels can be optimised."""
    *details, image = pyramid
    for detail in reversed(details):
        image = detail + _enlarged(image, detail, halving)
    return image


def _halved(image: Tensor, halving: Halving) -> Tensor:
    height, width = image.shape[-2:]
    if halving == "antialiased":
        size = ((height + 1) // 2, (width + 1) // 2)
        return torch.nn.functional.interpolate(
            image, size, mode="bilinear", align_corners=False, antialias=True
        )
    size = (max(1, height // 2), max(1, width // 2))
    return torch.nn.functional.interpolate(image, size, mode="bilinear", align_corners=halving == "corners")


def _enlarged(coarse: Tensor, like: Tensor, halving: Halving) -> Tensor:
    return torch.nn.functional.interpolate(
        coarse, like.shape[-2:], mode="bilinear", align_corners=halving == "corners"
    )


def _scaled(final: tuple[int, int], scale: float) -> tuple[int, int]:
    height, width = (max(1, math.floor(side * scale + 0.5)) for side in final)
    return height, width
