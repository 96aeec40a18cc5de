"""Layers on blocks of pixels, against the plain layers on pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.maths import pixel_blocks as blocks


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reflected(pixels: Tensor, count: int) -> Tensor:
    return F.pad(pixels, (count,) * 4, mode="reflect")


@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(6, 12, 6), (8, 4, 4), (6, 6, 2), (5, 3, 1)])
def test_a_dense_kernel_does_what_its_groups_do(inputs: int, outputs: int, groups: int) -> None:
    pixels, weight = random(2, inputs, 9, 7), random(outputs, inputs // groups, 3, 3, seed=1)
    expected = F.conv2d(pixels, weight, groups=groups)
    torch.testing.assert_close(F.conv2d(pixels, blocks.dense(weight, groups)), expected)


@pytest.mark.parametrize("side", [1, 5, 9])
def test_from_blocks_to_blocks(side: int) -> None:
    pixels, weight, bias = random(2, 3, 10, 14), random(4, 3, side, side, seed=1), random(4, seed=2)
    expected = F.conv2d(reflected(pixels, side // 2), weight, bias)
    padded = blocks.reflected_blocks(F.pixel_unshuffle(pixels, 2), side // 4)
    found = F.conv2d(padded, blocks.blocks_kernel(weight), bias.repeat_interleave(4))
    torch.testing.assert_close(F.pixel_shuffle(found, 2), expected)


@pytest.mark.parametrize("shape", [(10, 14), (11, 14), (10, 13), (9, 9)])
def test_halving_also_of_odd_sides(shape: tuple[int, int]) -> None:
    pixels, weight = random(2, 3, *shape), random(4, 3, 3, 3, seed=1)
    expected = F.conv2d(reflected(pixels, 1), weight, stride=2)
    height, width = shape
    junk = F.pad(pixels, (0, width % 2, 0, height % 2), value=1e6)
    held = F.pixel_unshuffle(junk, 2)
    blocks.mirror_odd_edges(held, height, width)
    found = F.conv2d(F.pad(held, (1, 0, 1, 0), mode="replicate"), blocks.halving_kernel(weight))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(6, 5), (3, 4), (2, 2), (1, 7)])
def test_doubling_with_a_reflected_border(shape: tuple[int, int]) -> None:
    pixels, weight, bias = random(2, 3, *shape), random(4, 3, 3, 3, seed=1), random(4, seed=2)
    expected = F.conv2d(reflected(F.interpolate(pixels, scale_factor=2.0, mode="bilinear"), 1), weight, bias)
    found = blocks.doubled_convolution(pixels, blocks.doubling_kernel(weight), weight, bias)
    torch.testing.assert_close(F.pixel_shuffle(found, 2), expected)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_reflected_blocks_are_reflected_pixels(count: int) -> None:
    pixels = random(2, 3, 12, 8)
    found = blocks.reflected_blocks(F.pixel_unshuffle(pixels, 2), count)
    assert torch.equal(F.pixel_shuffle(found, 2), reflected(pixels, 2 * count))


def test_the_blocks_of_a_picture_are_in_the_order_of_pixel_unshuffle() -> None:
    picture = random(2, 3, 12, 8)
    found = blocks.picture_blocks(picture, torch.float32)
    assert torch.equal(found, F.pixel_unshuffle(picture, 2).float())
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_gradients_pass() -> None:
    """Kernels, reflected borders and outermost pixels pass the exact gradient on."""
    kernel = random(4, 1, 3, 3).requires_grad_()
    pixels = random(1, 2, 4, 3, seed=1).requires_grad_()
    bias = random(4, seed=2).requires_grad_()

    def made(pixels: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        full = blocks.dense(kernel, 2)
        found = blocks.doubled_convolution(pixels, blocks.doubling_kernel(full), full, bias)
        return blocks.reflected_blocks(found, 1)

    assert torch.autograd.gradcheck(made, (pixels, kernel, bias))
