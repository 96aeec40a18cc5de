"""Filters: every look, at any size and exposure, and the effect of each knob."""

from __future__ import annotations

from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch

import atelier
from atelier.core.errors import UsageError
from atelier.methods.classical.filters import Look, looks

LOOKS = get_args(Look)
DRAWN = {"xdog", "flow-lines", "pencil", "cross-hatching", "stipple", "linocut", "ink-wash"}


def made(photo: np.ndarray, look: str, **settings: Any) -> np.ndarray:
    return atelier.stylize(photo, photo, method="filters", look=look, **settings).pixels


@pytest.fixture
def scene() -> np.ndarray:
    """A ball on a table before a wall, with some grain, (96, 128, 3)."""
    y, x = np.mgrid[:96, :128].astype(np.float32)
    image = np.stack([0.55 + x / 400, 0.6 + y / 400, 0.7 - x / 500], axis=2)
    image[62:] = (0.45, 0.3, 0.2)
    ball = (x - 60) ** 2 + (y - 48) ** 2 < 26**2
    shade = (1 - ((x - 50) ** 2 + (y - 38) ** 2) / 40**2).clip(0.1, 1)
    image[ball] = (shade[..., None] * np.array([0.9, 0.25, 0.15]))[ball]
    grain = np.random.default_rng(0).normal(0, 0.02, image.shape)
    return (image + grain).clip(0, 1).astype(np.float32)


def test_knob_values_match_the_looks() -> None:
    assert set(looks()) == set(LOOKS)
    with pytest.raises(UsageError, match="look = 'oils' is not allowed"):
        made(np.zeros((4, 4, 3), np.float32), "oils")


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_resembles_the_photo(scene: np.ndarray, look: str) -> None:
    result = made(scene, look, seed=3)
    assert result.shape == scene.shape
    assert np.isfinite(result).all()
    assert np.abs(result - scene).mean() > 0.005
    assert np.array_equal(result, made(scene, look, seed=3))
    light, dark = result[60:64, 4:30].mean(), result[58:70, 70:80].mean()
    if look != "flow-lines":  # which knows no tone
        assert light > dark


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (5, 90)])
def test_odd_sizes(look: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    for grey in (image, np.zeros_like(image), np.ones_like(image)):
        result = made(grey, look, coarseness=2)
        assert result.shape == grey.shape
        assert np.isfinite(result).all()


@pytest.mark.parametrize("look", LOOKS)
def test_the_thread_count_does_not_change_the_result(scene: np.ndarray, look: str) -> None:
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 3):
            cv2.setNumThreads(threads)
            results.append(made(scene, look, threads=threads))
    finally:
        cv2.setNumThreads(before)
    assert np.abs(results[0] - results[1]).max() < 1e-5


@pytest.mark.parametrize("look", ["oil", "kuwahara", "anisotropic-kuwahara", "halftone", "mosaic"])
def test_a_look_scales_with_the_picture(scene: np.ndarray, look: str) -> None:
    large = cv2.resize(scene, (512, 384), interpolation=cv2.INTER_CUBIC).clip(0, 1)

    def coarse(image: np.ndarray) -> float:
        """How much of the fine structure is lost when the picture is halved."""
        grey = image.mean(axis=2)
        half = cv2.resize(
            cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), grey.shape[::-1]
        )
        return float(np.abs(grey - half).mean())

    assert coarse(made(large, look, coarseness=4)) < coarse(made(large, look, coarseness=1))


@pytest.mark.parametrize("look", sorted(DRAWN))
def test_black_ink_has_no_colour(scene: np.ndarray, look: str) -> None:
    drawn = made(scene, look, inks="black")
    # Paper and ink are a little warm or cold.
    assert np.ptp(drawn, axis=2).max() < 0.09
    assert np.ptp(made(scene, look, inks="colour"), axis=2).max() > 0.2


@pytest.mark.parametrize(
    "look", ["bilateral-cartoon", "guided-cartoon", "stained-glass", "flow-lines", "ink-wash"]
)
def test_a_higher_line_weight_darkens_lines(scene: np.ndarray, look: str) -> None:
    means = [made(scene, look, lines=weight).mean() for weight in (0, 1, 2.5)]
    assert means[0] > means[1] > means[2]


@pytest.mark.parametrize("look", ["stipple", "halftone", "cross-hatching", "pencil"])
def test_tone_is_kept(look: str) -> None:
    ramp = np.repeat(np.linspace(0, 1, 160, dtype=np.float32)[None, :, None], 80, axis=0) * np.ones(
        3, np.float32
    )
    columns = made(ramp, look, inks="black", coarseness=4).mean(axis=(0, 2))
    blocks = columns.reshape(8, 20).mean(axis=1)
    assert (np.diff(blocks) > -0.03).all()
    assert blocks[0] < 0.45
    assert blocks[-1] > 0.85


def test_dark_photos_are_drawn_too(scene: np.ndarray) -> None:
    for look in ("xdog", "linocut", "stipple"):
        light, dark = (made(image, look).mean() for image in (scene, scene * 0.25))
        assert abs(light - dark) < 0.2


def test_torchs_thread_count_is_unchanged(scene: np.ndarray) -> None:
    before = torch.get_num_threads()
    made(scene, "oil", threads=1)
    assert torch.get_num_threads() == before
