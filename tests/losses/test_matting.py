"""The matting loss: its value, its clamped gradient, and extreme pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atelier.losses.matting import MattingLoss
from atelier.maths.matting import MattingLaplacian


def picture(height: int = 8, width: int = 9, *, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand((batch, 3, height, width), generator=torch.Generator().manual_seed(seed))


def slope(loss: MattingLoss, values: Tensor) -> Tensor:
    values = values.clone().requires_grad_()
    loss(values).backward()
    assert values.grad is not None
    return values.grad


def test_value_and_gradient_match_the_laplacian() -> None:
    content, made = picture(batch=2), picture(batch=2, seed=1)
    laplacian = MattingLaplacian(content)
    loss = MattingLoss(content, weight=0.1, limit=1e9)
    assert loss(made).item() == pytest.approx(0.1 * laplacian.energy(made).mean().item() / 72, rel=1e-5)
    # Of each picture alone: the mean over the batch is not in it.
    torch.testing.assert_close(
        slope(loss, made).double(), 0.2 * laplacian.times(made) / 72, rtol=1e-5, atol=1e-7
    )


def test_gradient_matches_the_central_difference() -> None:
    content, made = picture(), picture(seed=1)
    loss = MattingLoss(content, limit=1e9)
    step = torch.zeros_like(made)
    step[0, 1, 3, 4] = 1e-2
    # The energy is quadratic: the central difference is exact.
    difference = (loss(made.double() + step) - loss(made.double() - step)) / 2e-2
    assert slope(loss, made)[0, 1, 3, 4].item() == pytest.approx(difference.item(), rel=1e-4)


def test_gradient_entries_are_clamped() -> None:
    found = slope(MattingLoss(picture(), weight=2), picture(seed=1))
    assert found.abs().max() == pytest.approx(0.05)
    assert (found.abs() < 0.0499).any()


def test_the_content_itself_has_zero_loss() -> None:
    content = picture()
    assert MattingLoss(content, weight=1500)(0.5 * content + 0.2).item() < 1e-4


@pytest.mark.parametrize("content", [torch.full((1, 3, 8, 9), 0.5), torch.zeros(1, 3, 8, 9), picture()])
@pytest.mark.parametrize("value", [0.0, 1e6, 1e30, float("inf"), float("nan")])
def test_gradient_is_finite_for_any_input(content: Tensor, value: float) -> None:
    made = picture(seed=1) * 0 + 0.5
    made[0, 0, 4, 4] = value
    assert slope(MattingLoss(content, weight=1500), made).isfinite().all()


def test_tiny_pictures_and_no_gradient() -> None:
    assert MattingLoss(picture(2, 2))(picture(2, 2, seed=1)).item() == 0
    with torch.no_grad():
        assert MattingLoss(picture())(picture(seed=1)).item() > 0
