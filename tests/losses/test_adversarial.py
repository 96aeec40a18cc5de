"""Losses against a critic, by closed forms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from atelier.losses.adversarial import distance_penalty, hinge, least_squares, logistic, slope_penalty

SLOPE = torch.tensor([3.0, 0.0, 4.0])


def linear(pictures: Tensor) -> Tensor:
    """A critic whose gradient is the same everywhere: its squared norm is 25 a pixel."""
    return (pictures * SLOPE[:, None, None]).sum((1, 2, 3))


def test_penalties_of_a_linear_critic() -> None:
    pictures = torch.rand(5, 3, 2, 2, requires_grad=True)
    assert math.isclose(distance_penalty(linear, pictures), (10 - 1) ** 2, rel_tol=1e-5)
    assert math.isclose(slope_penalty(linear(pictures), pictures), 0.5 * 100, rel_tol=1e-5)


def test_penalties_teach_the_critic() -> None:
    slope, pictures = torch.tensor(2.0, requires_grad=True), torch.rand(4, 1, 1, 1, requires_grad=True)
    slope_penalty(slope * pictures.sum((1, 2, 3)), pictures).backward()
    assert torch.isclose(slope.grad, torch.tensor(2.0))  # of slope^2 / 2


def test_scores() -> None:
    scores = torch.tensor([-2.0, 0.5])
    assert math.isclose(least_squares(scores, 1), (9 + 0.25) / 2)
    assert math.isclose(hinge(scores, 1), (3 + 0.5) / 2)
    assert math.isclose(hinge(scores, -1), (0 + 1.5) / 2)
    expected = (math.log1p(math.exp(2)) + math.log1p(math.exp(-0.5))) / 2
    assert math.isclose(logistic(scores, 1), expected, rel_tol=1e-6)
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(0.5))) / 2
    assert math.isclose(logistic(scores, 0), expected, rel_tol=1e-6)
