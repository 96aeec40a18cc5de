"""Upsampling followed by a 3x3 convolution, fused into one transposed convolution.

Upsampling first creates a map of four times the size only to convolve it. Both steps are linear, so one
kernel can do both. With nearest-neighbour upsampling, only four of the nine inputs of each output differ,
which saves more than half of the work.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Enlarging = Literal["nearest", "bilinear"]
_SPREADS = {"nearest": (1.0, 1.0), "bilinear": (0.25, 0.75, 0.75, 0.25)}


def upsampling_kernel(weight: Tensor, how: Enlarging) -> Tensor:
    """The kernel (I, O, k, k) for `upsampled_convolution` from the kernel (O, I, 3, 3) of a convolution.

    k is 4 for nearest-neighbour and 6 for bilinear upsampling. Differentiable.
    """
    spread = weight.new_tensor(_SPREADS[how])
    flat = weight.flip(2, 3).transpose(0, 1).reshape(-1, 1, 3, 3)
    kernel = F.conv2d(flat, torch.outer(spread, spread)[None, None], padding=len(spread) - 1)
    return kernel.view(weight.shape[1], weight.shape[0], *kernel.shape[-2:])


def upsampled_convolution(
    state: Tensor, kernel: Tensor, bias: Tensor | None, *, zeros: bool = False
) -> Tensor:
    """Maps (B, I, H, W) upsampled to (2 H, 2 W) and convolved: (B, O, 2 H, 2 W).

    With `zeros` the padding is zero, otherwise replicate, which equals reflect after nearest-neighbour
    upsampling.
    """
    state = F.pad(state, (1, 1, 1, 1), mode="constant" if zeros else "replicate")
    return F.conv_transpose2d(state, kernel, bias, stride=2, padding=1 + kernel.shape[-1] // 2)


def doubled_convolution(state: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Maps (B, I, H, W) doubled by nearest neighbour, mirrored and convolved: (B, O, 2 H, 2 W).

    `weight` is that of the plain convolution, (O, I, 3, 3). Without gradients it is done in one step, in a
    third of the time; training takes two steps, whose gradients are faster, and so do exported networks.
    """
    if not (torch.is_grad_enabled() or torch.compiler.is_compiling() or _is_flat(state)):
        return upsampled_convolution(state, upsampling_kernel(weight, "nearest"), bias)
    doubled = F.interpolate(state, scale_factor=2.0, mode="nearest")
    return F.conv2d(F.pad(doubled, (1, 1, 1, 1), mode="reflect"), weight, bias)


def _is_flat(state: Tensor) -> bool:
    """Whether every map is constant.

    One step rounds even and odd pixels differently. Instance normalisation divides by a deviation that would
    be this rounding alone, and a black frame would be painted as noise.
    """
    corner = state[..., :1, :1]
    # The first row settles it for nearly every picture.
    return bool((state[..., :1, :] == corner).all()) and bool((state == corner).all())
