"""Relaxation: the reported energy is that of the painting, and never rises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from atelier.strokes.relaxation import Painting


def target(size: tuple[int, int] = (48, 60)) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    image = np.stack([x / size[1], y / size[0], 0.5 + 0.3 * np.sin(x / 5)], axis=2)
    image[size[0] // 3 : size[0] // 2, size[1] // 4 : size[1] // 2] = (0.9, 0.1, 0.1)
    return image.astype(np.float32)


@pytest.mark.parametrize("price", [0.0, 0.5, 1e6])
def test_the_energy_never_rises_and_matches_the_painting(price: float) -> None:
    painting = Painting.by_numbers(target(), 3.0, price=price, seed=1)
    energies = [painting.energy()]
    for energy in painting.relax(4, seed=2):
        np.testing.assert_allclose(energy, painting.energy(), rtol=1e-4)
        energies.append(energy)
    assert all(after <= before for before, after in itertools.pairwise(energies))
    assert energies[-1] < 0.9 * energies[0]


def test_strokes_are_moved_added_and_removed() -> None:
    painting = Painting.by_numbers(target(), 3.0, price=0.05, seed=1)
    before = painting.records.copy()
    list(painting.relax(3, seed=2))
    after = painting.records
    assert len(after) > len(before)
    assert after[len(before) :, 8].sum() > 0
    assert after[: len(before), 8].sum() < len(before)
    assert np.abs(after[: len(before), :2] - before[:, :2]).max() > 0.5
    # Strokes that cost more than they gain are removed.
    dear = Painting.by_numbers(target(), 3.0, price=1e6, seed=1)
    list(dear.relax(6, seed=2))
    assert dear.records[:, 8].sum() < 0.5 * len(before)


def test_later_strokes_cover_earlier_ones() -> None:
    painting = Painting.by_numbers(target((20, 20)), 4.0, price=0.0, seed=0)
    record = [10, 10, 5, 3, 0.4, 1, 0, 0, 1]
    painting.records = np.array([record, [*record[:5], 0, 1, 0, 1]], np.float32)
    assert painting.render()[10, 10].tolist() == [0, 1, 0]
    painting.records[1, 8] = 0
    assert painting.render()[10, 10].tolist() == [1, 0, 0]
    np.testing.assert_allclose(painting.render()[0, 19], painting.ground)
    strokes = painting.strokes()
    assert len(strokes) == 1
    np.testing.assert_allclose(strokes.points.mean(axis=0), [10, 10], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(strokes.points[1] - strokes.points[0]), 10, atol=1e-5)


def test_the_same_seed_gives_the_same_strokes_and_one_pixel_works() -> None:
    first, again = (Painting.by_numbers(target(), 3.0, price=0.1, seed=5) for _ in range(2))
    assert list(first.relax(2, 6)) == list(again.relax(2, 6))
    assert np.array_equal(first.records, again.records)
    dot = Painting.by_numbers(np.full((1, 1, 3), 0.5, np.float32), 0.5, price=0.1, seed=0)
    assert len(list(dot.relax(2, 0))) == 2


def test_trials_in_full_cells_are_rejected() -> None:
    painting = Painting.by_numbers(target((20, 20)), 6.0, price=0.0, seed=0)
    painting.records = np.tile(painting.records[:1], (192, 1))
    painting.records[:, :2] = np.random.default_rng(0).uniform(2, 14, (192, 2))
    energies = [painting.energy(), *painting.relax(2, seed=1)]
    assert energies == sorted(energies, reverse=True)
    np.testing.assert_allclose(painting.energy(), energies[-1], rtol=1e-4)
