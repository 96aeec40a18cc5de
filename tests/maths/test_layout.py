"""Layouts: every element keeps its channel, row and column."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atelier.maths.layout import to_array, to_tensor


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_array_has_channels_last(dtype: torch.dtype) -> None:
    array = to_array(torch.arange(24, dtype=dtype).view(1, 2, 3, 4))
    assert array.shape == (3, 4, 2)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert array[1, 2].tolist() == [6, 18]  # channel * 12 + row * 4 + column


def test_tensor_has_channels_first_and_is_a_copy() -> None:
    array = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    tensor = to_tensor(array)
    assert tensor.shape == (1, 2, 3, 4)
    assert tensor.is_contiguous()
    assert tensor[0, :, 1, 2].tolist() == [12, 13]  # row * 8 + column * 2 + channel
    array[:] = 0
    assert tensor[0, 1, 2, 3] == 23


def test_the_round_trip_is_exact() -> None:
    tensor = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(to_tensor(to_array(tensor)), tensor)
