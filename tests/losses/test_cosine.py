"""Chosen cosine distances: against NumPy, in blocks, their gradient, and zero rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.losses import cosine
from atelier.losses.cosine import chosen_distances, unit


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distances_match_numpy_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosine, "_ROWS", 3)
    rows, table, gain, centre = drawn(11, 6), unit(drawn(4, 6, seed=1)), drawn(6, seed=2), drawn(6, seed=3)
    index = torch.tensor([0, 3, 3, 1, 2, 2, 0, 1, 3, 0, 2])
    found = chosen_distances(rows, table, index, gain=gain, centre=centre)
    moved = rows.numpy() * gain.numpy() - centre.numpy()
    wanted = table.numpy()[index.numpy()]
    by_hand = 1 - (moved * wanted).sum(1) / np.linalg.norm(moved, axis=1)
    assert np.allclose(found.numpy(), by_hand, atol=1e-12)
    assert (1 - (moved * wanted).sum(1) / np.linalg.norm(moved, axis=1)).std() > 0.1


@pytest.mark.parametrize("plain", [True, False])
def test_gradient(plain: bool) -> None:
    rows, table = drawn(5, 4).requires_grad_(), unit(drawn(3, 4, seed=1))
    index = torch.tensor([2, 0, 1, 1, 2])
    more = {} if plain else {"gain": drawn(4, seed=2), "centre": drawn(4, seed=3)}
    assert torch.autograd.gradcheck(lambda x: chosen_distances(x, table, index, **more), (rows,))


def test_a_zero_row_has_a_finite_gradient() -> None:
    rows = torch.zeros((2, 3), requires_grad=True)
    distance = chosen_distances(rows, torch.eye(3), torch.tensor([0, 1]))
    assert distance.tolist() == [1, 1]
    (slope,) = torch.autograd.grad(distance.sum(), rows)
    assert torch.equal(slope, -1e4 * torch.eye(3)[:2])


def test_half_precision_accumulates_in_float32() -> None:
    rows, table = drawn(300, 900).bfloat16(), unit(drawn(300, 900, seed=1)).bfloat16()
    index = torch.arange(300)
    found = chosen_distances(rows, table, index)
    assert found.dtype == torch.float32
    exact = chosen_distances(rows.double(), table.double(), index)
    assert (found - exact).abs().max() < 2e-3
