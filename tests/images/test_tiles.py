"""Tiles cover a picture once and start where a grid wants them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.core.errors import UsageError
from atelier.images.tiles import coarser, tiles


@given(height=st.integers(1, 90), width=st.integers(1, 90), core=st.integers(1, 6), margin=st.integers(0, 3))
def test_every_pixel_is_in_one_core(height: int, width: int, core: int, margin: int) -> None:
    step = 8
    count = np.zeros((height, width), int)
    whole = np.arange(height * width).reshape(height, width)
    for tile in tiles(height, width, core=core * step, margin=margin * step, step=step):
        count[tile.core] += 1
        assert np.array_equal(whole[tile.outer][tile.inner], whole[tile.core])
        for outer, inner, end in zip(tile.outer, tile.core, (height, width), strict=True):
            assert outer.start % step == 0
            assert outer.start == max(0, inner.start - margin * step)
            assert outer.stop == min(end, inner.stop + margin * step)
    assert (count == 1).all()


@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_the_cells_of_all_tiles_are_the_grid(height: int, width: int) -> None:
    cells = np.zeros((-(-height // 4), -(-width // 4)), int)
    for tile in tiles(height, width, core=16, margin=8, step=8):
        cells[coarser(tile.core, 4)] += 1
    assert (cells == 1).all()


def test_uneven_tiles_are_refused() -> None:
    with pytest.raises(UsageError, match="multiples of 8 px"):
        list(tiles(20, 20, core=12, margin=8, step=8))
