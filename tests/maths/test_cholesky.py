"""Cholesky-WCT against NumPy's moments, known answers, and all kinds of singular covariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.maths.cholesky import (
    RIDGE,
    Gaussian,
    factor,
    gaussian,
    interpolated,
    recoloured,
    recoloured_by_region,
)


def features(channels: int, height: int, width: int, *, seed: int = 0, batch: int = 1) -> Tensor:
    """Correlated channels-last features with a different scale per channel."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn((channels, channels), generator=generator) + torch.eye(channels)
    values = torch.randn((batch, height, width, channels), generator=generator) @ mixing + 3 * mixing[0]
    return values.permute(0, 3, 1, 2)


def moments(values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    flat = values.double().flatten(1).numpy()
    return flat.mean(1), np.cov(flat)


def moved(content: Tensor, style: Tensor) -> Tensor:
    return recoloured(content, gaussian(content), gaussian(style))


@pytest.mark.parametrize("size", [(6, 9), (40, 53)])
def test_gaussian_agrees_with_numpy(size: tuple[int, int]) -> None:
    values = features(5, *size, batch=2)
    found = gaussian(values)
    assert found.mean.dtype == found.root.dtype == torch.float64
    for index in range(2):
        mean, covariance = moments(values[index])
        np.testing.assert_allclose(found.mean[index].numpy(), mean, rtol=1e-5)
        np.testing.assert_allclose(
            found.root[index].numpy(), np.linalg.cholesky(covariance), rtol=1e-4, atol=1e-5
        )


def test_the_result_has_the_styles_mean_and_covariance() -> None:
    content, style = features(8, 31, 44, batch=2), features(8, 20, 27, seed=5, batch=2)
    found = moved(content, style)
    assert found.shape == content.shape
    for index in range(2):
        for got, wanted in zip(moments(found[index]), moments(style[index]), strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())


def test_the_map_is_triangular() -> None:
    content, style = features(4, 9, 9), features(4, 8, 8, seed=2)
    changed = content.clone()
    changed[:, 3] += 1
    now, wanted = gaussian(content), gaussian(style)
    apart = (recoloured(changed, now, wanted) - recoloured(content, now, wanted)).abs().amax((0, 2, 3))
    assert apart[:3].max() == 0 < apart[3]


def test_matching_features_to_themselves_changes_nothing() -> None:
    content = features(6, 12, 12)
    torch.testing.assert_close(moved(content, content), content, atol=1e-5, rtol=1e-5)


def test_autocast_does_not_change_the_result() -> None:
    content, style = features(6, 12, 12), features(6, 9, 9, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = moved(content, style)
    assert torch.equal(found, moved(content, style))


# Interpolation.


def test_styles_are_interpolated_by_their_roots() -> None:
    one, two, now = (gaussian(features(3, 9, 9, seed=seed)) for seed in range(3))
    found = interpolated([(0.25, one), (0.75, two)], now, 0.5)
    torch.testing.assert_close(found.root, 0.125 * one.root + 0.375 * two.root + 0.5 * now.root)
    torch.testing.assert_close(found.mean, 0.125 * one.mean + 0.375 * two.mean + 0.5 * now.mean)
    # If shares do not sum to 1, they are normalised.
    torch.testing.assert_close(interpolated([(0.2, one)], now).root, one.root)


def test_strength_zero_returns_the_content() -> None:
    content, style = features(6, 12, 12), features(6, 9, 9, seed=1)
    now = gaussian(content)
    found = recoloured(content, now, interpolated([(1.0, gaussian(style))], now, 0.0))
    torch.testing.assert_close(found, content, atol=1e-5, rtol=1e-5)


# Singular covariances.


def test_a_zero_covariance_gets_the_published_ridge() -> None:
    torch.testing.assert_close(factor(torch.zeros(1, 3, 3)), RIDGE**0.5 * torch.eye(3)[None])


def test_only_singular_covariances_are_ridged() -> None:
    sound = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    both = torch.stack([sound, torch.ones(2, 2, dtype=torch.float64)])
    found = factor(both)
    torch.testing.assert_close(found[0], torch.linalg.cholesky(sound), rtol=1e-12, atol=0)
    torch.testing.assert_close(found[1] @ found[1].mT, both[1] + RIDGE * torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_pivot_at_rounding_level_is_ridged(scale: float) -> None:
    # The Cholesky factorisation succeeds, but its inverse would be 1e8.
    almost = scale * torch.tensor([[[1.0, 1.0], [1.0, 1.0 + 1e-15]]], dtype=torch.float64)
    root = factor(almost)
    assert root[0, 1, 1] ** 2 > 1e-9 * scale
    assert (root @ root.mT - almost).abs().max() < max(3 * RIDGE, 2e-8 * scale)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_covariances_that_are_not_finite_terminate(wrong: float) -> None:
    assert not factor(torch.full((1, 2, 2), wrong)).isfinite().all()


def flat(channels: int, height: int, width: int, value: float = 0.3) -> Tensor:
    return torch.full((1, channels, height, width), value)


@pytest.mark.parametrize(
    ("content", "style"),
    [
        (flat(6, 8, 9), features(6, 8, 9)),
        (features(6, 8, 9), flat(6, 8, 9)),
        (flat(6, 8, 9), flat(6, 4, 4, 0.9)),
        (features(6, 1, 1), features(6, 8, 9)),
        (features(6, 8, 9), features(6, 1, 1)),
        (features(6, 1, 4), features(6, 2, 2, seed=3)),
        (features(6, 8, 9).repeat(1, 2, 1, 1), features(12, 8, 9, seed=3)),
        (features(12, 8, 9), 1e4 * features(6, 8, 9, seed=3).repeat(1, 2, 1, 1)),
    ],
    ids=[
        "flat content",
        "flat style",
        "both flat",
        "one position",
        "style of one",
        "few",
        "twins",
        "large twins",
    ],
)
def test_singular_features_stay_bounded(content: Tensor, style: Tensor) -> None:
    found = moved(content, style)
    assert found.isfinite().all()
    mean = style.mean((2, 3), keepdim=True)
    spread = style.std(unbiased=False).item() + 0.03
    torch.testing.assert_close(found.mean((2, 3), keepdim=True), mean, atol=0.05 * spread, rtol=1e-3)
    assert (found - mean).abs().max() < 20 * spread


@pytest.mark.parametrize("content", [flat(4, 5, 5), features(4, 1, 2), features(4, 9, 9)])
@pytest.mark.parametrize("style", [flat(4, 5, 5), features(4, 9, 9, seed=2)])
def test_gradients_stay_finite(content: Tensor, style: Tensor) -> None:
    content, style = content.clone().requires_grad_(), style.clone().requires_grad_()
    moved(content, style).square().sum().backward()
    assert content.grad is not None
    assert style.grad is not None
    assert content.grad.isfinite().all()
    assert style.grad.isfinite().all()


def test_gradients_pass_gradcheck() -> None:
    content, style = (features(3, 3, 4, seed=seed).double().requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(moved, (content, style))


# Regions.


def halves(height: int, width: int) -> Tensor:
    return (torch.arange(width) >= width // 2).long().expand(height, width)


def test_each_region_takes_its_own_style() -> None:
    content, places = features(4, 20, 30), halves(20, 30)
    styles = [features(4, 15, 15, seed=1), 5 + features(4, 15, 15, seed=2)]
    found = recoloured_by_region(
        content, places, {label: [(1.0, gaussian(style))] for label, style in enumerate(styles)}
    )
    for part, style in zip((found[..., :15], found[..., 15:]), styles, strict=True):
        for got, wanted in zip(moments(part[0].flatten(1)), moments(style[0].flatten(1)), strict=True):
            np.testing.assert_allclose(got, wanted, atol=2e-4 * np.abs(wanted).max())


def test_regions_without_a_style_do_not_change() -> None:
    content, places = features(4, 20, 30), halves(20, 30)
    style = [(1.0, gaussian(features(4, 9, 9, seed=1)))]
    found = recoloured_by_region(content, places, {1: style, 7: style})
    assert torch.equal(found[..., :15], content[..., :15])
    assert not torch.allclose(found[..., 15:], content[..., 15:], atol=0.1)


def test_a_region_of_one_position_takes_the_styles_mean() -> None:
    content, places = features(4, 20, 30), torch.zeros(20, 30, dtype=torch.int64)
    places[3, 4] = 1
    target = gaussian(features(4, 9, 9, seed=1))
    found = recoloured_by_region(content, places, {1: [(1.0, target)]})
    torch.testing.assert_close(found[0, :, 3, 4].double(), target.mean[0], atol=1e-3, rtol=1e-3)
    found[..., 3, 4] = content[..., 3, 4]
    assert torch.equal(found, content)


def test_only_positions_inside_count_in_the_statistics() -> None:
    content, places, style = (
        features(4, 12, 12),
        torch.zeros(12, 12, dtype=torch.int64),
        features(4, 9, 9, seed=1),
    )
    content[..., 8:, :] += 50
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[:8] = True
    found = recoloured_by_region(content, places, {0: [(1.0, gaussian(style))]}, inside=inside)
    expected = recoloured(content, gaussian(content[..., :8, :]), gaussian(style))
    torch.testing.assert_close(found, expected)


def test_gaussian_unpacks_to_mean_and_root() -> None:
    mean, root = Gaussian(torch.zeros(1, 2), torch.eye(2)[None])
    assert mean.shape == (1, 2)
    assert root.shape == (1, 2, 2)
