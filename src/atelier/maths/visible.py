"""Alpha as a weight: which pixels and which positions of a feature map count in a statistic or a search.

Hidden pixels are filled with the nearest visible colour before a network sees them, because a convolution
needs a value everywhere. That value is a copy: it must not count a second time in a mean or a covariance, nor
be found as a candidate of its own. An alpha map without any visible pixel gives no weights at all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def weight_at(seen: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """The visible share of each position of a (height, width) grid, (1, 1, height, width) in 0..1.

    `seen` is the alpha (1, 1, H, W) of the whole picture, or None where all of it is visible.

    >>> weight_at(torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]]), (1, 1)).item()
    0.75
    """
    if seen is None or not bool((seen > 0).any()):
        return None
    return F.interpolate(seen.to(torch.promote_types(seen.dtype, torch.float32)), size, mode="area")


def mask_at(seen: Tensor | None, size: tuple[int, int]) -> Tensor | None:
    """Which positions of a (height, width) grid are candidates, bool (height, width).

    They are those of which more than half is visible; on a grid too coarse for that, the most visible ones.
    """
    weight = weight_at(seen, size)
    if weight is None:
        return None
    return weight[0, 0] >= weight.max().clamp(max=0.5)


def visible_pixels(picture: Tensor, seen: Tensor | None) -> Tensor:
    """The pixels of (1, C, H, W) that are not fully transparent, as a picture (1, C, N, 1).

    For statistics that do not depend on where a pixel is. All of the picture where nothing is hidden.
    """
    if seen is None or not bool((seen > 0).any()):
        return picture
    return picture[:, :, seen[0, 0] > 0][..., None]
