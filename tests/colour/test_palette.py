"""Palettes: the colours of a picture of few colours are found exactly."""

from __future__ import annotations

import numpy as np

from atelier.colour.palette import nearest, palette

FOUR = np.array([[10, 0, 0], [60, 40, 10], [80, -30, 50], [95, 0, 5]], np.float32)


def test_few_colours_are_found() -> None:
    picture = FOUR[np.random.default_rng(0).integers(0, 4, 9000)]
    found = palette(picture, 4, seed=1)
    assert np.allclose(found[np.argsort(found[:, 0])], FOUR, atol=1e-3)
    assert len(palette(picture, 30, seed=1)) == 4
    assert len(palette(picture[:1], 5, seed=1)) == 1


def test_each_is_the_mean_of_its_own() -> None:
    points = np.random.default_rng(2).normal(0, 20, (500, 3)).astype(np.float32)
    centres = palette(points, 6, seed=3)
    owner = nearest(points, centres)
    for index, centre in enumerate(centres):
        np.testing.assert_allclose(points[owner == index].mean(axis=0), centre, atol=3)
    assert np.array_equal(centres, palette(points, 6, seed=3))


def test_nearest_is_the_nearest() -> None:
    points = np.random.default_rng(4).random((40, 3), dtype=np.float32) * 100
    expected = ((points[:, None] - FOUR) ** 2).sum(axis=2).argmin(axis=1)
    assert np.array_equal(nearest(points, FOUR), expected)
