"""Layers of strokes: coverage, no strokes where the painting matches, and directions along edges."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from atelier.strokes.canvas import Canvas
from atelier.strokes.layers import MANNERS, layers


def picture(size: int = 64) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    image = np.stack([x, y, 0.5 + 0.4 * np.sin(9 * x)], axis=2)
    image[20:44, 24:50] = (0.9, 0.2, 0.1)
    return image.astype(np.float32)


def canvas(size: int = 64, opacity: float = 1) -> Canvas:
    return Canvas((size, size), np.zeros(3, np.float32), opacity=opacity, texture=0, seed=0)


def test_manners_have_the_published_parameters() -> None:
    # Hertzmann 1998, section 3.
    assert dataclasses.astuple(MANNERS["impressionist"])[:8] == (100, (8, 4, 2), 1, 0.5, 1, 1, 4, 16)
    assert dataclasses.astuple(MANNERS["expressionist"])[:8] == (50, (8, 4, 2), 0.25, 0.5, 0.7, 1, 10, 16)
    assert dataclasses.astuple(MANNERS["wash"])[:8] == (200, (8, 4, 2), 1, 0.5, 0.5, 1, 4, 16)
    assert dataclasses.astuple(MANNERS["pointillist"])[:8] == (100, (4, 2), 1, 0.5, 1, 0.5, 0, 0)


@pytest.mark.parametrize("name", MANNERS)
def test_each_layer_reduces_the_error(name: str) -> None:
    manner, paper = MANNERS[name], canvas(opacity=MANNERS[name].opacity)
    errors = []
    for strokes in layers(picture(), paper, manner, manner.radii, seed=1):
        paper.paint(strokes)
        errors.append(np.abs(paper.colour - picture()).mean())
        counts = np.diff(strokes.starts)
        assert counts.max(initial=0) <= max(manner.longest, 1)
        assert strokes.points.min(initial=0) >= 0
        assert strokes.points.max(initial=0) < 64
    assert len(errors) == len(manner.radii)
    assert errors[0] < 0.3
    if not manner.value:
        assert errors == sorted(errors, reverse=True)


def test_the_first_layer_covers_the_canvas() -> None:
    paper = canvas()
    manner = MANNERS["impressionist"]
    paper.paint(next(layers(picture() * 0, paper, manner, (4.0,), seed=0)))
    assert (paper.height > 0).mean() > 0.97


def test_areas_that_match_get_no_more_strokes() -> None:
    paper = canvas()
    manner = dataclasses.replace(MANNERS["impressionist"], threshold=1)
    flat = np.full((64, 64, 3), 0.5, np.float32)
    counts = []
    for strokes in layers(flat, paper, manner, (8.0, 4.0, 2.0), seed=0):
        paper.paint(strokes)
        counts.append(len(strokes))
    assert counts[0] > 0
    assert counts[2] == 0


def test_strokes_run_along_stripes() -> None:
    y = np.mgrid[:64, :64][0]
    stripes = (0.5 + 0.4 * np.sin(y / 3))[..., None] * np.ones(3)
    strokes = next(layers(stripes.astype(np.float32), canvas(), MANNERS["impressionist"], (2.0,), seed=0))
    steps = np.diff(strokes.points, axis=0)[
        np.diff(np.repeat(np.arange(len(strokes)), np.diff(strokes.starts))) == 0
    ]
    assert np.abs(steps[:, 0]).mean() > 5 * np.abs(steps[:, 1]).mean()


def test_the_same_seed_gives_the_same_colours() -> None:
    def first(seed: int) -> np.ndarray:
        return next(layers(picture(), canvas(), MANNERS["pointillist"], (3.0,), seed)).colours

    assert np.array_equal(first(3), first(3))
    assert not np.array_equal(first(3), first(4))
