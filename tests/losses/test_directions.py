"""Similarities of encodings: closed forms, invariants, and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from atelier.losses import directions


def plane(degrees: float, length: float = 1.0) -> torch.Tensor:
    angle = math.radians(degrees)
    return length * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_distances_are_those_of_the_angle(degrees: float) -> None:
    one, other = plane(20, 3.0), plane(20 + degrees, 0.1)
    assert directions.cosine(one, other).item() == pytest.approx(
        1 - math.cos(math.radians(degrees)), abs=1e-9
    )
    assert directions.spherical(one, other).item() == pytest.approx(math.radians(degrees) ** 2 / 2, abs=1e-9)


def test_a_direction_is_that_of_the_change() -> None:
    before, after = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 3.0]])
    wanted = torch.tensor([0.0, 10.0, 0.0])
    assert directions.directional(after, before, wanted).tolist() == pytest.approx([0, 1])


def test_softness_bounds_the_slope_at_no_change() -> None:
    """1 - x / sqrt(x^2 + s^2) along the direction, whose slope at 0 is -1 / s."""
    wanted, before = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    for change, softness in ((0.0, 0.1), (0.05, 0.1), (-0.3, 0.1), (0.7, 0.5)):
        after = torch.tensor([1.0, change], requires_grad=True)
        found = directions.directional(after, before, wanted, softness=softness)
        assert found.item() == pytest.approx(1 - change / math.hypot(change, softness), abs=1e-6)
        (slope,) = torch.autograd.grad(found, after)
        expected = -(softness**2) / math.hypot(change, softness) ** 3
        assert slope.tolist() == pytest.approx([0, expected], abs=1e-4)
    after = before.clone().requires_grad_()
    (slope,) = torch.autograd.grad(directions.directional(after, before, wanted), after)
    assert slope.abs().max() <= 1


def test_patches_that_fit_are_left_alone() -> None:
    terms = torch.tensor([0.1, 0.699, 0.7, 1.5], requires_grad=True)
    kept = directions.rejected(terms, 0.7)
    assert kept.tolist() == pytest.approx([0, 0, 0.7, 1.5])
    kept.mean().backward()
    assert terms.grad is not None
    assert terms.grad.tolist() == [0, 0, 0.25, 0.25]


def test_several_directions_are_weighted() -> None:
    before, here = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    wanted = [torch.tensor([-1.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])]
    loss = directions.DirectionLoss(before, wanted, [1.0, 2.0])
    picky = directions.DirectionLoss(before, wanted, [1.0, 2.0], thresholds=[0.4, 0.0])
    apart = [[0, 1 - 0.5], [1, 1 - math.sqrt(0.5)]]  # by direction and encoding
    assert loss(here).item() == pytest.approx(sum(apart[0]) / 2 + 2 * sum(apart[1]) / 2)
    assert picky(here).item() == pytest.approx(0.5 / 2 + 2 * sum(apart[1]) / 2)
    assert loss(5 * here).item() == pytest.approx(loss(here).item())


@pytest.mark.parametrize("name", ["cosine", "spherical"])
def test_gradients(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn((2, 3, 5), generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(getattr(directions, name), (one.requires_grad_(), other))


@pytest.mark.parametrize("name", ["cosine", "spherical"])
@pytest.mark.parametrize("other", [[0.6, 0.8], [-0.6, -0.8], [0.0, 0.0]])
def test_gradients_are_finite_at_the_ends(name: str, other: list[float]) -> None:
    """Between equal and opposite vectors, and for one without direction."""
    one = torch.tensor([0.6, 0.8], requires_grad=True)
    (slope,) = torch.autograd.grad(getattr(directions, name)(one, torch.tensor(other)), one)
    assert torch.isfinite(slope).all()
