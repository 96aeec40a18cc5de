"""Alpha as a weight: shares of positions, candidates, and lists of visible pixels."""

from __future__ import annotations

import pytest
import torch

from atelier import maths

SEEN = torch.tensor([[[[1.0, 1.0, 0.0, 0.0], [1.0, 0.5, 0.0, 0.0]]]])


def test_a_weight_is_the_visible_share_of_a_position() -> None:
    weight = maths.weight_at(SEEN, (1, 2))
    assert weight is not None
    torch.testing.assert_close(weight[0, 0], torch.tensor([[3.5 / 4, 0.0]]))
    same = maths.weight_at(SEEN, (2, 4))
    assert same is not None
    assert torch.equal(same, SEEN)


@pytest.mark.parametrize("seen", [None, torch.zeros(1, 1, 2, 4)])
def test_everything_counts_if_nothing_is_hidden_or_nothing_visible(seen: torch.Tensor | None) -> None:
    picture = torch.rand(1, 3, 2, 4)
    assert maths.weight_at(seen, (1, 2)) is None
    assert maths.mask_at(seen, (1, 2)) is None
    assert maths.visible_pixels(picture, seen) is picture


def test_candidates_are_half_visible_or_the_most_visible() -> None:
    mask = maths.mask_at(SEEN, (2, 4))
    assert mask is not None
    assert mask.tolist() == [[True, True, False, False], [True, True, False, False]]
    little = torch.zeros(1, 1, 8, 8)
    little[..., :2, :2] = 1
    coarse = maths.mask_at(little, (2, 2))
    assert coarse is not None
    assert coarse.tolist() == [[True, False], [False, False]]


def test_visible_pixels_are_a_picture_of_one_column() -> None:
    picture = torch.arange(24.0).view(1, 3, 2, 4)
    shown = maths.visible_pixels(picture, SEEN)
    assert shown.shape == (1, 3, 4, 1)
    assert shown[0, 0, :, 0].tolist() == [0, 1, 4, 5]
