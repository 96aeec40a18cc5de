"""Template search against brute force, and random draws among near-best errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atelier.patches.template_search import drawn, planar, search

WINDOW = (3, 4)


def template(seed: int, terms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    places = generator.integers(0, (2, *WINDOW), (terms, 3), dtype=np.int32)
    return places, generator.random(terms, dtype=np.float32), generator.random(terms, dtype=np.float32)


def brute_force(
    planes: np.ndarray, places: np.ndarray, values: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    height, width = planes.shape[1] - WINDOW[0] + 1, planes.shape[2] - WINDOW[1] + 1
    errors = np.zeros((height, width))
    for (channel, row, column), value, weight in zip(places, values, weights, strict=True):
        errors += weight * (planes[channel, row : row + height, column : column + width] - value) ** 2.0
    return errors


@pytest.mark.parametrize("terms", [0, 1, 12, 31])
@pytest.mark.parametrize("threads", [1, 2])
def test_errors_within_the_slack_are_exact(terms: int, threads: int) -> None:
    planes = np.random.default_rng(1).random((2, 40, 33), dtype=np.float32)
    places, values, weights = template(2, terms)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        errors = search(planes, WINDOW, places, values, weights, slack=0.5)
    finally:
        torch.set_num_threads(before)
    exact = brute_force(planes, places, values, weights)
    good = exact <= 1.5 * exact.min()
    np.testing.assert_allclose(errors[good], exact[good], rtol=1e-4, atol=1e-7)
    # Abandoned rows are infinite, never below the true error.
    assert (errors >= exact * (1 - 1e-4)).all()


def test_rows_far_from_the_best_are_abandoned() -> None:
    planes = np.zeros((1, 50, 20), np.float32)
    planes[:, 10:] = 1
    places = np.array([(0, row % 2, column % 3) for row in range(6) for column in range(6)], np.int32)
    ones = np.ones(len(places), np.float32)
    errors = search(planes, (2, 3), places, 0 * ones, ones, slack=0.1)
    assert (errors[:9] == 0).all()
    assert np.isinf(errors[10:]).all()


def test_draws_are_within_the_slack() -> None:
    errors = np.array([[5, 1.05, 3], [1, 9, 1.1]], np.float32)
    found = [drawn(errors, 0.2, chance) for chance in (0, 0.33, 0.34, 0.66, 0.67, 0.999)]
    assert found == [(0, 1), (0, 1), (1, 0), (1, 0), (1, 2), (1, 2)]
    assert {drawn(errors, 0.0, chance) for chance in (0, 0.5, 0.999)} == {(1, 0)}


def test_planar_moves_channels_first() -> None:
    image = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    assert planar(image).flags.c_contiguous
    assert planar(image)[2, 1, 3] == image[1, 3, 2]
