"""Temporal loss: motion in the content produces the same motion in the stylised frames.

Wang et al. 2020 (Consistent Video Style Transfer via Compound Regularization) derive the second frame from
the first with a smooth random motion and a little noise. The motion is then known, and training needs no
video. Wen, Gao & Zou 2023 train their video networks this way.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Standard deviation of the motion in pixels, and the spacing in pixels of the grid on which it is drawn.
MOTION, GRID = 8.0, 100
#: The largest global shift, in whole pixels along each axis.
SHIFT = 10
#: The smallest standard deviation of the second frame's noise; the largest is twice that.
NOISE = 1e-3


class TemporalLoss:
    """Mean absolute difference between the warped first frame and the second frame, both (B, C, H, W).

    `flow` (B or 1, 2, H, W) is the motion in pixels: horizontal in channel 0, vertical in channel 1.

    >>> frame = torch.rand(1, 3, 8, 8)
    >>> still = torch.zeros(1, 2, 8, 8)
    >>> TemporalLoss(still)(frame, warp(frame, still)).item()
    0.0
    """

    def __init__(self, flow: Tensor) -> None:
        self.flow = flow

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        return (warp(first, self.flow) - second).abs().mean()


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Sample frames (B, C, H, W) at (column - flow_0, row - flow_1): nearest pixel, replicated borders.

    As in the published code, positions are normalised as for `align_corners=True` but sampled with
    `align_corners=False`. This enlarges the whole frame by 1 / (W - 1), less than a pixel. Both frames of
    the loss are enlarged alike, so the comparison is unaffected.
    """
    height, width = frames.shape[-2:]
    columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
    rows = torch.arange(height, device=flow.device, dtype=flow.dtype)
    x = 2.0 * (columns - flow[:, 0]) / max(width - 1, 1) - 1.0
    y = 2.0 * (rows[:, None] - flow[:, 1]) / max(height - 1, 1) - 1.0
    grid = torch.stack([x, y], 3).expand(frames.shape[0], -1, -1, -1).to(frames.dtype)
    return F.grid_sample(frames, grid, mode="nearest", padding_mode="border", align_corners=False)


def random_flow(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A smooth random motion, (1, 2, H, W) in pixels, on the CPU."""
    height, width = size
    grid = (1, 2, max(1, height // GRID), max(1, width // GRID))
    flow = F.interpolate(
        MOTION * torch.randn(grid, generator=generator), size, mode="bilinear", align_corners=False
    )
    flow = flow + torch.randint(-SHIFT, SHIFT + 1, (1, 2, 1, 1), generator=generator)
    return _blurred(_blurred(flow, min(GRID, height), 2), min(GRID, width), 3)


def second_frame(frames: Tensor, flow: Tensor, generator: torch.Generator) -> Tensor:
    """`frames` (B, C, H, W) after the motion, with a little noise."""
    deviation = NOISE * (1 + torch.rand((), generator=generator))
    noise = deviation * torch.randn(frames.shape, generator=generator)
    return warp(frames, flow.to(frames.device)) + noise.to(frames.device)


def _blurred(flow: Tensor, length: int, axis: int) -> Tensor:
    """Mean over `length` neighbours along an axis with replicated borders, by running sums for speed."""
    before = length // 2
    first, last = flow.narrow(axis, 0, 1), flow.narrow(axis, -1, 1)
    repeated = [first] * (before + 1) + [flow] + [last] * (length - 1 - before)
    sums = torch.cat(repeated, axis).double().cumsum(axis)
    count = flow.shape[axis]
    return ((sums.narrow(axis, length, count) - sums.narrow(axis, 0, count)) / length).float()
