"""Descent: known minima, exact counts, the best result, and stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from atelier.maths.descent import Descent

START = torch.full((1, 3, 4, 5), 0.5)
TARGET = torch.linspace(0.1, 0.9, 60).view(1, 3, 4, 5)


def quadratic(image: Tensor) -> dict[str, Tensor]:
    """The minimum is at TARGET."""
    scale = torch.linspace(1, 3, 60).view(1, 3, 4, 5)
    return {"near": (scale * (image - TARGET)).square().sum(), "none": image.sum() * 0}


class Scripted:
    """A loss with given values and a constant gradient of 1."""

    def __init__(self, *values: float) -> None:
        self.values, self.seen = list(values), list[Tensor]()

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        self.seen.append(image.detach().clone())
        value = self.values[len(self.seen) - 1]
        total = image.sum()
        return {"loss": total - total.detach() + value}


class Listener:
    def __init__(self, last: int = 10**6) -> None:
        self.last, self.calls = last, list[tuple[int, Mapping[str, float]]]()
        self.pictures = list[Tensor]()

    def __call__(self, done: int, terms: Mapping[str, float], picture: Callable[[], Tensor]) -> bool:
        self.calls.append((done, terms))
        self.pictures.append(picture())
        return done < self.last


@pytest.mark.parametrize(
    "options", [{"optimiser": "adam", "iterations": 400}, {"optimiser": "lbfgs", "iterations": 40}]
)
def test_both_optimisers_find_a_known_minimum(options: dict[str, Any]) -> None:
    found = Descent(quadratic, **options).run(START)
    assert (found - TARGET).abs().max() < 2e-3
    assert not found.requires_grad


def test_a_minimum_outside_the_range_ends_at_its_border() -> None:
    descent = Descent(lambda image: {"far": (image - 1.5).square().sum()}, iterations=120)
    assert torch.equal(descent.run(START), torch.ones_like(START))


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
@pytest.mark.parametrize("iterations", [1, 2, 19, 20, 21, 41])
def test_the_number_of_evaluations_is_exact(optimiser: Any, iterations: int) -> None:
    listener, count = Listener(), 0

    def rosenbrock(image: Tensor) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        flat = image.flatten()
        valley = 100 * (flat[1:] - flat[:-1].square()).square() + (1 - flat[:-1]).square()
        return {"valley": valley.sum()}

    descent = Descent(rosenbrock, optimiser=optimiser, iterations=iterations, step_size=1e-3, report=listener)
    descent.run(START)
    assert count == descent.done == iterations
    assert [done for done, _ in listener.calls] == list(range(1, iterations + 1))


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6])
def test_lbfgs_is_invariant_to_the_scale_of_the_loss(unit: float) -> None:
    # A mean over a large picture has small gradients; the descent must not change.
    def scaled(image: Tensor) -> dict[str, Tensor]:
        return {name: unit * term for name, term in quadratic(image).items()}

    listener = Listener()
    found = Descent(scaled, optimiser="lbfgs", iterations=40, report=listener).run(START)
    assert (found - TARGET).abs().max() < 2e-3
    assert listener.calls[0][1]["near"] == pytest.approx(unit * float(quadratic(START)["near"]), rel=1e-5)


@pytest.mark.parametrize("iterations", [1, 2, 12])
def test_the_first_step_of_lbfgs_has_the_requested_size(iterations: int) -> None:
    seen: list[Tensor] = []

    def keep(image: Tensor) -> dict[str, Tensor]:
        seen.append(image.detach().clone())
        return quadratic(image)

    found = Descent(keep, optimiser="lbfgs", iterations=iterations, first_step=0.01).run(START)
    assert len(seen) == iterations
    if iterations > 1:
        assert (seen[1] - seen[0]).abs().mean().item() == pytest.approx(0.01, rel=1e-4)
    if iterations > 2:
        assert (found - TARGET).abs().max() < 0.02


def test_a_longer_history_helps_lbfgs() -> None:
    ends = []
    for history in (1, 100):
        descent = Descent(quadratic, optimiser="lbfgs", iterations=12, history=history)
        descent.run(START)
        ends.append(descent.lowest)
    assert ends[1] < 0.5 * ends[0]


def test_lbfgs_stops_at_the_minimum() -> None:
    count = Listener()
    found = Descent(quadratic, optimiser="lbfgs", iterations=500, report=count).run(TARGET)
    assert torch.equal(found, TARGET)
    assert len(count.calls) < 5


def test_reported_terms_are_those_of_the_objective() -> None:
    listener = Listener()
    Descent(quadratic, iterations=1, report=listener).run(START)
    ((_, terms),) = listener.calls
    assert terms == pytest.approx({"near": float(quadratic(START)["near"]), "none": 0.0})


def test_the_best_is_kept_when_the_loss_rises_later() -> None:
    objective = Scripted(5.0, 3.0, 1.0, 2.0, 4.0)
    descent = Descent(objective, iterations=5)
    assert torch.equal(descent.run(START), objective.seen[2])
    assert descent.lowest == 1.0


def test_lbfgs_stops_when_it_diverges() -> None:
    objective = Scripted(5.0, 3.0, *[31.0] * 21, *[1.0] * 10)
    descent = Descent(objective, optimiser="lbfgs", iterations=33)
    assert torch.equal(descent.run(START), objective.seen[1])
    assert len(objective.seen) == 2 + Descent.patience + 1
    assert descent.failed


def test_lbfgs_may_jump_and_recover() -> None:
    objective = Scripted(5.0, 3.0, 310.0, 31.0, 1.0, 2.0)
    descent = Descent(objective, optimiser="lbfgs", iterations=6)
    assert torch.equal(descent.run(START), objective.seen[4])
    assert not descent.failed


def test_adams_step_size_decreases_with_cooling() -> None:
    # With a constant gradient Adam's step equals its step size.
    objective = Scripted(*[1.0] * 10)
    Descent(objective, iterations=10, step_size=0.01, cooling=0.5).run(START)
    values = [float(image.mean()) for image in objective.seen]
    steps = [before - after for before, after in pairwise(values)]
    shares = [1.0] * 6 + [0.3 + 0.7 * share for share in (0.8, 0.6, 0.4)]
    assert steps == pytest.approx([0.01 * share for share in shares], rel=1e-3)


def test_adam_may_jump_and_recover() -> None:
    objective = Scripted(5.0, 3.0, 31.0, 1.0)
    descent = Descent(objective, iterations=4)
    assert torch.equal(descent.run(START), objective.seen[3])
    assert not descent.failed


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
@pytest.mark.parametrize("average", [0.0, 0.5])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_returns_the_best(optimiser: Any, average: float, bad: float) -> None:
    objective = Scripted(5.0, 3.0, bad, 1.0)
    descent = Descent(objective, optimiser=optimiser, iterations=4, average=average)
    assert torch.equal(descent.run(START), objective.seen[1])
    assert len(objective.seen) == 3


def test_a_first_loss_that_is_not_finite_returns_the_start() -> None:
    assert torch.equal(Descent(Scripted(math.nan)).run(START + 1), torch.ones_like(START))


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_a_stop_returns_the_best_and_ends_the_calls(optimiser: Any) -> None:
    objective, listener = Scripted(5.0, 3.0, 4.0, 1.0), Listener(last=3)
    found = Descent(objective, optimiser=optimiser, iterations=4, report=listener).run(START)
    assert torch.equal(found, objective.seen[1])
    assert len(listener.calls) == len(objective.seen) == 3


def test_a_stop_at_the_first_call_returns_the_start() -> None:
    found = Descent(quadratic, average=0.9, report=Listener(last=1)).run(START)
    assert torch.allclose(found, START, atol=1e-6)


def test_the_average_is_the_exponential_mean() -> None:
    objective, decay = Scripted(*[1.0] * 4), 0.75
    found = Descent(objective, iterations=4, average=decay, step_size=0.05).run(START)
    weights = torch.tensor([decay ** (3 - index) for index in range(4)], dtype=torch.float64)
    iterates = torch.stack(objective.seen).double()
    expected = (weights.view(-1, 1, 1, 1, 1) * iterates).sum(0) / weights.sum()
    assert torch.allclose(found.double(), expected, atol=1e-6)
    assert not torch.allclose(found, objective.seen[-1], atol=1e-3)


def test_lbfgs_is_never_averaged() -> None:
    found = Descent(quadratic, optimiser="lbfgs", iterations=30, average=0.99).run(START)
    assert (found - TARGET).abs().max() < 2e-3


def test_the_preview_is_the_result_so_far() -> None:
    listener = Listener()
    found = Descent(quadratic, iterations=7, average=0.5, report=listener).run(START)
    assert torch.equal(listener.pictures[-1], found)


def test_the_start_is_not_modified() -> None:
    start = START.clone()
    Descent(quadratic, iterations=3).run(start)
    assert torch.equal(start, START)


def test_lbfgs_accepts_channels_last_gradients() -> None:
    def convolution(image: Tensor) -> dict[str, Tensor]:
        like = image.contiguous(memory_format=torch.channels_last) - TARGET.contiguous(
            memory_format=torch.channels_last
        )
        return {"near": like.square().sum()}

    found = Descent(convolution, optimiser="lbfgs", iterations=20).run(START)
    assert (found - TARGET).abs().max() < 2e-3


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_descent_works_in_inference_and_no_grad_mode(mode: Any) -> None:
    with mode():
        found = Descent(quadratic, optimiser="lbfgs", iterations=40).run(START.clone())
    assert (found - TARGET).abs().max() < 2e-3
    assert not found.is_inference()


def hill(image: Tensor) -> dict[str, Tensor]:
    """A hill between two valleys: from START, near its top, the first curvature is negative."""
    rest = image - 0.5 - 0.02 * TARGET
    return {"hill": 1e-2 * (8 * rest.pow(4) - rest.square()).sum()}


def tutorial(objective: Callable[[Tensor], dict[str, Tensor]], steps: int) -> list[Tensor]:
    """What PyTorch's tutorial evaluates: torch's L-BFGS on the image, clamped before each evaluation."""
    image, seen = START.clone().requires_grad_(), []
    optimiser = torch.optim.LBFGS([image])

    def closure() -> Tensor:
        with torch.no_grad():
            image.clamp_(0, 1)
        seen.append(image.detach().clone())
        optimiser.zero_grad()
        total = sum(objective(image).values())
        total.backward()
        return total

    while len(seen) < steps:
        optimiser.step(closure)
    return seen[:steps]


def test_lbfgs_without_rescaling_is_bit_identical_to_torch() -> None:
    evaluated: list[Tensor] = []

    def watched(image: Tensor) -> dict[str, Tensor]:
        evaluated.append(image.detach().clone())
        return hill(image)

    Descent(watched, optimiser="lbfgs", iterations=15, rescale=False).run(START)
    theirs = tutorial(hill, 15)
    assert all(torch.equal(mine, one) for mine, one in zip(evaluated, theirs, strict=True))
    # The test case is meaningful: with rescaling the same loss takes another path.
    evaluated.clear()
    Descent(watched, optimiser="lbfgs", iterations=15).run(START)
    assert not torch.equal(evaluated[2], theirs[2])
