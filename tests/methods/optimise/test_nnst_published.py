"""The published pyramid: exact merging, floored sizes, and its depth for short sides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.methods.optimise.nnst_published import halved, joined


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), depth=st.integers(0, 8))
def test_merging_the_pyramid_restores_the_picture(height: int, width: int, depth: int) -> None:
    image = torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(0))
    levels = halved(image, depth)
    assert torch.allclose(joined(levels), image, atol=1e-5)
    # A side of n can be halved as often as n has binary places after the first.
    assert len(levels) == 1 + min(depth, min(height, width).bit_length() - 1)
    sizes = [tuple(level.shape[2:]) for level in levels]
    assert sizes == [(height >> index, width >> index) for index in range(len(levels))]


def test_edges_have_detail_but_constant_images_have_none() -> None:
    assert halved(torch.full((1, 1, 8, 8), 0.25), 3)[0].abs().max() < 1e-6
    step = torch.zeros((1, 1, 8, 8))
    step[..., 3:] = 1
    # Means 0, 0.5, 1, 1, enlarged 0.375 and 0.625 at the step.
    assert halved(step, 3)[0].abs().max() == pytest.approx(0.375)
