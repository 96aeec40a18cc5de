"""Resizing: one antialiased resampler for tensors and pictures, and sizes that keep the aspect ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atelier.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]


def resize(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes (B, C, H, W) to `size` (height, width): bicubic, antialiased, clamped to the input range.

    Clamping removes the overshoot of bicubic interpolation at edges, so 0..1 stays 0..1. Differentiable.
    Raises UsageError if a side is below 1.
    """
    from torch.nn import functional

    if min(size) < 1:
        raise UsageError(f"a picture has at least 1 x 1 pixels, not {size[1]} x {size[0]}")
    if tuple(tensor.shape[-2:]) == tuple(size):
        return tensor
    scaled = functional.interpolate(tensor, size=size, mode="bicubic", align_corners=False, antialias=True)
    return scaled.clamp(tensor.detach().amin(), tensor.detach().amax())


def fit(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """(height, width) with the aspect ratio of `size` (height, width) and a longer side of `long_side`.

    Each side is at least 1. Raises UsageError if `long_side` is below 1.

    >>> fit((300, 400), 200)
    (150, 200)
    >>> fit((1, 5000), 100)
    (1, 100)
    """
    if long_side < 1:
        raise UsageError(f"a size is at least 1 pixel, not {long_side}")
    height, width = size
    longest = max(height, width)
    # (2 n l + m) // 2 m rounds n l / m in integers, without floating-point errors.
    return (
        max(1, (2 * height * long_side + longest) // (2 * longest)),
        max(1, (2 * width * long_side + longest) // (2 * longest)),
    )


def resize_arrays(
    pixels: Floats, alpha: Floats | None, size: tuple[int, int]
) -> tuple[Floats, Floats | None]:
    """`resize` for pixels (H, W, 3), weighted by alpha (H, W) so that hidden colours stay hidden."""
    import torch

    colour = torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy())
    scaled = resize(colour, size)
    veil = None
    if alpha is not None:
        cover = torch.from_numpy(alpha[None, None].copy())
        veil = resize(cover, size)
        visible = resize(colour * cover, size) / veil.clamp_min(1e-6)
        scaled = torch.where(veil > 1e-3, visible.clamp(0, 1), scaled)
        # Where hidden colours could leak through the division, alpha is small enough to be set to 0.
        veil = torch.where(veil > 1e-3, veil, 0.0)
    array = np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())
    return array, None if veil is None else veil[0, 0].numpy()
