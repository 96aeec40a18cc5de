"""The contrastive loss of style signals against its formula, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.losses.signals import SignalContrast


def signals(count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn((count, channels, 1, 1), generator=generator, dtype=torch.float64) for channels in (3, 5)
    ]


def by_hand(found: list[Tensor], wanted: list[Tensor]) -> float:
    total = 0.0
    ours, theirs = ([part.numpy()[..., 0, 0] for part in parts] for parts in (found, wanted))
    for i in range(len(ours[0])):
        apart = [
            sum(np.mean((one[i] - other[j]) ** 2) for one, other in zip(ours, theirs, strict=True))
            for j in range(len(ours[0]))
        ]
        total += apart[i] / (sum(apart) - apart[i])
    return total


@pytest.mark.parametrize("count", [2, 3, 6])
def test_it_is_the_formula(count: int) -> None:
    found, wanted = signals(count, 0), signals(count, 1)
    assert float(SignalContrast(wanted)(found)) == pytest.approx(by_hand(found, wanted), rel=1e-5)


def test_its_own_style_costs_nothing_and_another_much() -> None:
    wanted = signals(4, 0)
    assert float(SignalContrast(wanted)(wanted)) == 0
    assert float(SignalContrast(wanted)([part.roll(1, 0) for part in wanted])) > 1


def test_gradients_reach_both_sides() -> None:
    found, wanted = signals(3, 0), signals(3, 1)
    for part in (*found, *wanted):
        part.requires_grad_()
    SignalContrast(wanted)(found).backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in (*found, *wanted))


def test_what_cannot_be_told_apart() -> None:
    """One picture has no other style, and equal styles have no distance: finite values and gradients."""
    for found, wanted in (
        (signals(1, 0), signals(1, 1)),
        ([torch.ones(3, 4, 1, 1)], [torch.ones(3, 4, 1, 1)]),
    ):
        for part in found:
            part.requires_grad_()
        loss = SignalContrast(wanted)(found)
        assert float(loss.detach()) == 0
        loss.backward()
        assert all(torch.isfinite(part.grad).all() for part in found)
