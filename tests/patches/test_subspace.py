"""Nearest patches in a subspace, against an exhaustive search over full patches."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from atelier.patches import subspace as patch_space
from atelier.patches.subspace import PatchSpace
from atelier.patches.voting import corners


def smooth(seed: int, height: int, width: int) -> np.ndarray:
    picture = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    return 3 * (cv2.GaussianBlur(picture, (0, 0), 1.2) - 0.5)


def every_patch(picture: np.ndarray, patch: int, places: np.ndarray) -> np.ndarray:
    return np.stack(
        [picture[row : row + patch, column : column + patch].ravel() for row, column in places]
    ).astype(float)


def distances(
    picture: np.ndarray, style: np.ndarray, patch: int, places: np.ndarray, matches: np.ndarray
) -> np.ndarray:
    return ((every_patch(picture, patch, places) - every_patch(style, patch, matches)) ** 2).sum(1)


def least(picture: np.ndarray, style: np.ndarray, patch: int, places: np.ndarray) -> np.ndarray:
    every = every_patch(style, patch, corners(style.shape[:2], patch, 1))
    return np.array([((every - one) ** 2).sum(1).min() for one in every_patch(picture, patch, places)])


def test_all_directions_find_the_nearest() -> None:
    style, picture = smooth(0, 22, 25), smooth(1, 18, 19)
    places = corners(picture.shape[:2], 3, 2)
    matches = PatchSpace(style, 3, energy=1.0).match(picture, places)
    np.testing.assert_allclose(
        distances(picture, style, 3, places, matches), least(picture, style, 3, places), rtol=1e-3
    )


@pytest.mark.parametrize("patch", [5, 9])
def test_few_directions_find_nearly_the_nearest(patch: int) -> None:
    style, picture = smooth(0, 40, 44), smooth(1, 30, 33)
    places = corners(picture.shape[:2], patch, 3)
    space = PatchSpace(style, patch, energy=0.95)
    assert space.keys.shape[1] < 0.5 * 3 * patch**2
    found = distances(picture, style, patch, places, space.match(picture, places))
    assert found.mean() < 1.05 * least(picture, style, patch, places).mean()


def test_as_few_directions_as_hold_the_energy_are_kept() -> None:
    style = smooth(0, 40, 44)
    rows = every_patch(style, 5, corners(style.shape[:2], 5, 1))
    # The layout of extracted patches.
    rows = rows.reshape(-1, 5, 5, 3).transpose(0, 3, 1, 2).reshape(len(rows), -1)
    rows -= rows.mean(0)
    for energy in (0.5, 0.9, 0.99):
        directions = PatchSpace(style, 5, energy=energy).directions.numpy().astype(float)
        np.testing.assert_allclose(directions.T @ directions, np.eye(directions.shape[1]), atol=1e-4)
        held = ((rows @ directions) ** 2).sum() / (rows**2).sum()
        fewer = ((rows @ directions[:, :-1]) ** 2).sum() / (rows**2).sum()
        assert fewer < energy <= held + 1e-4


def test_refinement_finds_the_exact_patch_from_a_coarse_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_space, "_KEYS", 150)
    style = smooth(0, 50, 60)
    space = PatchSpace(style, 9)
    assert space.stride == 4
    assert len(space.corners) < 200
    picture = style[7:40, 11:50].copy()
    places = corners(picture.shape[:2], 9, 5)
    matches = space.match(picture, places)
    assert (matches - places == (7, 11)).all(axis=1).mean() > 0.9


def test_a_flat_style_gives_valid_matches() -> None:
    style = np.full((12, 12, 3), 0.4, np.float32)
    picture = smooth(1, 12, 14)
    places = corners((12, 14), 5, 3)
    matches = PatchSpace(style, 5).match(picture, places)
    assert matches.shape == places.shape
    assert (matches >= 0).all()
    assert (matches <= 7).all()
