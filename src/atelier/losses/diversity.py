"""Diversity of the pictures of a generator: an estimate of the entropy of their distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def diversity(pictures: Tensor) -> Tensor:
    """The negative mean logarithm of the distance of each of B pictures (B, C, H, W) to its nearest other.

    The estimate of Kozachenko & Leonenko in Ulyanov et al. 2017, eq. 9. Distances are root mean squares, so
    that sizes are comparable. It is 0 for a single picture, and bounded for equal ones.

    >>> pair = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    >>> round(diversity(pair / 10).item(), 3)
    2.303
    """
    if len(pictures) < 2:
        return pictures.sum() * 0
    flat = pictures.float().flatten(1)
    square = (flat[:, None] - flat[None]).square().mean(2)
    others = square + torch.diag(torch.full((len(flat),), torch.inf, device=square.device))
    return -others.amin(1).clamp(min=1e-8).log().mean() / 2
