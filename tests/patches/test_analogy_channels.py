"""Extra channels of analogies: steerable filters against closed forms, and known linear filters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import correlate, gaussian_filter

from atelier.patches.analogy_channels import oriented, predicted

Floats = npt.NDArray[np.float32]


def picture(seed: int, height: int = 50, width: int = 44, channels: int = 3) -> Floats:
    noise = np.random.default_rng(seed).random((height, width, channels))
    return (0.3 + 2 * (gaussian_filter(noise, (1, 1, 0)) - 0.4)).astype(np.float32)


def test_each_filter_has_unit_norm() -> None:
    impulse = np.zeros((21, 21, 1), np.float32)
    impulse[10, 10] = 1
    np.testing.assert_allclose((oriented(impulse) ** 2).sum((0, 1)), 1, rtol=1e-5)


def test_flat_pictures_have_no_direction() -> None:
    assert np.abs(oriented(np.full((12, 1, 3), 0.7, np.float32))[..., :2]).max() < 1e-6


@pytest.mark.parametrize("angle", [0.3, 0.8, 1.4])
def test_every_direction_is_a_combination_of_the_basis(angle: float) -> None:
    y, x = np.mgrid[:41, :41] - 20.0
    wave = np.sin(0.7 * (np.cos(angle) * x + np.sin(angle) * y)).astype(np.float32)[..., None]
    across, down = oriented(wave)[20, 20, :2]
    # On the rising slope of a plane wave the gradient points in the direction of travel.
    assert np.arctan2(down, across) % np.pi == pytest.approx(angle, abs=0.02)
    upright = oriented(np.sin(0.7 * x).astype(np.float32)[..., None])[20, 20]
    assert np.hypot(across, down) == pytest.approx(np.hypot(*upright[:2]), rel=0.01)


def test_a_turned_picture_has_turned_responses() -> None:
    image = picture(0, channels=1)
    turned = oriented(np.ascontiguousarray(image.swapaxes(0, 1)))
    expected = oriented(image).swapaxes(0, 1)[..., [1, 0, 3, 2, 4]]
    np.testing.assert_allclose(turned, expected, atol=1e-5)


def test_a_linear_filter_is_found_exactly() -> None:
    kernel = np.random.default_rng(0).normal(size=(5, 5))

    def known(image: Floats) -> Floats:
        grey = correlate(image[..., 0].astype(np.float64), kernel, mode="nearest")
        return np.stack([grey + 0.5 * image[..., 2], 0.2 - image[..., 1]], 2).astype(np.float32)

    source, target = picture(0, 90, 80), picture(1)
    found = predicted(source, known(source), target)
    assert found.explained.min() > 0.999
    np.testing.assert_allclose(found.target[3:-3, 3:-3], known(target)[3:-3, 3:-3], atol=0.01)
    # The correction makes up for bad matches if the filter is linear.
    field = np.zeros((*target.shape[:2], 2), np.int32)
    matched = np.broadcast_to(known(source)[0, 0], (*target.shape[:2], 2)).astype(np.float32)
    corrected = found.corrected(matched, field)
    assert np.abs(corrected - known(target)).mean() < 0.1 * np.abs(matched - known(target)).mean()


def test_a_threshold_is_not_corrected() -> None:
    source, target = picture(0, channels=1), picture(1, channels=1)
    filtered = (source > source.mean()).astype(np.float32)
    found = predicted(source, filtered, target)
    assert 0.3 < found.explained[0] < 0.8
    two = filtered[:, :, :].copy()
    field = np.zeros((*target.shape[:2], 2), np.int32)
    assert np.abs(found.corrected(two, field) - two).max() < 0.05


def test_trust_grows_with_explained_variance() -> None:
    source = picture(0, channels=1)
    noise = np.random.default_rng(1).normal(0, 1, source.shape).astype(np.float32)
    sure, unsure = (predicted(source, source + weight * noise, source) for weight in (0.0, 1.0))
    assert np.allclose(sure.trusted()[0], 10 * sure.source)
    assert np.abs(unsure.trusted()[0]).mean() < np.abs(unsure.source).mean()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 1), (3, 2, 3)])
def test_tiny_and_flat_pictures_stay_finite(shape: tuple[int, int, int]) -> None:
    flat = np.full(shape, 0.4, np.float32)
    found = predicted(flat, flat, picture(1))
    assert np.isfinite(found.target).all()
    assert np.allclose(found.source, 0.4, atol=1e-5)
    assert oriented(flat).shape == (*shape[:2], 5)
