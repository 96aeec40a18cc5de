"""Sizes: one antialiased resampler for tensors and pictures, and the law of proportions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atelier.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]


def resize(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) at `size` (height, width): bicubic, antialiased, clamped to the range of the input.

    Clamping takes off the overshoot of bicubic at edges, so 0..1 stays 0..1. Differentiable.
    Raises UsageError where a side is below 1.
    """
    from torch.nn import functional

    if min(size) < 1:
        raise UsageError(f"a picture has at least 1 x 1 pixels, not {size[1]} x {size[0]}")
    if tuple(tensor.shape[-2:]) == tuple(size):
        return tensor
    scaled = functional.interpolate(tensor, size=size, mode="bicubic", align_corners=False, antialias=True)
    return scaled.clamp(tensor.detach().amin(), tensor.detach().amax())


def fit(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """(height, width) in the proportions of `size` (height, width), the longer side `long_side`.

    Each side is at least 1. Raises UsageError where `long_side` is below 1.

    >>> fit((300, 400), 200)
    (150, 200)
    >>> fit((1, 5000), 100)
    (1, 100)
    """
    if long_side < 1:
        raise UsageError(f"a size is at least 1 pixel, not {long_side}")
    height, width = size
    longest = max(height, width)
    # In whole numbers: (2 n l + m) // 2 m rounds n l / m, without a float's surprises.
    return (
        max(1, (2 * height * long_side + longest) // (2 * longest)),
        max(1, (2 * width * long_side + longest) // (2 * longest)),
    )


def resize_arrays(
    pixels: Floats, alpha: Floats | None, size: tuple[int, int]
) -> tuple[Floats, Floats | None]:
    """`resize` for (H, W, 3) and alpha (H, W): colours weigh by alpha, so hidden ones stay hidden."""
    import torch

    colour = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
    scaled = resize(colour, size)
    veil = None
    if alpha is not None:
        cover = torch.from_numpy(alpha[None, None].copy())
        veil = resize(cover, size)
        visible = resize(colour * cover, size) / veil.clamp_min(1e-6)
        scaled = torch.where(veil > 1e-3, visible.clamp(0, 1), scaled)
        # Where hidden colours show through the division, so little is visible that it rounds to nothing.
        veil = torch.where(veil > 1e-3, veil, 0.0)
    array = np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())
    return array, None if veil is None else veil[0, 0].numpy()
