"""Saliency: shapes stand out from their background, and a flat picture is all foreground."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from atelier.filtering.saliency import foreground


def ball(
    height: int = 120, width: int = 160, middle: tuple[int, int] = (70, 60), radius: int = 24
) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    image = np.stack([0.55 + x / 900, 0.6 + y / 900, 0.7 - x / 900], axis=2)
    image[(x - middle[0]) ** 2 + (y - middle[1]) ** 2 < radius**2] = (0.8, 0.25, 0.2)
    return (image + np.random.default_rng(0).normal(0, 0.02, image.shape)).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_a_ball_stands_out(scale: float) -> None:
    image = cv2.resize(ball(), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    mask = foreground(image)
    assert mask.shape == image.shape[:2]
    small = cv2.resize(mask, (160, 120), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:120, :160]
    away = np.hypot(x - 70, y - 60)
    assert np.quantile(small[away < 18], 0.1) > 0.7
    assert np.quantile(small[away > 36], 0.9) < 0.3


def test_a_shape_at_the_border_stands_out_less() -> None:
    inside, cut = foreground(ball()), foreground(ball(middle=(4, 100), radius=30))
    assert cut[90:110, :20].mean() < inside[50:70, 60:80].mean()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 300), (30, 30)])
def test_a_flat_picture_is_all_foreground(shape: tuple[int, int]) -> None:
    np.testing.assert_array_equal(foreground(np.full((*shape, 3), 0.4, np.float32)), np.ones(shape))


@pytest.mark.parametrize("shape", [(2, 3), (7, 150), (31, 20)])
def test_any_size_gives_a_finite_mask_in_0_to_1(shape: tuple[int, int]) -> None:
    mask = foreground(np.random.default_rng(0).random((*shape, 3), dtype=np.float32))
    assert mask.shape == shape
    assert np.isfinite(mask).all()
    assert mask.min() >= 0
    assert mask.max() <= 1
