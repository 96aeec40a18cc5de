"""Noise schedules: their limits, respacing, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atelier.core.errors import UsageError
from atelier.maths import schedules


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_the_picture_fades_and_never_returns(name: str) -> None:
    schedule = schedules.named(name)
    left = schedule.alphas_cumprod
    assert 0.99 < left[0] < 1
    assert (np.diff(left) < 0).all()
    assert left[-1] < 0.01
    assert (schedule.posterior_variance <= schedule.betas + 1e-15).all()


def test_scaled_linear_is_stable_diffusions() -> None:
    """Its first and last betas are those of the published configuration."""
    betas = schedules.scaled_linear().betas
    assert betas[[0, -1]] == pytest.approx([0.00085, 0.012])


@given(st.integers(1, 60), st.integers(1, 400))
def test_a_respaced_schedule_has_the_noise_of_the_steps_it_keeps(number: int, count: int) -> None:
    whole = schedules.linear(max(count, number))
    part = schedules.respaced(whole, str(number))
    assert len(part) == number
    assert len(set(part.steps.tolist())) == number
    assert part.alphas_cumprod == pytest.approx(whole.alphas_cumprod[part.steps])
    assert part.trained == len(whole)


def test_respacing_twice_keeps_the_steps_of_training() -> None:
    once = schedules.respaced(schedules.linear(), "ddim50")
    assert schedules.respaced(once, "ddim10").steps.tolist() == list(range(0, 1000, 100))


@pytest.mark.parametrize("spacing", ["", "0", "2000", "ten", "ddim999", "ddim5,5", "600,1"])
def test_an_impossible_spacing_is_refused(spacing: str) -> None:
    with pytest.raises(UsageError, match=r"no spacing|no even stride|cannot be divided"):
        schedules.respaced(schedules.linear(), spacing)


def test_an_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="cosine"):
        schedules.named("cosin")


def test_values_are_picked_for_each_picture() -> None:
    table = np.linspace(0, 1, 5)
    found = schedules.at(table, torch.tensor([4, 1]), torch.zeros(2, 3, 8, 8))
    assert found.shape == (2, 1, 1, 1)
    assert found.flatten().tolist() == [1.0, 0.25]
