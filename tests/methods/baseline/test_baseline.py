"""The baselines: the unchanged photo, and the painting cropped to the photo's frame."""

from __future__ import annotations

import numpy as np

import atelier


def test_identity_returns_the_photo() -> None:
    photo = np.random.default_rng(0).random((30, 40, 3), dtype=np.float32)
    made = atelier.stylize(photo, photo[::-1].copy(), method="identity")
    assert np.array_equal(made.pixels, photo)


def test_style_copy_of_the_same_shape_is_the_style() -> None:
    photo, style = np.random.default_rng(0).random((2, 30, 40, 3), dtype=np.float32)
    assert np.array_equal(atelier.stylize(photo, style, method="style_copy").pixels, style)


def test_style_copy_crops_the_centre_and_keeps_proportions() -> None:
    photo = np.zeros((20, 40, 3), np.float32)
    style = np.zeros((40, 40, 3), np.float32)
    style[10:30, 20:] = 1  # the middle rows, right half
    made = atelier.stylize(photo, style, method="style_copy").pixels
    assert made[:, 21:].min() > 0.9
    assert made[:, :19].max() < 0.1
