"""Layouts of pictures: those of PyTorch, (1, C, H, W), and of NumPy and OpenCV, (H, W, C); and padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atelier.core.lazy import torch

if TYPE_CHECKING:
    Floats = npt.NDArray[np.float32]


def to_array(tensor: torch.Tensor) -> Floats:
    """A picture or features (1, C, H, W) of any device and float type as a float32 array (H, W, C)."""
    return np.ascontiguousarray(tensor[0].permute(1, 2, 0).float().cpu().numpy())


def to_tensor(array: Floats) -> torch.Tensor:
    """A picture or features (H, W, C) as a contiguous CPU tensor (1, C, H, W); always a copy."""
    return torch.from_numpy(array.transpose(2, 0, 1)[None].copy())


def padded(picture: torch.Tensor, smallest: int, multiple: int = 1) -> torch.Tensor:
    """A picture (B, C, H, W) with its last row and column repeated up to sides that a network takes.

    >>> import torch
    >>> tuple(padded(torch.zeros(1, 3, 5, 17), 8, 4).shape)
    (1, 3, 8, 20)
    """
    height, width = picture.shape[-2:]
    down, right = (max(smallest, side + -side % multiple) - side for side in (height, width))
    if not (down or right):
        return picture
    return torch.nn.functional.pad(picture, (0, right, 0, down), mode="replicate")
