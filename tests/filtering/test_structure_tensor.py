"""Directions of known stripes, and smoothing along them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from atelier.filtering.structure_tensor import blur, directions, flow, smooth_along, structure_tensor


def stripes(angle: float, period: float = 9.0, size: int = 48) -> np.ndarray:
    """Stripes that run along `angle`."""
    y, x = np.mgrid[:size, :size]
    across = -x * math.sin(angle) + y * math.cos(angle)
    return (0.5 + 0.4 * np.sin(2 * np.pi * across / period)).astype(np.float32)


@given(st.floats(0, math.pi))
@settings(max_examples=12, deadline=None)
def test_directions_follow_stripes(angle: float) -> None:
    vectors, clear = directions(structure_tensor(stripes(angle), 2.0))
    inner = vectors[10:-10, 10:-10]
    along = np.abs(inner @ np.array([math.cos(angle), math.sin(angle)], np.float32))
    assert along.min() > math.cos(math.radians(4))
    assert clear[10:-10, 10:-10].min() > 0.9


def test_colour_edges_of_equal_lightness_have_directions() -> None:
    grey = stripes(0.3)
    equal_light = np.stack([grey, 1 - grey, np.full_like(grey, 0.5)], axis=2)
    vectors, _ = directions(structure_tensor(equal_light, 2.0))
    along = np.abs(vectors[10:-10, 10:-10] @ np.array([math.cos(0.3), math.sin(0.3)], np.float32))
    assert along.min() > 0.99


def test_a_plain_picture_has_no_direction() -> None:
    vectors, clear = flow(np.full((20, 30, 3), 0.4, np.float32), 2.0)
    assert np.array_equal(np.unique(vectors.reshape(-1, 2), axis=0), [[1, 0]])
    assert clear.max() == 0


def test_flat_areas_take_the_direction_of_the_nearest_contour() -> None:
    picture = np.zeros((64, 64), np.float32)
    picture[:, 12:] = 1
    vectors, clear = flow(picture, 1.5)
    assert np.abs(vectors[20:44, 8:30, 1]).min() > 0.95
    assert clear[32, 28] < 0.1


def test_smoothing_along_keeps_a_constant_and_the_mean_of_stripes() -> None:
    angle = 0.6
    picture = stripes(angle, size=40)
    way = np.empty((40, 40, 2), np.float32)
    way[:] = (math.cos(angle), math.sin(angle))
    along = smooth_along(picture, way, 4.0)
    across = smooth_along(picture, np.stack([-way[..., 1], way[..., 0]], axis=2), 4.0)
    inner = np.s_[10:-10, 10:-10]
    assert np.abs(along[inner] - picture[inner]).max() < 0.06
    assert across[inner].std() < 0.1 * picture[inner].std()
    flat = np.full((12, 9, 3), 0.3, np.float32)
    np.testing.assert_allclose(smooth_along(flat, way[:12, :9].copy(), 3.0), 0.3, atol=1e-6)


def test_smoothing_along_rows_is_a_gaussian() -> None:
    picture = np.random.default_rng(0).random((3, 60), dtype=np.float32)
    way = np.zeros((3, 60, 2), np.float32)
    way[..., 0] = 1
    expected = ndimage.gaussian_filter1d(picture.astype(float), 2.0, axis=1, truncate=2.0)
    np.testing.assert_allclose(smooth_along(picture, way, 2.0)[:, 5:-5], expected[:, 5:-5], atol=1e-5)


def test_the_sign_of_directions_does_not_matter() -> None:
    picture = np.random.default_rng(1).random((20, 20), dtype=np.float32)
    way = np.zeros((20, 20, 2), np.float32)
    way[..., 0] = 1
    mixed = way * np.where(np.random.default_rng(2).random((20, 20, 1)) < 0.5, -1, 1).astype(np.float32)
    np.testing.assert_allclose(smooth_along(picture, mixed, 3.0), smooth_along(picture, way, 3.0), atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 1.5, 12.0])
def test_blur_agrees_with_scipy(sigma: float) -> None:
    y, x = np.mgrid[:80, :96]
    picture = np.sin(x / 9 + y / 13).astype(np.float32)
    expected = ndimage.gaussian_filter(picture, sigma, mode="reflect") if sigma else picture
    assert np.abs(blur(picture, sigma) - expected).max() < 0.03
    assert blur(np.ones((1, 1, 3), np.float32), sigma).shape == (1, 1, 3)
