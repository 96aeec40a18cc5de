"""Steadiness of a stylised video: does it move as the video moved?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.core.errors import InputError


@torch.inference_mode()
def warping_error(frames: Sequence[Tensor], flows: Sequence[Tensor], visible: Sequence[Tensor]) -> float:
    """Root mean squared difference of each frame and the frame before, moved along the flow; 0 is steady.

    `frames` are (1, 3, H, W) in 0..1. `flows` (1, 2, H, W) give, for each pixel of a frame, the offset in
    pixels (right, down) of its place in the frame before, one for each frame but the first. `visible`
    (1, 1, H, W) is 1 where that place was seen there. Lai et al. 2018, eq. 5, with a root; the mean over
    pairs of frames. Raises InputError for fewer than two frames or other numbers of flows.
    """
    _check(frames, flows, visible)
    errors = []
    for before, after, flow, seen in zip(frames, frames[1:], flows, visible, strict=False):
        difference = (after - moved(before, flow)).square().mean(1, keepdim=True)
        errors.append(float(((difference * seen).sum() / seen.sum().clamp(min=1)).sqrt()))
    return sum(errors) / len(errors)


@torch.inference_mode()
def flicker(
    results: Sequence[Tensor], contents: Sequence[Tensor], flows: Sequence[Tensor], visible: Sequence[Tensor]
) -> float:
    """The warping error of the results beyond that of the video itself; 0 is as steady as the video."""
    return max(0.0, warping_error(results, flows, visible) - warping_error(contents, flows, visible))


def moved(before: Tensor, flow: Tensor) -> Tensor:
    """The frame before (1, C, H, W), brought to the places of this one along `flow`, bilinear."""
    height, width = before.shape[-2:]
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=flow.dtype), torch.arange(width, dtype=flow.dtype), indexing="ij"
    )
    x = 2 * (columns.to(flow) + flow[:, 0]) / max(width - 1, 1) - 1
    y = 2 * (rows.to(flow) + flow[:, 1]) / max(height - 1, 1) - 1
    grid = torch.stack([x, y], 3).to(before.dtype)
    return F.grid_sample(before, grid, mode="bilinear", padding_mode="border", align_corners=True)


def seen_before(there: Tensor, back: Tensor) -> Tensor:
    """Where a pixel of this frame was seen in the frame before, (1, 1, H, W) of 0 and 1.

    `there` leads from this frame to the one before and `back` from that to this, as in `warping_error`. A
    place counts where going there and back returns to it (Ruder et al. 2016, eq. 5).
    """
    returned = moved(back, there)
    error = (there + returned).square().sum(1, keepdim=True)
    bound = 0.01 * (there.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)) + 0.5
    return (error < bound).to(there.dtype)


def _check(frames: Sequence[Tensor], flows: Sequence[Tensor], visible: Sequence[Tensor]) -> None:
    if len(frames) < 2 or len(flows) != len(frames) - 1 or len(visible) != len(flows):
        raise InputError(
            f"{len(frames)} frames need {max(len(frames) - 1, 1)} flows and maps of what was seen, "
            f"not {len(flows)} and {len(visible)}; at least two frames"
        )
