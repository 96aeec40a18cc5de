"""Similarity of encodings, such as CLIP's: cosine, spherical, and the direction of a change.

An encoding is a vector (D,), or one per picture, (B, D). Text-guided methods compare the direction from one
encoding to another instead of the encodings themselves, because all photos lie in one part of CLIP's space
and all sentences in another (Gal et al. 2022, "StyleGAN-NADA", eq. 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_SHORTEST = 1e-12


def unit(vectors: Tensor) -> Tensor:
    """Vectors (..., D) divided by their length; the zero vector stays zero.

    >>> unit(torch.tensor([3.0, 4.0])).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    # Not a smallest length: the zero vector would have a slope of its inverse.
    return vectors / torch.where(lengths > _SHORTEST, lengths, 1.0)


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """1 - cosine of the angle between vectors (..., D), over the last dimension; 0 to 2.

    >>> cosine(torch.tensor([1.0, 0.0]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])).tolist()
    [0.0, 1.0]
    """
    return 1 - (unit(one) * unit(other)).sum(-1)


def spherical(one: Tensor, other: Tensor) -> Tensor:
    """Half the squared angle between vectors (..., D), in radians: 2 asin(|u - v| / 2)^2 for unit u and v.

    The distance of guided diffusion with CLIP. Unlike the cosine's, its slope does not fade with the angle.

    >>> round(spherical(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item(), 4)  # (pi / 2)^2 / 2
    1.2337
    """
    apart: Tensor = torch.linalg.vector_norm(unit(one) - unit(other), dim=-1)
    # The slope of asin at 1, between opposite vectors, is infinite.
    return 2 * (apart / 2).clamp(max=1 - 1e-6).asin().square()


def directional(after: Tensor, before: Tensor, wanted: Tensor, *, softness: float = 0.0) -> Tensor:
    """1 - cosine between the change from `before` to `after` and the direction `wanted`, all (..., D).

    CLIPstyler passes encodings of length 1 (Kwon & Ye 2022, eq. 2), ZeCon raw ones. The slope grows as the
    inverse of the change. With `softness` the change counts as that much longer, at right angles to it, which
    bounds the slope for a picture that starts as the content.

    >>> directional(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])).item()
    0.0
    """
    change = after - before
    if not softness:
        return cosine(change, wanted)
    lengths = (change.square().sum(-1) + softness**2).sqrt()
    return 1 - (change * unit(wanted)).sum(-1) / lengths


def rejected(distances: Tensor, threshold: float) -> Tensor:
    """The distances, 0 where they are below `threshold`: those patches already fit and are left alone.

    Kwon & Ye 2022, eq. 4: the few patches that are easiest to change would otherwise dominate.

    >>> rejected(torch.tensor([0.25, 0.75]), 0.7).tolist()
    [0.0, 0.75]
    """
    return torch.where(distances < threshold, 0.0, distances)


class DirectionLoss:
    """Directional losses towards several directions, such as those of several texts, each with a weight.

    `before` (D,) is the encoding of the content, normalised here; `wanted` are directions (D,).
    Distances below the direction's own threshold count as 0. `softness` is that of `directional`.

    >>> loss = DirectionLoss(torch.tensor([1.0, 0.0]), [torch.tensor([-1.0, 1.0])], [2.0])
    >>> loss(torch.tensor([[0.0, 5.0]])).item()
    0.0
    """

    def __init__(
        self,
        before: Tensor,
        wanted: Sequence[Tensor],
        weights: Sequence[float],
        *,
        thresholds: Sequence[float] | None = None,
        softness: float = 0.0,
    ) -> None:
        self.before = unit(before.detach())
        self.wanted = [unit(one.detach()) for one in wanted]
        self.weights, self.softness = weights, softness
        self.thresholds = thresholds or [0.0] * len(self.wanted)

    def __call__(self, encodings: Tensor) -> Tensor:
        return self.distances(encodings).mean()

    def distances(self, encodings: Tensor) -> Tensor:
        """The weighted sum of the distances to all directions, (B,), for encodings (B, D)."""
        after, total = unit(encodings), encodings.new_zeros(len(encodings))
        for weight, wanted, threshold in zip(self.weights, self.wanted, self.thresholds, strict=True):
            apart = directional(after, self.before, wanted, softness=self.softness)
            total = total + weight * rejected(apart, threshold)
        return total
