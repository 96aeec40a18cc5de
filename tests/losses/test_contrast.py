"""Contrast loss: by hand at two positions, invariant to swapped colours, and differentiable."""

from __future__ import annotations

import pytest
import torch

from atelier.losses.contrast import ContrastLoss


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(0))


def test_two_positions_by_hand() -> None:
    loss = ContrastLoss(torch.tensor([[[[0.0, 0.3]], [[0.0, 0.4]], [[0.0, 0.0]]]]))
    far = torch.tensor([[[[0.0, 0.9]], [[0.0, 1.2]], [[0.0, 0.0]]]])
    # Of four distances, two are 1.5 in place of 0.5.
    assert loss(far).item() == pytest.approx(0.5, abs=1e-3)


def test_swapping_colours_costs_nothing() -> None:
    content = picture(70, 90)
    loss = ContrastLoss(content)
    assert loss.size == (35, 45)
    assert loss(content) == 0
    assert loss(1 - content.flip(1)) < 1e-3
    assert loss(0.5 * content) > 0.1


def test_pictures_of_any_size_use_the_contents_grid() -> None:
    loss = ContrastLoss(picture(64, 48))
    assert loss(picture(33, 25)).isfinite()
    assert ContrastLoss(picture(1, 1))(picture(1, 1)) == 0


def test_gradient() -> None:
    content, other = picture(3, 4).double(), picture(4, 3).mT.double().clone().requires_grad_()
    assert torch.autograd.gradcheck(ContrastLoss(content), (other,))
