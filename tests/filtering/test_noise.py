"""Procedural surfaces: reproducible by seed, and lit from the given direction."""

from __future__ import annotations

import numpy as np
import pytest

from atelier.filtering.noise import canvas, lit, noise, paper


@pytest.mark.parametrize(
    "make",
    [
        lambda size, seed: noise(size, 6, seed, octaves=3),
        lambda size, seed: paper(size, 1.0, seed),
        lambda size, seed: canvas(size, 1.0, seed),
    ],
)
def test_surfaces_are_standardised_and_reproducible(make) -> None:
    surface = make((90, 120), 4)
    assert surface.shape == (90, 120)
    assert surface.dtype == np.float32
    assert abs(surface.mean()) < 0.2
    assert 0.6 < surface.std() < 1.5
    assert np.array_equal(surface, make((90, 120), 4))
    assert np.abs(surface - make((90, 120), 5)).max() > 0.5
    assert make((1, 1), 4).shape == (1, 1)


def test_noise_has_the_requested_scale() -> None:
    for scale in (4.0, 16.0):
        hills = noise((200, 200), scale, 1)
        beside = (hills[:, : -round(scale / 4)] * hills[:, round(scale / 4) :]).mean()
        far = (hills[:, : -round(3 * scale)] * hills[:, round(3 * scale) :]).mean()
        assert beside > 0.6
        assert abs(far) < 0.35


def test_slopes_facing_the_upper_left_are_brighter() -> None:
    assert (lit(np.full((6, 6), 3.0, np.float32), strength=1) == 1).all()
    y, x = np.mgrid[:40, :40].astype(np.float32)
    hill = 8 * np.exp(-((x - 20) ** 2 + (y - 20) ** 2) / 60)
    shade = lit(hill.astype(np.float32), strength=0.5)
    assert shade[15, 15] > 1.1
    assert shade[25, 25] < 0.9
    assert shade[15, 25] == pytest.approx(1, abs=0.02)
