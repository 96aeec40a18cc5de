"""Differences of Gaussians: lines only at edges, and blurs that agree with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from atelier.filtering.xdog import blurred_twice, flow_lines, soft_threshold, xdog


def upward(shape: tuple[int, int]) -> np.ndarray:
    vectors = np.zeros((*shape, 2), np.float32)
    vectors[..., 1] = 1
    return vectors


def step(low: float = 0.3, high: float = 0.7) -> np.ndarray:
    picture = np.full((24, 40), low, np.float32)
    picture[:, 20:] = high
    return picture


def test_blurs_across_directions_are_gaussians() -> None:
    picture = np.random.default_rng(0).random((24, 40), dtype=np.float32)
    narrow, wide = blurred_twice(picture, 1.5, upward(picture.shape))
    for got, sigma in ((narrow, 1.5), (wide, 2.4)):
        expected = ndimage.gaussian_filter1d(picture.astype(float), sigma, axis=1, truncate=5 / sigma)
        np.testing.assert_allclose(got[:, 6:-6], expected[:, 6:-6], atol=0.01)


def test_blurs_without_directions_are_isotropic() -> None:
    picture = np.random.default_rng(1).random((30, 30), dtype=np.float32)
    narrow, wide = blurred_twice(picture, 1.5)
    np.testing.assert_allclose(narrow, ndimage.gaussian_filter(picture, 1.5), atol=0.01)
    np.testing.assert_allclose(wide, ndimage.gaussian_filter(picture, 2.4), atol=0.01)


@pytest.mark.parametrize("grey", [0.05, 0.5, 1.0])
def test_no_lines_on_a_plain_picture(grey: float) -> None:
    assert (flow_lines(np.full((9, 9), grey, np.float32), upward((9, 9)), 1.2) == 1).all()


def test_an_edge_is_drawn_on_its_dark_side() -> None:
    lines = flow_lines(step(), upward((24, 40)), 1.5, weight=2)
    assert lines[:, 19].max() < 0.3
    assert lines[:, 22:].min() == 1
    assert lines[:, :12].min() == 1
    faint = flow_lines(step(0.49, 0.51), upward((24, 40)), 1.5)
    assert faint.min() > lines.min()


def test_xdog_fills_dark_areas() -> None:
    drawn = xdog(step(0.1, 0.9), upward((24, 40)), 1.2, level=0.5, slope=20)
    assert drawn[:, :18].max() < 0.01
    assert (drawn[:, 22:] == 1).all()


def test_the_soft_threshold_is_that_of_the_paper() -> None:
    values = np.array([[0.2, 0.5, 0.8]], np.float32)
    expected = [1 + np.tanh(3 * (0.2 - 0.5)), 1, 1]
    np.testing.assert_allclose(soft_threshold(values, 0.5, 3)[0], expected, atol=1e-6)
