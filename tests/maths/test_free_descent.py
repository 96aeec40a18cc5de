"""Descent without a fixed range, and on the levels of a pyramid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from atelier.maths.free_descent import FreeDescent, PyramidDescent
from atelier.maths.pyramid import merge, split

TARGET = torch.linspace(-2, 3, 60).view(1, 3, 4, 5)
START = torch.full((1, 3, 4, 5), 0.5)


def quadratic(values: Tensor) -> dict[str, Tensor]:
    return {"near": (values - TARGET).square().sum()}


def pyramid(objective: Any = quadratic, **options: Any) -> PyramidDescent:
    return PyramidDescent(objective, split=lambda image: split(image, 3), merge=merge, **options)


@pytest.mark.parametrize(
    "options", [{"optimiser": "adam", "iterations": 500}, {"optimiser": "lbfgs", "iterations": 30}]
)
def test_a_minimum_outside_0_to_1_is_found(options: dict[str, Any]) -> None:
    found = FreeDescent(quadratic, **options).run(START)
    assert (found - TARGET).abs().max() < 0.01


def test_tensors_of_any_shape_are_optimised() -> None:
    start = torch.zeros(7, 2)
    found = FreeDescent(lambda x: {"one": (x - 4).square().sum()}, optimiser="lbfgs", iterations=20).run(
        start
    )
    assert (found - 4).abs().max() < 1e-3


def test_the_average_is_not_clamped() -> None:
    descent = FreeDescent(lambda x: {"none": 0 * x.sum()}, iterations=5, average=0.5)
    assert torch.allclose(descent.run(TARGET), TARGET, atol=1e-5)


def test_a_stop_or_a_loss_that_is_not_finite_ends_the_descent() -> None:
    calls: list[int] = []

    def stop(done: int, terms: Mapping[str, float], picture: Callable[[], Tensor]) -> bool:
        calls.append(done)
        assert picture().shape == START.shape
        return done < 3

    FreeDescent(quadratic, iterations=10, report=stop).run(START)
    pyramid(iterations=10, report=stop).run(START)
    assert calls == [1, 2, 3, 1, 2, 3]
    nan = pyramid(lambda x: {"bad": x.sum() * torch.nan}, iterations=4)
    assert torch.equal(nan.run(START), START)
    assert nan.failed


def test_a_start_outside_0_to_1_is_returned_after_failure() -> None:
    assert torch.equal(FreeDescent(lambda x: {"bad": x.sum() * torch.nan}, iterations=4).run(TARGET), TARGET)


@pytest.mark.parametrize("rule", ["rmsprop", "adam"])
def test_a_pyramid_finds_the_minimum(rule: Any) -> None:
    descent = pyramid(rule=rule, iterations=900, step_size=0.01)
    found = descent.run(START)
    assert (descent.image - TARGET).abs().max() < 0.1
    assert (found - TARGET.clamp(0, 1)).abs().max() < 0.1
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_first_step_moves_every_level() -> None:
    # RMSprop's first step is ten times its step size for any gradient, at each of the three levels.
    flat = pyramid(lambda x: {"up": -x.sum()}, iterations=2, step_size=0.01)
    flat.run(START)
    assert (flat.image - START).mean().item() == pytest.approx(0.3, rel=1e-3)


def test_a_pyramid_returns_the_last_image_not_the_lowest_loss() -> None:
    seen: list[Tensor] = []

    def rising(image: Tensor) -> dict[str, Tensor]:
        seen.append(image.detach().clone())
        total = image.sum()
        return {"loss": total - total.detach() + len(seen)}

    found = pyramid(rising, iterations=4, step_size=0.001).run(START)
    assert torch.equal(found, seen[-1].clamp(0, 1))
    seen.clear()
    averaged = pyramid(rising, iterations=4, step_size=0.001, average=0.5).run(START)
    expected = sum(2.0**index * image for index, image in enumerate(seen)) / 15  # type: ignore[misc]
    assert torch.allclose(averaged, expected, atol=1e-6)


def test_the_start_is_not_modified() -> None:
    start = START.clone()
    pyramid(iterations=3).run(start)
    assert torch.equal(start, START)
