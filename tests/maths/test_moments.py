"""Moments against float64 NumPy loops, known answers, and invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.maths.moments import channel_moments, gram, mean_and_covariance


def features(*shape: int, seed: int = 0, mean: float = 0.7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.relu(torch.randn(*shape, generator=generator) + mean)


def slow_gram(values: Tensor, weights: Tensor | None = None, *, centred: bool = False) -> np.ndarray:
    """Position by position, in float64."""
    picture = values.double().numpy()
    batch, channels, height, width = picture.shape
    weight = np.ones((batch, 1, height, width)) if weights is None else weights.double().numpy()
    out = np.zeros((batch, channels, channels))
    for b in range(batch):
        mean = (picture[b] * weight[b]).sum((1, 2)) / weight[b].sum() if centred else np.zeros(channels)
        for y in range(height):
            for x in range(width):
                vector = picture[b, :, y, x] - mean
                out[b] += weight[b, 0, y, x] * np.outer(vector, vector)
        out[b] /= weight[b].sum()
    return out


def region(height: int, width: int) -> Tensor:
    soft = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(9))
    soft[:, :, : height // 2] = 0
    return soft


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_gram_is_the_sum_of_outer_products(centred: bool, weighted: bool) -> None:
    values, weight = features(2, 5, 7, 6), region(7, 6) if weighted else None
    found = gram(values, centred=centred, weight=weight)
    np.testing.assert_allclose(
        found.numpy(), slow_gram(values, weight, centred=centred), rtol=2e-5, atol=1e-6
    )


@pytest.mark.parametrize("unbiased", [False, True])
def test_mean_and_covariance_agree_with_numpy(unbiased: bool) -> None:
    values = features(1, 4, 5, 6)
    mean, covariance = mean_and_covariance(values, unbiased=unbiased)
    flat = values.double().numpy().reshape(4, 30)
    np.testing.assert_allclose(mean[0].numpy(), flat.mean(1), rtol=1e-5)
    np.testing.assert_allclose(covariance[0].numpy(), np.cov(flat, ddof=int(unbiased)), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("unbiased", [False, True])
def test_channel_moments_agree_with_numpy(unbiased: bool) -> None:
    values = features(2, 4, 5, 6)
    mean, deviation = channel_moments(values, unbiased=unbiased, eps=0.01)
    exact = values.double().numpy()
    assert mean.shape == deviation.shape == (2, 4, 1, 1)
    np.testing.assert_allclose(mean[..., 0, 0].numpy(), exact.mean((2, 3)), rtol=1e-5)
    variance = exact.var((2, 3), ddof=int(unbiased))
    np.testing.assert_allclose(deviation[..., 0, 0].numpy(), np.sqrt(variance + 0.01), rtol=1e-5)


def test_a_binary_weight_map_equals_a_crop() -> None:
    values, weight = features(1, 3, 6, 5), torch.zeros(1, 1, 6, 5)
    weight[..., 1:4, 2:5] = 1
    cut = values[..., 1:4, 2:5]
    torch.testing.assert_close(gram(values, weight=weight), gram(cut))
    for whole, part in zip(
        channel_moments(values, weight=weight, unbiased=True),
        channel_moments(cut, unbiased=True),
        strict=True,
    ):
        torch.testing.assert_close(whole, part)


def test_an_empty_weight_map_gives_zeros() -> None:
    values, nothing = features(1, 3, 4, 4).requires_grad_(), torch.zeros(1, 1, 4, 4)
    mean, deviation = channel_moments(values, weight=nothing, eps=1e-5)
    total = gram(values, weight=nothing).sum() + mean.sum() + deviation.sum()
    total.backward()
    assert mean.abs().max() == 0
    assert values.grad is not None
    assert values.grad.abs().max() == 0


def test_moments_do_not_depend_on_the_order_of_positions() -> None:
    values = features(1, 6, 8, 9)
    order = torch.randperm(72, generator=torch.Generator().manual_seed(1))
    shuffled = values.flatten(2)[..., order].view_as(values)
    torch.testing.assert_close(gram(shuffled), gram(values))
    torch.testing.assert_close(gram(shuffled, centred=True), gram(values, centred=True))


def test_a_shift_does_not_change_the_covariance() -> None:
    values = features(1, 4, 16, 16)
    torch.testing.assert_close(
        gram(values + 100, centred=True), gram(values, centred=True), atol=1e-4, rtol=1e-3
    )


def test_one_position_has_no_spread() -> None:
    values = features(1, 3, 1, 1)
    mean, deviation = channel_moments(values, unbiased=True, eps=0.25)
    torch.testing.assert_close(mean, values)
    assert torch.equal(deviation, torch.full((1, 3, 1, 1), 0.5))
    assert mean_and_covariance(values, unbiased=True)[1].abs().max() == 0


@pytest.mark.parametrize("size", [(1, 32, 96, 128), (2, 16, 37, 41), (1, 64, 9, 7)])
@pytest.mark.parametrize("weighted", [False, True])
def test_bfloat16_stays_near_float64(size: tuple[int, int, int, int], weighted: bool) -> None:
    half = features(*size).bfloat16().to(memory_format=torch.channels_last)
    weight = region(*size[2:])[: size[0]] if weighted else None
    exact, exact_weight = half.double(), None if weight is None else weight.double()
    for centred in (False, True):
        found, expected = (
            gram(half, centred=centred, weight=weight),
            gram(exact, centred=centred, weight=exact_weight),
        )
        assert found.dtype == torch.float32
        assert (found - expected).norm() / expected.norm() < 4e-3
    for found, expected in zip(
        channel_moments(half, weight=weight), channel_moments(exact, weight=exact_weight), strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, atol=0, rtol=4e-3)


def test_float16_does_not_overflow() -> None:
    large = torch.full((1, 2, 64, 64), 100.0, dtype=torch.float16)
    assert torch.equal(gram(large), torch.full((1, 2, 2), 10_000.0))


def test_bfloat16_gradient_points_the_same_way() -> None:
    exact = features(1, 16, 40, 44).requires_grad_()
    half = exact.detach().bfloat16().requires_grad_()
    target = gram(features(1, 16, 40, 44, seed=2, mean=0.0))
    for values in (exact, half):
        (gram(values) - target).square().sum().backward()
    assert exact.grad is not None
    assert half.grad is not None
    cosine = torch.cosine_similarity(exact.grad.flatten(), half.grad.float().flatten(), dim=0)
    assert cosine > 0.999


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_pass_gradcheck(weighted: bool) -> None:
    values = torch.randn(2, 3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    weight = region(4, 3).double() if weighted else None
    values.requires_grad_()
    for function in (
        lambda x: gram(x, weight=weight),
        lambda x: gram(x, centred=True, weight=weight),
        lambda x: mean_and_covariance(x, unbiased=True, weight=weight),
        lambda x: channel_moments(x, unbiased=True, weight=weight),
    ):
        assert torch.autograd.gradcheck(function, (values,))
