"""Stroke width, measured on stripes of known width."""

from __future__ import annotations

import numpy as np
import pytest

from atelier.filtering.stroke_width import stroke_width


def stripes(width: float, angle: float = 0.4, size: int = 160) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    wave = np.sin(np.pi * (x * np.cos(angle) + y * np.sin(angle)) / width)
    return np.repeat((0.5 + 0.3 * wave)[..., None], 3, axis=2).astype(np.float32)


@pytest.mark.parametrize("width", [3, 5, 8])
def test_the_width_of_stripes_is_recovered(width: float) -> None:
    assert stroke_width(stripes(width)) == pytest.approx(width, rel=0.25)


def test_wider_stripes_measure_wider() -> None:
    assert stroke_width(stripes(4)) < stroke_width(stripes(7)) < stroke_width(stripes(10))


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (20, 20)])
def test_a_flat_picture_has_width_one(shape: tuple[int, int]) -> None:
    assert stroke_width(np.full((*shape, 3), 0.4, np.float32)) == 1.0
