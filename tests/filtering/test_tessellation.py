"""Tessellations: every pixel belongs to a piece, and borders follow edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from atelier.filtering.tessellation import border_distance, mean_colours, panes, square_tiles


def along(angle: float, shape: tuple[int, int]) -> np.ndarray:
    vectors = np.empty((*shape, 2), np.float32)
    vectors[:] = (np.cos(angle), np.sin(angle))
    return vectors


def test_tiles_have_about_the_requested_side() -> None:
    tiles = square_tiles(along(0, (96, 120)), np.zeros((96, 120), np.float32), 12, rounds=15, seed=0)
    areas = np.bincount(tiles.labels.ravel())
    assert len(areas) == 80
    assert 0.5 * 144 < np.quantile(areas, 0.1) < np.quantile(areas, 0.9) < 1.6 * 144
    # In the maximum metric, the corner of a square is as far from the centre as its sides.
    assert np.quantile(np.abs(tiles.position), 0.9) < 7.5
    assert (tiles.gap >= 0).all()


def test_cells_agree_with_brute_force_in_the_maximum_metric() -> None:
    vectors = along(0.5, (40, 40))
    tiles = square_tiles(vectors, np.zeros((40, 40), np.float32), 9, rounds=0, seed=3)
    y, x = np.mgrid[:40, :40]
    place = np.stack([x, y], axis=2) - tiles.position @ np.array(
        [[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]]
    )
    centres = np.stack(
        [ndimage.mean(place[..., axis], tiles.labels, range(tiles.labels.max() + 1)) for axis in (0, 1)],
        axis=1,
    )
    there = np.unique(tiles.labels)
    away = np.stack([x, y], axis=2)[:, :, None] - centres[there]
    turned = np.abs(away @ np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])).max(axis=3)
    ordered = np.sort(turned, axis=2)
    assert np.mean(there[turned.argmin(axis=2)] == tiles.labels) > 0.99
    expected = ordered[..., 1] - ordered[..., 0]
    near = expected < 3
    np.testing.assert_allclose(tiles.gap[near], expected[near], atol=0.05)
    assert tiles.gap[~near].min() > 2.9


def test_tiles_have_borders_on_edges() -> None:
    edge = np.zeros((80, 80), np.float32)
    edge[:, 38:41] = 1
    with_edge = square_tiles(along(np.pi / 2, edge.shape), edge, 14, rounds=20, seed=1)
    borders = border_distance(with_edge.labels)
    without = border_distance(
        square_tiles(along(np.pi / 2, edge.shape), 0 * edge, 14, rounds=20, seed=1).labels
    )
    assert borders[10:70, 39].mean() < without[10:70, 39].mean()


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (60, 80)])
def test_panes_cover_the_picture_and_are_reproducible(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    labels = panes(image, 14, smoothness=2, seed=5)
    assert labels.shape == shape
    assert labels.min() >= 0
    assert np.array_equal(labels, panes(image, 14, smoothness=2, seed=5))


def test_panes_follow_colours() -> None:
    image = np.full((90, 90, 3), 0.2, np.float32)
    image[:, 41:] = (0.9, 0.8, 0.1)
    labels = panes(image, 20, smoothness=2, seed=0)
    pure = mean_colours(image, labels)[labels]
    assert np.abs(pure - image).mean() < 0.03
    assert 4 < len(np.unique(labels)) < 60


def test_mean_colours_are_the_means_of_labels() -> None:
    labels = np.array([[0, 0, 2], [2, 2, 0]], np.int32)
    image = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    means = mean_colours(image, labels)
    np.testing.assert_allclose(means[0], image[labels == 0].mean(axis=0))
    np.testing.assert_allclose(means[2], image[labels == 2].mean(axis=0))


def test_border_distance_counts_pixels() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[:, 10:] = 1
    np.testing.assert_allclose(border_distance(labels)[5, 8:13], [1.5, 0.5, 0.5, 1.5, 2.5], atol=0.1)
    assert border_distance(np.zeros((4, 4), np.int32)).min() > 1e5
