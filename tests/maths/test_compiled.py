"""The wrapper of compiled loops: bands cover all rows, and arrays have the right form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from atelier.maths.compiled import floats, in_bands


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("height", [1, 15, 32, 101])
def test_bands_cover_every_row_once(threads: int, height: int) -> None:
    seen = np.zeros(height, int)

    def visit(counts: Any, top: int, bottom: int) -> None:
        counts[top:bottom] += 1

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        in_bands(visit, height, seen)
    finally:
        torch.set_num_threads(before)
    assert (seen == 1).all()


def test_an_error_in_a_band_is_raised() -> None:
    def fail(top: int, bottom: int) -> None:
        raise ValueError("in a band")

    with pytest.raises(ValueError, match="in a band"):
        in_bands(fail, 64)


def test_floats_are_contiguous_float32() -> None:
    array = floats(np.arange(12.0).reshape(3, 4).T)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert array[1, 2] == 9
