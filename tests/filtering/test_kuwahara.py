"""Kuwahara filters: edges are kept, surfaces are flattened, and a slow reference agrees."""

from __future__ import annotations

import numpy as np
import pytest

from atelier.filtering.kuwahara import anisotropic_kuwahara, kuwahara


def slow(image: np.ndarray, radius: int) -> np.ndarray:
    """The Kuwahara filter by its definition, pixel by pixel."""
    height, width = image.shape[:2]
    padded = np.pad(image.astype(float), ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    result = np.empty(image.shape)
    for row in range(height):
        for column in range(width):
            squares = [
                padded[row + top : row + top + radius + 1, column + left : column + left + radius + 1]
                for top in (0, radius)
                for left in (0, radius)
            ]
            calm = min(squares, key=lambda square: square.reshape(-1, 3).var(axis=0).sum())
            result[row, column] = calm.reshape(-1, 3).mean(axis=0)
    return result


def test_kuwahara_agrees_with_a_slow_reference() -> None:
    image = np.random.default_rng(0).random((11, 13, 3), dtype=np.float32)
    np.testing.assert_allclose(kuwahara(image, 2), slow(image, 2), atol=1e-6)


@pytest.mark.parametrize("radius", [1, 3, 6])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_step_edge_stays_exactly_in_place(radius: int, axis: int) -> None:
    image = np.full((24, 24, 3), (0.2, 0.3, 0.4), np.float32)
    image[:, 11:] = (0.9, 0.7, 0.1)
    image = np.ascontiguousarray(image.swapaxes(0, 1)) if axis else image
    np.testing.assert_allclose(kuwahara(image, radius), image, atol=1e-7)


def test_noise_is_removed_and_edges_are_kept() -> None:
    clean = np.full((40, 40, 3), 0.25, np.float32)
    clean[:, 20:] = 0.75
    noisy = (clean + np.random.default_rng(1).normal(0, 0.05, clean.shape)).astype(np.float32)
    for smooth in (kuwahara(noisy, 4), anisotropic_kuwahara(noisy, 5)):
        assert np.abs(smooth - clean).mean() < 0.5 * np.abs(noisy - clean).mean()
        assert ((smooth.mean(axis=2) > 0.5) == (clean.mean(axis=2) > 0.5)).all()


def test_the_anisotropic_filter_keeps_thin_lines() -> None:
    y, x = np.mgrid[:48, :48]
    line = np.abs((x - y) / 2**0.5) < 1.6
    image = np.where(line[..., None], 0.1, 0.9).astype(np.float32) * np.ones(3, np.float32)
    kept = anisotropic_kuwahara(image, 5)[10:-10, 10:-10][line[10:-10, 10:-10]].mean()
    assert kept < 0.35


def test_the_anisotropic_filter_is_rotation_equivariant() -> None:
    image = np.random.default_rng(2).random((24, 30, 3)).astype(np.float32)
    turned = np.ascontiguousarray(
        np.rot90(anisotropic_kuwahara(np.ascontiguousarray(np.rot90(image)), 3), -1)
    )
    # Directions are quantised, and rounding may choose the next step.
    assert np.abs(turned - anisotropic_kuwahara(image, 3)).mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3)])
def test_tiny_and_flat_pictures_do_not_change(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 0.3, np.float32)
    np.testing.assert_allclose(kuwahara(image, 3), 0.3, atol=1e-6)
    np.testing.assert_allclose(anisotropic_kuwahara(image, 4), 0.3, atol=1e-5)
