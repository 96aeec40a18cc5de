"""AdaIN, whitening and colouring, and CORAL against slow NumPy, including rank-deficient features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atelier.maths import whitening
from atelier.maths.moments import channel_moments, mean_and_covariance
from atelier.maths.whitening import adain, blend, colouring, coral, whiten_and_colour

Doubles = npt.NDArray[np.float64]
HALVES = [torch.bfloat16, torch.float16]


def some(channels: int, height: int, width: int, *, rank: int | None = None, seed: int = 0) -> Tensor:
    """Correlated features (1, C, H, W), as after a ReLU, with at most `rank` directions and a mean."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, rank or channels, generator=generator) / 2
    mean = 2 * torch.rand(channels, 1, generator=generator)
    vectors = mixing @ torch.randn(rank or channels, height * width, generator=generator) + mean
    return vectors.reshape(1, channels, height, width)


def published(content: Tensor, style: Tensor, ridge: float) -> Doubles:
    """Li et al.'s formula, written out with NumPy's singular values."""
    c, s = (one[0].flatten(1).double().numpy() for one in (content, style))
    centred, toned = c - c.mean(1, keepdims=True), s - s.mean(1, keepdims=True)
    covariance = centred @ centred.T / (c.shape[1] - 1) + ridge * np.eye(len(c))
    roots = []
    for matrix, exponent in ((covariance, -0.5), (toned @ toned.T / (s.shape[1] - 1), 0.5)):
        _, values, vectors = np.linalg.svd(matrix)
        kept = values >= 1e-5
        roots.append((vectors[kept].T * values[kept] ** exponent) @ vectors[kept])
    return roots[1] @ roots[0] @ centred + s.mean(1, keepdims=True)


# AdaIN


