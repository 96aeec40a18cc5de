"""Losses of networks against a critic: scores of real and made pictures, and penalties on the critic's slope.

Critics return scores of any shape, high for real pictures.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def least_squares(scores: Tensor, target: float) -> Tensor:
    """The mean squared distance of scores from `target` (Mao et al. 2017, equation 2, without the half)."""
    return (scores - target).square().mean()


def logistic(scores: Tensor, target: float) -> Tensor:
    """The cross entropy of scores as logits with `target`, 1 for real and 0 for made pictures.

    With target 1 for made pictures, it is the generator's loss that does not saturate (Goodfellow et al.
    2014, section 3).

    >>> round(logistic(torch.zeros(4), 1.0).item(), 4)  # log 2
    0.6931
    """
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


def hinge(scores: Tensor, sign: float) -> Tensor:
    """The mean of max(0, 1 - sign * score): 0 where all scores lie beyond 1 on the side of `sign`."""
    return F.relu(1 - sign * scores).mean()


def distance_penalty(critic: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """The gradient penalty of WGAN-GP at pictures (B, 3, H, W) (Gulrajani et al. 2017, equation 3).

    The mean over pictures of (norm - 1)^2, with the norm of the gradient of the sum of all scores.
    """
    pictures = pictures.detach().requires_grad_()
    norm = _slope(critic(pictures), pictures).square().sum(1).sqrt()
    return (norm - 1).square().mean()


def slope_penalty(scores: Tensor, pictures: Tensor) -> Tensor:
    """R1 of a critic: half the mean of the squared norm of the gradient (Mescheder et al. 2018, equation 9).

    `scores` are those of real `pictures` (B, 3, H, W), which require gradients.
    """
    return 0.5 * _slope(scores, pictures).square().sum(1).mean()


def _slope(scores: Tensor, pictures: Tensor) -> Tensor:
    """The gradient (B, N) of the sum of all scores with respect to each picture, differentiable."""
    (slope,) = torch.autograd.grad(scores.sum(), pictures, create_graph=True)
    return slope.flatten(1)
