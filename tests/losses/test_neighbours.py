"""Neighbour loss: against NumPy in float64, its gradient, and swapping by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atelier import losses


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosines(first: np.ndarray, second: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """All pairs of rows (N, D) and (M, D), from `centre`."""
    a, b = first - centre, second - centre
    return (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)[None]


def rows(columns: torch.Tensor) -> np.ndarray:
    return columns[0].flatten(1).T.numpy()


def test_distances_by_hand() -> None:
    style, target, painted = maps(1, 6, 3, 4), maps(1, 6, 2, 5, seed=1), maps(1, 6, 2, 5, seed=2)
    loss = losses.NeighbourLoss(target, style)
    centre = rows(style).mean(0)
    found = cosines(rows(painted), rows(target), centre)
    assert float(loss(painted)) == pytest.approx(1 - np.diag(found).mean(), abs=1e-9)
    nearest = cosines(rows(painted), rows(style), centre).max(1)[::3]
    assert float(loss.near(loss.towards(painted))) == pytest.approx(1 - nearest.mean(), abs=1e-9)


def test_loss_is_zero_at_the_target_and_for_style_columns() -> None:
    style = maps(2, 5, 4, 4)
    loss = losses.NeighbourLoss(style[:, :, :2], style)
    assert float(loss(style[:, :, :2])) == pytest.approx(0, abs=1e-9)
    assert float(loss.near(loss.towards(style.flip(-1)))) == pytest.approx(0, abs=1e-9)


def test_gradient() -> None:
    loss = losses.NeighbourLoss(maps(1, 4, 2, 2), maps(1, 4, 3, 3, seed=1))
    painted = maps(1, 4, 2, 2, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(loss, painted)
    assert torch.autograd.gradcheck(lambda one: loss.near(loss.towards(one)), painted)


def test_swap_by_hand() -> None:
    queries, style = maps(1, 5, 3, 3), maps(1, 5, 4, 2, seed=1)
    a, b = (rows(one) - rows(one).mean(0) for one in (queries, style))
    chosen = (a @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T).argmax(1)
    assert np.array_equal(rows(losses.swap(queries, style)), rows(style)[chosen])


def test_swapping_a_picture_with_itself_changes_nothing() -> None:
    style = maps(2, 6, 4, 5)
    assert torch.equal(losses.swap(style, style), style)


def test_swap_with_a_penalty_by_hand() -> None:
    """Long queries follow their features, short ones the penalty."""
    queries, style, penalty = maps(1, 5, 3, 3), maps(1, 5, 4, 2, seed=1), maps(1, 9, 8, seed=2).abs()
    a, b = (rows(one) - rows(one).mean(0) for one in (queries, style))
    keys = b / np.linalg.norm(b, axis=1, keepdims=True)
    scores = a @ keys.T / np.sqrt((a**2).sum(1).mean()) - penalty[0].numpy()
    found = rows(losses.swap(queries, style, penalty))
    assert np.array_equal(found, rows(style)[scores.argmax(1)])
    assert not np.array_equal(found, rows(losses.swap(queries, style)))
