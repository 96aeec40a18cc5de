"""Stippling: the number of dots follows the tone, dots are spread evenly, and cells are correct."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from atelier.filtering.stippling import _nearest, buckets, draw_dots, stipple


def ramp() -> np.ndarray:
    """Density from 0 on the left to 0.04 dots per pixel on the right."""
    return np.broadcast_to(np.linspace(0, 0.04, 120, dtype=np.float32), (100, 120)).copy()


def test_nearest_agrees_with_a_kd_tree() -> None:
    generator = np.random.default_rng(0)
    # Crowded on one side, empty on the other.
    points = (generator.random((60, 2)) ** [3, 1] * [40, 30]).astype(np.float32)
    starts, order = buckets(points, (30, 40), 3.0)
    places = generator.random((200, 2)) * [39, 29]
    got = [_nearest(points, starts, order, 3.0, x, y) for x, y in places]
    distances, expected = cKDTree(points).query(places)
    reached = np.hypot(*(points[got] - places).T)
    np.testing.assert_allclose(reached, distances, atol=1e-4)
    assert np.mean(np.array(got) == expected) > 0.97


def test_the_number_of_dots_follows_the_density() -> None:
    points = stipple(ramp(), rounds=8, seed=1)
    assert abs(len(points) - ramp().sum()) < 0.05 * ramp().sum()
    left, middle, right = (np.histogram(points[:, 0], [0, 40, 80, 120])[0] / ramp().sum()).tolist()
    np.testing.assert_allclose([left, middle, right], [1 / 9, 3 / 9, 5 / 9], atol=0.05)
    assert points.min() >= 0
    assert points[:, 0].max() <= 119
    assert points[:, 1].max() <= 99


def test_lloyd_rounds_spread_the_dots() -> None:
    density = np.full((90, 90), 0.02, np.float32)

    def closest(rounds: int) -> float:
        points = stipple(density, rounds=rounds, seed=2)
        return float(np.quantile(cKDTree(points).query(points, 2)[0][:, 1], 0.05))

    # A hexagonal grid of this density has a spacing of 7.6 pixels.
    assert closest(0) < closest(10)
    assert 5 < closest(10) < 7.7


def test_white_has_no_dots() -> None:
    assert len(stipple(np.zeros((20, 20), np.float32), rounds=3, seed=0)) == 0
    assert draw_dots((5, 6), np.zeros((0, 2), np.float32), np.zeros(0, np.float32)).sum() == 0


def test_discs_have_their_area() -> None:
    drawn = draw_dots((40, 40), np.array([[20.3, 18.6]], np.float32), np.array([6.0], np.float32))
    np.testing.assert_allclose(drawn.sum(), np.pi * 36, rtol=0.02)
    assert drawn[19, 20] == 1
    assert drawn[2, 2] == 0
