"""Hatching: lines only where there is tone, with a width that follows it, and a minimum spacing."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from atelier.filtering.hatching import hatch, turned


def level(angle: float, size: int = 80) -> np.ndarray:
    vectors = np.empty((size, size, 2), np.float32)
    vectors[:] = (np.cos(np.radians(angle)), np.sin(np.radians(angle)))
    return vectors


def lines(amount: np.ndarray, vectors: np.ndarray, seed: int = 0, width: float = 1.5) -> np.ndarray:
    return hatch(amount.astype(np.float32), vectors, spacing=6, width=width, length=60, seed=seed)


def test_areas_without_tone_stay_white() -> None:
    amount = np.zeros((80, 80))
    amount[:, 40:] = 1
    drawn = lines(amount, level(90))
    assert drawn[:, :37].max() == 0
    assert drawn[:, 44:].mean() > 0.05
    assert drawn.max() <= 1


def test_larger_amounts_cover_more() -> None:
    cover = [lines(np.full((80, 80), share), level(30), width=3.5).mean() for share in (0.2, 0.6, 1.0)]
    assert cover[0] < cover[1] < cover[2]


def test_lines_keep_their_spacing() -> None:
    # Across horizontal lines, the next one is at least the spacing (less a line's width) away.
    drawn = lines(np.ones((80, 80)), level(0))
    gaps = []
    for column in range(5, 75, 5):
        rows, count = ndimage.label(drawn[:, column] > 0.3)
        centres = [np.mean(np.nonzero(rows == index + 1)) for index in range(count)]
        gaps.extend(np.diff(centres))
    assert min(gaps) > 4
    assert np.median(gaps) < 12


def test_lines_run_along_the_directions() -> None:
    drawn = lines(np.ones((80, 80)), level(0))
    assert np.abs(np.diff(drawn, axis=1)).mean() < 0.4 * np.abs(np.diff(drawn, axis=0)).mean()
    upright = lines(np.ones((80, 80)), turned(level(0), 90))
    assert np.abs(np.diff(upright, axis=0)).mean() < 0.4 * np.abs(np.diff(upright, axis=1)).mean()


def test_the_same_seed_gives_the_same_lines() -> None:
    amount = np.ones((40, 40))
    assert np.array_equal(lines(amount, level(10, 40), 3), lines(amount, level(10, 40), 3))
    assert not np.array_equal(lines(amount, level(10, 40), 3), lines(amount, level(10, 40), 4))
    assert hatch(np.ones((1, 1), np.float32), level(0, 1), spacing=5, width=1, length=9, seed=0).shape == (
        1,
        1,
    )
