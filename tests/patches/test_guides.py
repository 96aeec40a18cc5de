"""Correspondence maps: the same range for both pictures, preserved order, and equal blur."""

from __future__ import annotations

import numpy as np
import pytest

from atelier.colour.cielab import lightness
from atelier.patches.guides import By, guides


@pytest.mark.parametrize(("by", "channels"), [("lightness", 1), ("colours", 3)])
def test_the_photo_map_takes_the_range_of_the_painting(
    photo: np.ndarray, painting: np.ndarray, by: By, channels: int
) -> None:
    dark = (0.4 * painting).astype(np.float32)
    goal, guide = guides(photo, dark, by, blur=0, seed=0)
    assert goal.shape == (*photo.shape[:2], channels)
    assert guide.shape == (*dark.shape[:2], channels)
    np.testing.assert_allclose(goal.mean(axis=(0, 1)), guide.mean(axis=(0, 1)), atol=0.02)
    np.testing.assert_allclose(goal.std(axis=(0, 1)), guide.std(axis=(0, 1)), atol=0.02)
    assert abs(lightness(photo).mean() - goal[..., 0].mean()) > 0.1


def test_the_order_of_lightness_is_kept(photo: np.ndarray, painting: np.ndarray) -> None:
    goal, _ = guides(photo, painting, "lightness", blur=0, seed=0)
    order = np.argsort(lightness(photo).ravel())
    assert (np.diff(goal.ravel()[order]) >= -1e-6).all()


def test_a_picture_has_the_same_map_on_both_sides(painting: np.ndarray) -> None:
    goal, guide = guides(painting, painting, "lightness", blur=1.5, seed=0)
    np.testing.assert_allclose(goal, guide, atol=1e-5)
    assert np.abs(np.diff(guide, axis=1)).mean() < 0.5 * np.abs(np.diff(lightness(painting), axis=1)).mean()


@pytest.mark.parametrize("by", ["lightness", "colours"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9)])
def test_tiny_and_flat_pictures_have_equal_maps(by: By, shape: tuple[int, int]) -> None:
    flat = np.full((*shape, 3), 0.4, np.float32)
    goal, guide = guides(flat, 1 - flat, by, blur=2, seed=0)
    np.testing.assert_allclose(goal, guide, atol=1e-4)
