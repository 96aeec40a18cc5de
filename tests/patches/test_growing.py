"""Growing: checkerboards are continued exactly, pixels keep their source, and guides are followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atelier.patches.growing import Growth, enlarged


def grown(sample: np.ndarray, size: tuple[int, int], **options: Any) -> Growth:
    growth = Growth(sample, size, **options)
    counts = list(growth.run())
    assert counts == sorted(counts)
    assert (growth.source >= 0).all()
    return growth


def checkerboard(height: int, width: int, cell: int, down: int = 0, right: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    light = ((rows + down) // cell + (columns + right) // cell) % 2
    return (0.1 + 0.8 * light[..., None] * np.ones(3)).astype(np.float32)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("cell", "window", "coherence"), [(2, 9, 0.0), (3, 9, 0.0), (3, 9, 1.0), (4, 11, 0.0)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_checkerboard_is_continued_exactly(cell: int, window: int, coherence: float, seed: int) -> None:
    sample = checkerboard(24, 26, cell)
    image = grown(sample, (44, 37), window=window, coherence=coherence, seed=seed).image()
    shifts = [checkerboard(44, 37, cell, down, right) for down in range(2 * cell) for right in range(cell)]
    assert min(np.abs(image - one).max() for one in shifts) < 1e-6


def test_every_pixel_is_copied_from_its_source_position() -> None:
    sample = noise(14, 17)
    growth = grown(sample, (20, 23), window=5, seed=3)
    np.testing.assert_array_equal(growth.image(), sample[growth.source[..., 0], growth.source[..., 1]])
    assert len(np.unique(growth.source.reshape(-1, 2), axis=0)) > 20


def test_the_same_seed_gives_the_same_picture() -> None:
    sample = noise(14, 17)
    one, same, other = (grown(sample, (20, 23), window=5, seed=seed).image() for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_without_tolerance_the_sample_is_continued() -> None:
    # All windows of the sample differ, so the best match continues the neighbours.
    sample = noise(30, 30)
    growth = grown(sample, (9, 9), window=5, tolerance=0.0, seed=1)
    steps = growth.source - np.stack(np.mgrid[:9, :9], axis=2)
    inside = (growth.source >= 2).all(axis=2) & (growth.source < 28).all(axis=2)
    assert (steps[inside] == steps[4, 4]).all(axis=1).mean() > 0.6


def test_the_picture_follows_the_guide() -> None:
    sample = np.repeat(np.linspace(0, 1, 24, dtype=np.float32)[None, :, None], 12, axis=0) * np.ones(
        3, np.float32
    )
    goal = np.full((16, 18, 1), 0.25, np.float32)
    goal[:, 9:] = 0.75
    options: dict[str, Any] = {"window": 5, "goal": goal, "guide": sample[..., :1].copy(), "seed": 2}
    led = grown(sample, (16, 18), guidance=50, **options).image()[..., :1]
    free = grown(sample, (16, 18), guidance=0, **options).image()[..., :1]
    # The window excludes two columns at each side of the sample.
    assert np.abs(led - goal).max() < 0.06
    assert np.abs(free - goal).max() > 0.2


def test_coherence_makes_larger_pieces() -> None:
    sample = noise(20, 20)

    def joins(coherence: float) -> float:
        source = grown(sample, (24, 24), window=5, tolerance=0.5, coherence=coherence, seed=1).source
        return float(((source[:, 1:] - source[:, :-1]) == (0, 1)).all(axis=2).mean())

    assert joins(5.0) > joins(0.0)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2)])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (4, 3)])
def test_tiny_and_flat_samples_work(shape: tuple[int, int], size: tuple[int, int]) -> None:
    sample = np.full((*shape, 3), 0.3, np.float32)
    np.testing.assert_array_equal(
        grown(sample, size, guidance=0).image(), np.full((*size, 3), 0.3, np.float32)
    )


# Enlarging.


def places(height: int, width: int) -> np.ndarray:
    return np.stack(np.mgrid[:height, :width], axis=2).astype(np.int32)


def test_enlarging_to_the_field_size_copies_pixels() -> None:
    sample = noise(12, 10)
    field = np.random.default_rng(1).integers(0, (12, 10), (9, 8, 2), dtype=np.int32)
    np.testing.assert_allclose(
        enlarged(field, sample, (12, 10), (9, 8)), sample[field[..., 0], field[..., 1]], atol=1e-6
    )


@pytest.mark.parametrize("factor", [2, 3, 2.5])
def test_continuous_pieces_reproduce_the_style(factor: float) -> None:
    style = noise(round(12 * factor), round(16 * factor))
    picture = enlarged(places(12, 16), style, (12, 16), style.shape[:2])
    beside = np.array([2, 4], np.int32)
    # cv2.remap rounds coordinates to 1/32 of a pixel.
    np.testing.assert_allclose(picture, style, atol=0.04)
    shifted = enlarged(places(10, 12) + beside, style, (12, 16), (round(10 * factor), round(12 * factor)))
    np.testing.assert_allclose(shifted, style[round(2 * factor) :, round(4 * factor) :], atol=0.04)


def test_pieces_blend_only_at_their_seam() -> None:
    style = np.zeros((40, 40, 3), np.float32)
    style[:, 20:] = 1
    field = np.zeros((4, 4, 2), np.int32)
    field[:, 2:] = 9
    picture = enlarged(field, style, (10, 10), (16, 16), sharpness=3)[..., 0]
    assert (picture[:, :7] == 0).all()
    assert (picture[:, 9:] == 1).all()
