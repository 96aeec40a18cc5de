"""Upsampling and convolving at once: what a decoder does between two stages, in one transposed convolution.

Enlarging first makes a map of four times the size only to convolve it. Both steps are linear, so one kernel
does both; by nearest neighbours, of the nine numbers that each output sees only four differ, which leaves
less than half of the work.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Enlarging = Literal["nearest", "bilinear"]
_SPREADS = {"nearest": (1.0, 1.0), "bilinear": (0.25, 0.75, 0.75, 0.25)}


def upsampling_kernel(weight: Tensor, how: Enlarging) -> Tensor:
    """The kernel (I, O, k, k) of `upsampled_convolution` from that of a 3x3 convolution, (O, I, 3, 3).

    k is 4 by nearest neighbours and 6 bilinearly. Differentiable.
    """
    spread = weight.new_tensor(_SPREADS[how])
    flat = weight.flip(2, 3).transpose(0, 1).reshape(-1, 1, 3, 3)
    kernel = F.conv2d(flat, torch.outer(spread, spread)[None, None], padding=len(spread) - 1)
    return kernel.view(weight.shape[1], weight.shape[0], *kernel.shape[-2:])


def upsampled_convolution(
    state: Tensor, kernel: Tensor, bias: Tensor | None, *, zeros: bool = False
) -> Tensor:
    """Maps (B, I, H, W) enlarged to (2 H, 2 W) and convolved, (B, O, 2 H, 2 W).

    Beyond a doubled map's border lies the border itself, reflected or replicated, or else `zeros`.
    """
    state = F.pad(state, (1, 1, 1, 1), mode="constant" if zeros else "replicate")
    return F.conv_transpose2d(state, kernel, bias, stride=2, padding=1 + kernel.shape[-1] // 2)