def test_adain_gives_the_moments_of_the_style() -> None:
    content, style = some(6, 9, 11), some(6, 5, 4, seed=1)
    mean, deviation = channel_moments(style, unbiased=True, eps=0)
    found = channel_moments(adain(content, mean, deviation, eps=0), unbiased=True, eps=0)
    torch.testing.assert_close(found, (mean, deviation))


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_keeps_the_moments(dtype: torch.dtype) -> None:
    # The deviation is a few hundredths of the mean, so rounding of the mean would be visible.
    content = (3 + 0.1 * some(6, 40, 40)).to(dtype)
    style = some(6, 30, 30, seed=1)
    mean, deviation = channel_moments(style, unbiased=True)
    found = channel_moments(adain(content, mean, deviation).float(), unbiased=True)
    assert adain(content, mean, deviation).dtype == dtype
    torch.testing.assert_close(found[0], mean, atol=0.02, rtol=0.01)
    torch.testing.assert_close(found[1], deviation, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_adain_strength_blends_with_the_features(strength: float) -> None:
    content, style = some(5, 6, 7), some(5, 3, 8, seed=1)
    moments = channel_moments(style, unbiased=True)
    mixed = adain(content, *moments, strength=strength)
    torch.testing.assert_close(mixed, torch.lerp(content, adain(content, *moments), strength))


def test_blending_moments_equals_blending_results() -> None:
    content, styles = some(5, 6, 7), [some(5, 3, 8, seed=seed) for seed in (1, 2)]
    moments = [channel_moments(style, unbiased=True) for style in styles]
    mean, deviation = (0.25 * a + 0.75 * b for a, b in zip(*moments, strict=True))
    both = 0.25 * adain(content, *moments[0]) + 0.75 * adain(content, *moments[1])
    torch.testing.assert_close(adain(content, mean, deviation), both)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("shape", [(1, 1), (4, 5)])
def test_flat_features_become_the_styles_mean(shape: tuple[int, int], dtype: torch.dtype) -> None:
    flat = torch.full((1, 3, *shape), 0.7).to(dtype)
    mean, deviation = channel_moments(some(3, 4, 4), unbiased=True)
    found = adain(flat, mean, deviation).float()
    torch.testing.assert_close(found, mean.expand_as(found), atol=2e-2, rtol=1e-2)


def test_a_region_has_its_own_moments() -> None:
    content, (mean, deviation) = some(4, 8, 8), channel_moments(some(4, 5, 5, seed=1), unbiased=True)
    weight = torch.zeros(1, 1, 8, 8)
    weight[..., :3] = 1
    found = adain(content, mean, deviation, weight=weight)[..., :3]
    torch.testing.assert_close(found, adain(content[..., :3], mean, deviation))


# Whitening and colouring.


@pytest.mark.parametrize("ridge", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("style_rank", [None, 3])
def test_whitening_agrees_with_the_published_formula(ridge: float, style_rank: int | None) -> None:
    content, style = some(7, 9, 8), some(7, 6, 5, rank=style_rank, seed=1)
    found = whiten_and_colour(content, colouring(style), ridge=ridge)
    np.testing.assert_allclose(found[0].flatten(1), published(content, style, ridge), atol=2e-4)


def test_whitening_gives_the_mean_and_covariance_of_the_style() -> None:
    content, style = some(8, 16, 16), some(8, 9, 13, seed=1)
    found = whiten_and_colour(content, colouring(style), ridge=0)
    torch.testing.assert_close(
        mean_and_covariance(found, unbiased=True),
        mean_and_covariance(style, unbiased=True),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_is_close_to_float32(dtype: torch.dtype, near: float) -> None:
    content, style = some(8, 32, 32), some(8, 20, 20, seed=1)
    found = whiten_and_colour(content.to(dtype), colouring(style.to(dtype)), ridge=0)
    assert found.dtype == dtype
    expected = whiten_and_colour(content, colouring(style), ridge=0)
    assert (found.float() - expected).square().mean().sqrt() < near * expected.std()
    mean, covariance = mean_and_covariance(found.float(), unbiased=True)
    wanted_mean, wanted = mean_and_covariance(style, unbiased=True)
    assert (mean - wanted_mean).abs().max() < near * wanted_mean.abs().max()
    assert (covariance - wanted).norm() < near * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("rank", [0, 1, 5])
def test_missing_directions_are_not_amplified(
    dtype: torch.dtype, relative: bool, ridge: float, rank: int
) -> None:
    flat = torch.full((1, 12, 7, 7), 0.6)
    content = some(12, 7, 7, rank=rank) if rank else flat
    for style in (some(12, 9, 9, seed=1), some(12, 2, 2, seed=1), flat, flat[..., :1, :1]):
        found = whiten_and_colour(
            content.to(dtype), colouring(style.to(dtype)), ridge=ridge, relative=relative
        ).float()
        assert torch.isfinite(found).all()
        mean = style.mean((2, 3), keepdim=True)
        torch.testing.assert_close(found.mean((2, 3), keepdim=True), mean, atol=0.05, rtol=0.02)
        # No direction gets more variance than the strongest direction of the style.
        spread = mean_and_covariance(found, unbiased=True)[1]
        strongest = torch.linalg.eigvalsh(mean_and_covariance(style, unbiased=True)[1]).max()
        assert torch.linalg.eigvalsh(spread).max() <= 1.05 * strongest + 1e-3


def test_low_rank_content_gets_the_style_in_its_own_directions() -> None:
    content, style = some(6, 9, 9, rank=2), some(6, 8, 8, seed=1)
    found = whiten_and_colour(content, colouring(style), ridge=0)
    covariance = mean_and_covariance(content.double(), unbiased=True)[1][0]
    values, vectors = torch.linalg.eigh(covariance)
    kept = vectors[:, values > 1e-6 * values.max()]
    assert kept.shape[1] == 2
    root = colouring(style).root[0]
    expected = root @ kept @ kept.mT @ root
    torch.testing.assert_close(
        mean_and_covariance(found, unbiased=True)[1][0], expected.float(), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_masks_of_a_few_positions_equal_a_crop_and_stay_finite(count: int) -> None:
    content, weight = some(5, 6, 6), torch.zeros(1, 1, 6, 6)
    weight.flatten()[:count] = 1
    style = colouring(content, weight=weight)
    alone = content.flatten(2)[:, :, :count][..., None]
    if count:
        expected = colouring(alone)
        torch.testing.assert_close((style.mean, style.root), (expected.mean, expected.root))
    found = whiten_and_colour(content, colouring(some(5, 4, 4, seed=1)), ridge=0, weight=weight)
    assert torch.isfinite(found).all()


def test_strength_blends_and_zero_changes_nothing() -> None:
    content, style = some(5, 8, 8), colouring(some(5, 6, 6, seed=1))
    whole = whiten_and_colour(content, style)
    torch.testing.assert_close(whiten_and_colour(content, style, strength=0.0), content)
    mixed = whiten_and_colour(content, style, strength=0.4)
    torch.testing.assert_close(mixed, torch.lerp(content, whole, 0.4), atol=1e-5, rtol=1e-5)


def test_blending_styles_equals_blending_results() -> None:
    content, styles = some(5, 8, 8), [colouring(some(5, 6, 6, seed=seed)) for seed in (1, 2)]
    both = 0.3 * whiten_and_colour(content, styles[0]) + 0.7 * whiten_and_colour(content, styles[1])
    found = whiten_and_colour(content, blend(styles, (0.3, 0.7)))
    torch.testing.assert_close(found, both, atol=1e-5, rtol=1e-5)


def test_a_relative_ridge_is_invariant_to_scale() -> None:
    content, style = some(5, 8, 8), colouring(some(5, 6, 6, seed=1))
    small, large = (
        whiten_and_colour(scale * content, style, ridge=0.2, relative=True) for scale in (0.01, 10.0)
    )
    torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-4)


def test_results_do_not_depend_on_blocks_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = torch.cat([some(4, 9, 7), some(4, 9, 7, seed=3)])
    whole = whiten_and_colour(pair, colouring(pair.flip(0)))
    monkeypatch.setattr(whitening, "_BLOCK", 10)
    one_by_one = [whiten_and_colour(pair[i : i + 1], colouring(pair[1 - i : 2 - i])) for i in (0, 1)]
    torch.testing.assert_close(torch.cat(one_by_one), whole, atol=1e-5, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), channels=st.integers(1, 6))
def test_shape_and_memory_format_do_not_change_the_result(height: int, width: int, channels: int) -> None:
    content, style = some(channels, height, width), colouring(some(channels, 3, 3, seed=1))
    last = content.contiguous(memory_format=torch.channels_last)
    plain, found = whiten_and_colour(content, style), whiten_and_colour(last, style)
    assert found.shape == content.shape
    torch.testing.assert_close(plain, found)


# CORAL


def picture(seed: int, height: int = 7, width: int = 9) -> Tensor:
    return some(3, height, width, seed=seed).sigmoid()


def test_coral_to_itself_changes_nothing() -> None:
    torch.testing.assert_close(coral(picture(1), picture(1)), picture(1), atol=1e-5, rtol=1e-5)


def test_coral_gives_the_moments_of_the_target_for_many_pixels() -> None:
    # With thousands of pixels the identity added to the sums is negligible.
    source, target = picture(1, 80, 90), picture(2, 80, 90)
    found, wanted = (mean_and_covariance(one, unbiased=True) for one in (coral(source, target), target))
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("size", [(1, 1), (5, 4)])
def test_coral_of_flat_pictures_gives_the_mean_colour(size: tuple[int, int]) -> None:
    found = coral(torch.full((1, 3, *size), 0.3), picture(2))
    torch.testing.assert_close(found, picture(2).mean((2, 3), keepdim=True).expand_as(found))
    towards = coral(picture(1), torch.full((1, 3, *size), 0.3))
    torch.testing.assert_close(towards, torch.full_like(towards, 0.3))


def test_coral_counts_only_visible_pixels() -> None:
    source, target = (torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    seen = torch.zeros(1, 1, 6, 8)
    seen[..., :5] = 1
    moved = coral(source, target, seen=seen)
    assert moved.shape == source.shape
    torch.testing.assert_close(moved[..., :5], coral(source[..., :5], target))
    assert (moved - coral(source, target)).abs().max() > 1e-2
