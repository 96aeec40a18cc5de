"""Sizes from coarse to fine, and the exactness of the Laplacian pyramid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atelier.maths.pyramid import merge, sizes, split


def test_sizes_double_up_to_the_final_size() -> None:
    assert sizes((512, 512), smallest=64) == [(64, 64), (128, 128), (256, 256), (512, 512)]


def test_the_first_size_does_not_depend_on_the_last() -> None:
    assert {max(sizes((side, side // 2), smallest=128)[0]) for side in (200, 333, 512, 700, 1024, 4000)} == {
        128
    }


def test_small_pictures_have_one_size() -> None:
    assert sizes((100, 128)) == [(100, 128)]
    assert sizes((7, 5)) == [(7, 5)]
    assert sizes((1000, 700), levels=1) == [(1000, 700)]


def test_levels_fix_the_number_of_sizes() -> None:
    assert sizes((1600, 100), smallest=100, levels=5) == [
        (100, 6),
        (200, 13),
        (400, 25),
        (800, 50),
        (1600, 100),
    ]


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(8, 512), st.floats(1.2, 4))
def test_sizes_are_geometric_and_end_at_the_final_size(
    height: int, width: int, smallest: int, ratio: float
) -> None:
    row = sizes((height, width), smallest=smallest, ratio=ratio)
    assert row[-1] == (height, width)
    assert all(min(size) >= 1 for size in row)
    longs = [max(size) for size in row]
    assert longs == sorted(set(longs)) or smallest < 20
    if len(row) > 2:
        growth = (longs[-1] / longs[0]) ** (1 / (len(row) - 1))
        assert ratio**0.6 < growth < ratio**1.6


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (1, 9), (1, 1)])
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_merge_undoes_split(size: tuple[int, int], levels: int) -> None:
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    pyramid = split(image, levels)
    assert len(pyramid) == levels
    torch.testing.assert_close(merge(pyramid), image, atol=1e-6, rtol=0)


def test_sides_halve_and_a_flat_image_has_no_detail() -> None:
    pyramid = split(torch.full((1, 3, 20, 13), 0.4), 4)
    assert [tuple(level.shape[-2:]) for level in pyramid] == [(20, 13), (10, 7), (5, 4), (3, 2)]
    assert all(level.abs().max() < 1e-6 for level in pyramid[:-1])
    torch.testing.assert_close(pyramid[-1], torch.full((1, 3, 3, 2), 0.4))


def test_a_coarse_level_reaches_many_pixels() -> None:
    pyramid = [torch.zeros_like(level).requires_grad_() for level in split(torch.zeros(1, 1, 16, 16), 3)]
    merge(pyramid)[0, 0, 8, 8].backward()
    touched = [int((level.grad != 0).sum()) for level in pyramid]
    assert touched[0] == 1
    assert 1 < touched[2] <= 9


def test_merge_has_a_gradient() -> None:
    pyramid = [level.double().requires_grad_() for level in split(torch.rand(1, 1, 5, 6), 2)]
    assert torch.autograd.gradcheck(lambda *levels: merge(levels), tuple(pyramid))
