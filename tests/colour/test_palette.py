"""Palettes: the colours of a picture with few colours are found exactly."""

from __future__ import annotations

import numpy as np
import scipy.cluster.vq

from atelier.colour.palette import nearest, palette

FOUR = np.array([[10, 0, 0], [60, 40, 10], [80, -30, 50], [95, 0, 5]], np.float32)


def test_a_picture_of_few_colours_gives_exactly_those() -> None:
    picture = FOUR[np.random.default_rng(0).integers(0, 4, 9000)]
    found = palette(picture, 4, seed=1)
    assert np.allclose(found[np.argsort(found[:, 0])], FOUR, atol=1e-3)
    assert len(palette(picture, 30, seed=1)) == 4
    assert len(palette(picture[:1], 5, seed=1)) == 1


def test_each_colour_is_the_mean_of_its_cluster() -> None:
    points = np.random.default_rng(2).normal(0, 20, (500, 3)).astype(np.float32)
    centres = palette(points, 6, seed=3)
    owner = nearest(points, centres)
    for index, centre in enumerate(centres):
        np.testing.assert_allclose(points[owner == index].mean(axis=0), centre, atol=3)
    assert np.array_equal(centres, palette(points, 6, seed=3))


def test_clusters_are_as_tight_as_those_of_a_reference() -> None:
    points = np.random.default_rng(6).normal(0, 20, (800, 3)).astype(np.float32)
    own = palette(points, 8, seed=0)
    reference, _ = scipy.cluster.vq.kmeans(points.astype(np.float64), 8, rng=0)  # the best of 20 runs
    spread = [
        ((points[:, None] - centres) ** 2).sum(axis=2).min(axis=1).mean() for centres in (own, reference)
    ]
    assert spread[0] < 1.1 * spread[1]


def test_a_nearly_flat_picture_has_finite_centres() -> None:
    points = np.full((3000, 3), 50, np.float32)
    points[:6, 0] += np.arange(6, dtype=np.float32)
    for seed in range(20):
        found = palette(points, 5, seed)
        assert np.isfinite(found).all()
        assert 1 <= len(found) <= 5
        assert len(np.unique(found, axis=0)) == len(found)


def test_nearest_agrees_with_brute_force() -> None:
    points = np.random.default_rng(4).random((40, 3), dtype=np.float32) * 100
    expected = ((points[:, None] - FOUR) ** 2).sum(axis=2).argmin(axis=1)
    assert np.array_equal(nearest(points, FOUR), expected)
