"""Voting of overlapping patches: coverage, the plain mean, and robustness against outliers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from atelier.patches.voting import corners, fading, robust_vote


def cut(picture: np.ndarray, place: np.ndarray, patch: int) -> np.ndarray:
    return picture[place[0] : place[0] + patch, place[1] : place[1] + patch].astype(float)


def problem(seed: int = 0, patch: int = 5, gap: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A style, positions in a picture of 20 x 23 pixels, and their matches."""
    generator = np.random.default_rng(seed)
    style = generator.random((18, 16, 3), dtype=np.float32)
    places = corners((20, 23), patch, gap)
    matches = generator.integers(0, (18 - patch + 1, 16 - patch + 1), places.shape, dtype=np.int32)
    return style, places, matches


@pytest.mark.parametrize(("patch", "gap"), [(9, 5), (9, 9), (5, 1), (33, 28)])
@pytest.mark.parametrize("size", [(33, 33), (34, 61), (100, 75)])
def test_patches_cover_the_picture(patch: int, gap: int, size: tuple[int, int]) -> None:
    covered = np.zeros(size, int)
    places = corners(size, patch, gap)
    for row, column in places:
        assert row + patch <= size[0]
        assert column + patch <= size[1]
        covered[row : row + patch, column : column + patch] += 1
    assert covered.min() >= 1
    assert len(places) <= (size[0] // gap + 1) * (size[1] // gap + 1)


@pytest.mark.parametrize("patch", [3, 9, 33])
def test_weights_fade_towards_the_border_of_a_patch(patch: int) -> None:
    window = fading(patch)
    assert window.sum() == pytest.approx(1, abs=1e-5)
    assert window.min() > 0
    middle = window[patch // 2]
    assert (np.diff(middle[: patch // 2 + 1]) > 0).all()
    np.testing.assert_allclose(window, window.T, rtol=1e-5)
    np.testing.assert_allclose(window, window[::-1, ::-1], rtol=1e-4)
    # Hann windows that overlap by half sum to a constant.
    even = fading(8).sum(axis=0)
    np.testing.assert_allclose(even[:4] + even[4:], 2 / 8, rtol=1e-5)


def test_power_two_gives_the_weighted_mean() -> None:
    style, places, matches = problem()
    total, count = np.zeros((20, 23, 3)), np.zeros((20, 23, 1))
    for place, match in zip(places, matches, strict=True):
        here = np.s_[place[0] : place[0] + 5, place[1] : place[1] + 5]
        total[here] += fading(5)[..., None] * cut(style, match, 5)
        count[here] += fading(5)[..., None]
    voted = robust_vote(np.zeros((20, 23, 3), np.float32), style, places, matches, 5, power=2.0)
    np.testing.assert_allclose(voted, total / count, atol=1e-5)


@pytest.mark.parametrize("power", [0.8, 1.0, 1.5])
def test_the_energy_never_rises(power: float) -> None:
    style, places, matches = problem(1)

    def energy(picture: np.ndarray) -> float:
        apart = [
            cut(picture, place, 5) - cut(style, match, 5)
            for place, match in zip(places, matches, strict=True)
        ]
        return float(sum((fading(5)[..., None] * one**2).sum() ** (power / 2) for one in apart))

    start = np.random.default_rng(2).random((20, 23, 3), dtype=np.float32)
    course = [energy(start)]
    for rounds in (1, 2, 3, 5, 8, 13):
        voted = robust_vote(start, style, places, matches, 5, power=power, iterations=rounds)
        course.append(energy(voted))
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(course))
    assert course[-1] < course[1] < course[0]


def test_an_outlier_patch_is_outvoted() -> None:
    style = np.full((20, 20, 3), 0.5, np.float32)
    style[10:, 10:] = 1
    places = corners((20, 23), 6, 2)
    matches = np.zeros_like(places)
    matches[len(matches) // 2] = 12
    start = np.full((20, 23, 3), 0.5, np.float32)
    robust, mean = (
        robust_vote(start, style, places, matches, 6, power=power, iterations=10) for power in (0.8, 2.0)
    )
    assert np.abs(mean - 0.5).max() > 0.05
    assert np.abs(robust - 0.5).max() < 0.002


def test_consistent_patches_reproduce_the_picture() -> None:
    style = np.random.default_rng(0).random((24, 30, 3), dtype=np.float32)
    places = corners((20, 23), 9, 5)
    matches = places + np.array([2, 4], np.int32)
    voted = robust_vote(np.zeros((20, 23, 3), np.float32), style, places, matches, 9)
    np.testing.assert_allclose(voted, style[2:22, 4:27], atol=1e-6)
