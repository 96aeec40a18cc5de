"""Strokes on a canvas: covered pixels, opacity, the Bézier curves that the SVG uses, and lighting."""

from __future__ import annotations

import numpy as np
import pytest

from atelier.strokes.canvas import Canvas, Strokes, bezier

BLACK, RED = np.zeros(3, np.float32), np.array([1, 0, 0], np.float32)


def strokes(*paths: list[tuple[float, float]], radius: float = 3, colour: np.ndarray = RED) -> Strokes:
    ends = np.cumsum([0, *(len(path) for path in paths)]).astype(np.int32)
    points = np.array([point for path in paths for point in path], np.float32)
    many = len(paths)
    return Strokes(ends, points, np.full(many, radius, np.float32), np.tile(colour, (many, 1)))


def canvas(opacity: float = 1, texture: float = 0) -> Canvas:
    return Canvas((40, 50), BLACK, opacity=opacity, texture=texture, seed=0)


def test_a_straight_stroke_is_a_capsule() -> None:
    paper = canvas()
    paper.paint(strokes([(10, 20), (30, 20)], radius=4))
    y, x = np.mgrid[:40, :50]
    distance = np.hypot(x - x.clip(10, 30), y - 20)
    np.testing.assert_allclose(paper.colour[..., 0], (4.5 - distance).clip(0, 1), atol=1e-5)
    assert paper.colour[..., 1:].max() == 0


def test_one_point_is_a_dab() -> None:
    paper = canvas()
    paper.paint(strokes([(25, 20)], radius=6))
    np.testing.assert_allclose(paper.colour[..., 0].sum(), np.pi * 36, rtol=0.02)


def test_opacity_applies_once_per_stroke() -> None:
    paper = canvas(opacity=0.5)
    loop = [(15, 20), (25, 12), (35, 20), (25, 28), (15, 20), (25, 12)]
    paper.paint(strokes(loop))
    np.testing.assert_allclose(paper.colour[..., 0].max(), 0.5, atol=1e-6)
    paper.paint(strokes(loop))
    np.testing.assert_allclose(paper.colour[..., 0].max(), 0.75, atol=1e-6)


def test_the_last_stroke_is_on_top() -> None:
    paper = canvas()
    paper.paint(strokes([(10, 20), (40, 20)]))
    paper.paint(strokes([(25, 8), (25, 32)], colour=np.array([0, 0, 1], np.float32)))
    assert paper.colour[20, 25].tolist() == [0, 0, 1]
    assert paper.colour[20, 12].tolist() == [1, 0, 0]


def test_a_painted_curve_follows_its_bezier_curves() -> None:
    path = np.array([(8, 30), (14, 8), (26, 10), (30, 32), (42, 12)], np.float32)
    paper = canvas()
    paper.paint(strokes([tuple(point) for point in path], radius=2))
    curves = bezier(path)
    assert np.allclose(curves[0, 0], path[0])
    assert np.allclose(curves[-1, -1], path[-1])
    assert np.allclose(curves[1:, 0], curves[:-1, 3])
    t = np.linspace(0, 1, 20)[:, None, None]
    places = (
        (1 - t) ** 3 * curves[:, 0]
        + 3 * t * (1 - t) ** 2 * curves[:, 1]
        + 3 * t**2 * (1 - t) * curves[:, 2]
        + t**3 * curves[:, 3]
    )
    nearest = np.rint(places.reshape(-1, 2)).astype(int)
    assert paper.colour[nearest[:, 1], nearest[:, 0], 0].min() > 0.99


def test_parts_rejoin_and_paint_like_the_whole() -> None:
    whole = strokes([(5, 5), (20, 9)], [(30, 30)], [(9, 30), (20, 20), (40, 8)])
    again = Strokes.joined([whole.part(0, 1), whole.part(1, 1), whole.part(1, 3)])
    assert np.array_equal(again.starts, whole.starts)
    assert np.array_equal(again.points, whole.points)
    at_once, in_turns = canvas(texture=0.8), canvas(texture=0.8)
    at_once.paint(whole)
    in_turns.paint(whole.part(0, 2))
    in_turns.paint(whole.part(2, 3))
    assert np.array_equal(at_once.colour, in_turns.colour)
    assert np.array_equal(at_once.height, in_turns.height)
    assert len(Strokes.joined([])) == 0


@pytest.mark.parametrize("texture", [0.0, 1.0])
def test_only_texture_makes_bristle_marks(texture: float) -> None:
    paper = canvas(texture=texture)
    paper.paint(strokes([(8, 20), (42, 20)], radius=8))
    inside = paper.colour[15:26, 15:35, 0]
    assert (inside.std() > 0.1) == bool(texture)


def test_impasto_lights_paint_from_the_upper_left() -> None:
    paper = canvas()
    paper.paint(strokes([(10, 20), (40, 20)], radius=6, colour=np.full(3, 0.5, np.float32)))
    assert np.array_equal(paper.picture(0), paper.colour)
    shown = paper.picture(0.5)
    assert shown[15, 25, 0] > paper.colour[15, 25, 0] > shown[25, 25, 0]
    assert shown.min() >= 0
    assert shown.max() <= 1
