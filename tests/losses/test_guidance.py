"""Losses in batches: the numbers and gradients of all at once; patches and the whole lead to their goals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atelier.features.views import random_patches
from atelier.losses.directions import DirectionLoss
from atelier.losses.guidance import Guidance, in_batches


class Means:
    """A tower that sees the mean colour."""

    side = 16

    def __init__(self) -> None:
        self.calls: list[int] = []

    def image(self, pictures: Tensor) -> Tensor:
        self.calls.append(len(pictures))
        return pictures.mean((2, 3))


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand((7, 3, 8, 8), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", [1, 3, 7, 16])
def test_batches_give_the_sum_and_its_gradient(pictures: Tensor, batch: int) -> None:
    def loss(some: Tensor) -> Tensor:
        return (some.square().mean((1, 2, 3)) - 0.2).square().sum()

    one, other = (pictures.clone().requires_grad_() for _ in range(2))
    (3 * loss(one)).backward()
    total = in_batches(loss, other, batch)
    assert total.item() == pytest.approx(loss(one).item())
    (3 * total).backward()
    torch.testing.assert_close(other.grad, one.grad)


def test_a_batch_is_done_with_before_the_next(pictures: Tensor) -> None:
    """Its gradient is computed at once, so that only its own intermediate results are in memory."""
    course: list[str] = []

    class Logged(torch.autograd.Function):
        @staticmethod
        def forward(context: object, some: Tensor) -> Tensor:
            course.append("seen")
            return some.sum()

        @staticmethod
        def backward(context: object, slope: Tensor) -> Tensor:
            course.append("done")
            return slope.expand(2, 3, 8, 8)

    in_batches(Logged.apply, pictures[:6].clone().requires_grad_(), 2)
    assert course == ["seen", "done"] * 3


def test_without_a_gradient_nothing_is_kept(pictures: Tensor) -> None:
    with torch.no_grad():
        total = in_batches(lambda some: some.sum(), pictures, 2)
    assert not total.requires_grad
    assert total.item() == pytest.approx(pictures.sum().item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["patches", "whole"])
def test_the_slope_leads_in_the_direction(kind: str) -> None:
    """A picture greener than its content, led towards red: more red, less blue, wherever it is seen."""
    tower, grey = Means(), torch.full((1, 3, 24, 24), 0.5)
    loss = DirectionLoss(tower.image(grey)[0], [torch.tensor([1.0, -0.5, -0.5])], [1.0])
    led = Guidance(tower, loss, loss, batch=2)
    picture = (grey + torch.tensor([0, 0.1, 0])[:, None, None]).requires_grad_()
    patches = random_patches(3, (24, 24), 12, torch.Generator().manual_seed(0))
    found = led.of_patches(picture, patches) if kind == "patches" else led.of_whole(picture)
    # Green is a direction of 120 degrees from red: 1 - cos = 1.5, from the closed form for unit vectors.
    assert found.item() == pytest.approx(1.5, abs=0.05)
    (slope,) = torch.autograd.grad(found, picture)
    # Across the present direction, green, and not along it, which changes no angle.
    red, green, blue = slope.sum((0, 2, 3)).tolist()
    assert red < 0 < blue
    assert abs(green) < 0.3 * blue
    seen = slope.abs().amax((0, 1)) > 0
    assert seen.all() if kind == "whole" else 0.1 < seen.float().mean() < 0.9
    assert max(tower.calls) <= 2
