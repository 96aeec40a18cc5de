"""Alpha as a weight: which pixels and feature-map positions count in statistics and searches.

Hidden pixels are filled with the nearest visible colour before they enter a network, because a convolution
needs a value everywhere. That value is a copy, so it must not count again in a mean or covariance, or be a
candidate in a search. If no pixel is visible, there are no weights, and everything counts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def weight_at(seen: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """The visible share of each position of a (height, width) grid, (1, 1, height, width) in 0..1.

    `seen` is the alpha (1, 1, H, W) of the whole picture, or None if all of it is visible.

    >>> weight_at(torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]]), (1, 1)).item()
    0.75
    """
    if seen is None or not bool((seen > 0).any()):
        return None
    return F.interpolate(seen.to(torch.promote_types(seen.dtype, torch.float32)), size, mode="area")


def mask_at(seen: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """Which positions of a (height, width) grid are candidates, bool (height, width).

    Candidates are at least half visible; if the grid is too coarse for that, the most visible ones are.
    """
    weight = weight_at(seen, size)
    if weight is None:
        return None
    return weight[0, 0] >= weight.max().clamp(max=0.5)


def visible_pixels(picture: Tensor, seen: Tensor | None) -> Tensor:
    """The pixels of (1, C, H, W) that are not fully transparent, as a picture (1, C, N, 1).

    For statistics that do not depend on pixel positions. If nothing is hidden, this is the whole picture.
    """
    if seen is None or not bool((seen > 0).any()):
        return picture
    return picture[:, :, seen[0, 0] > 0][..., None]
