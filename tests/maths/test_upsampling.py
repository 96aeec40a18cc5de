"""Fused upsampling and convolution against the separate steps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from atelier.maths.upsampling import Enlarging, upsampled_convolution, upsampling_kernel


@pytest.mark.parametrize(
    ("how", "border"),
    [("nearest", "replicate"), ("nearest", "reflect"), ("nearest", "zeros"), ("bilinear", "replicate")],
)
@pytest.mark.parametrize("shape", [(1, 1), (5, 7)])
def test_fused_kernel_matches_upsampling_then_convolution(
    how: Enlarging, border: str, shape: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(0)
    state, weight = torch.randn((2, 3, *shape), generator=generator), torch.randn((4, 3, 3, 3))
    bias = torch.randn(4, generator=generator)
    larger = F.interpolate(state, scale_factor=2, mode=how)
    mode = "constant" if border == "zeros" else border
    expected = F.conv2d(F.pad(larger, (1, 1, 1, 1), mode=mode), weight, bias)
    found = upsampled_convolution(state, upsampling_kernel(weight, how), bias, zeros=border == "zeros")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_gradient_passes_through_the_kernel() -> None:
    weight = torch.rand((2, 3, 3, 3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda kernel: upsampling_kernel(kernel, "bilinear"), (weight,))
