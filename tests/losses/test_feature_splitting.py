"""Feature splitting: nearest features by brute force, sampled positions, and the `stale` option."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.losses.feature_splitting import SplittingLoss, nearest_distance


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(rows: Tensor, others: Tensor) -> float:
    """By the formula, in NumPy."""
    left, right = (one.numpy() - one.numpy().mean(0) for one in (rows, others))
    left, right = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (left, right))
    return float((1 - left @ right.T).min(1).mean())


def as_rows(features: Tensor) -> Tensor:
    return features[0].flatten(1).T


def test_nearest_distance_and_its_gradient() -> None:
    rows, others = drawn(7, 5), drawn(9, 5, seed=1)
    assert nearest_distance(rows, others).item() == pytest.approx(by_hand(rows, others), abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: nearest_distance(x, others), (rows.requires_grad_(),))


def test_large_layers_are_sampled_where_drawn() -> None:
    found, style = drawn(1, 3, 5, 130), drawn(1, 3, 20, 6, seed=1)
    steps: list[int] = []

    def draw(step: int) -> tuple[int, int]:
        steps.append(step)
        return 1, 0

    terms = SplittingLoss([style, style], draw)([found, found[..., :64]])
    assert steps == [2]
    some = by_hand(as_rows(found[..., 1::2, ::2]), as_rows(style[..., 1::2, ::2]))
    assert terms.tolist() == pytest.approx([some, by_hand(as_rows(found[..., :64]), as_rows(style))])


def test_stale_reuses_the_previous_layers_values() -> None:
    found, style, narrow = drawn(1, 4, 65, 6), drawn(1, 4, 9, 9, seed=1), drawn(1, 6, 3, 3, seed=2)
    maps, styles = [found, narrow], [style, narrow.flip(1)]
    stale = SplittingLoss(styles, lambda step: (0, 0), stale=True)(maps)
    read = found.reshape(6, -1).T
    assert stale[1].item() == pytest.approx(by_hand(read, as_rows(styles[1])))
    assert stale[1] != SplittingLoss(styles, lambda step: (0, 0))(maps)[1]
    # Nothing was compared before, or it cannot be read so: then the layer is itself.
    alone = SplittingLoss(styles[1:], lambda step: (0, 0), stale=True)([narrow])
    assert alone.item() == pytest.approx(by_hand(as_rows(narrow), as_rows(styles[1])))
    odd = SplittingLoss([style, drawn(1, 7, 3, 3)], lambda step: (0, 0), stale=True)(
        [found, drawn(1, 7, 2, 2)]
    )
    assert odd.isfinite().all()


def test_sampling_never_leaves_a_short_side_empty() -> None:
    found = drawn(1, 2, 3, 700)
    terms = SplittingLoss([found], lambda step: (step - 1, step - 1))([found])
    assert terms.isfinite().all()
