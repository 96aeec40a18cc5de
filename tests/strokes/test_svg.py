"""The SVG, parsed and rasterised by independent code, agrees with the canvas."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from atelier.strokes.canvas import Canvas, Strokes
from atelier.strokes.layers import MANNERS, layers
from atelier.strokes.svg import to_svg

SVG = "{http://www.w3.org/2000/svg}"
FINER = 8


def colour(text: str) -> np.ndarray:
    return np.array([int(text[index : index + 2], 16) for index in (1, 3, 5)]) / 255


def outline(path: str) -> np.ndarray:
    """The points of a path with M followed by C, L or h."""
    start, command, rest = re.fullmatch(r"M([-\d. ]+)([CLh])([-\d. ]+)", path).groups()
    first = np.array(start.split(), float)
    if command == "h":
        return first[None]
    points = np.array(rest.split(), float).reshape(-1, 2)
    if command == "L":
        return np.concatenate([first[None], points])
    curves, begin = [first[None]], first
    t = np.linspace(0, 1, 17)[1:, None]
    for b, c, d in points.reshape(-1, 3, 2):
        curves.append((1 - t) ** 3 * begin + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d)
        begin = d
    return np.concatenate(curves)


def rasterised(text: str) -> np.ndarray:
    """An SVG of strokes as a picture: OpenCV draws each stroke enlarged, then it is downsampled."""
    root = ElementTree.fromstring(text)
    width, height = int(root.get("width")), int(root.get("height"))
    left, top = (float(number) for number in root.get("viewBox").split()[:2])
    picture = np.empty((height, width, 3))
    picture[:] = colour(root.find(f"{SVG}rect").get("fill"))
    group = root.find(f"{SVG}g")
    for path in group:
        mask = np.zeros((height * FINER, width * FINER), np.uint8)
        places = (outline(path.get("d")) - (left, top)) * FINER - 0.5
        whole = np.rint(places).astype(np.int32)
        wide = round(float(path.get("stroke-width")) * FINER)
        cv2.polylines(mask, [whole[:, None]], False, 255, wide)
        for x, y in whole:
            cv2.circle(mask, (int(x), int(y)), wide // 2, 255, -1)
        share = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)[..., None] / 255
        picture += share * float(group.get("stroke-opacity")) * (colour(path.get("stroke")) - picture)
    return picture


@pytest.mark.parametrize("name", ["impressionist", "wash", "pointillist"])
def test_the_svg_renders_like_the_canvas(name: str) -> None:
    y, x = np.mgrid[:72, :90].astype(np.float32)
    image = np.stack([x / 90, y / 72, 0.5 + 0.4 * np.sin(x / 7 + y / 9)], axis=2)
    image[20:50, 30:60] = (0.9, 0.2, 0.1)
    manner, ground = MANNERS[name], np.array([0.9, 0.9, 0.8], np.float32)
    canvas = Canvas((72, 90), ground, opacity=manner.opacity, texture=0, seed=0)
    parts = []
    for strokes in layers(image.astype(np.float32), canvas, manner, (6.0, 3.0), seed=2):
        canvas.paint(strokes)
        parts.append(strokes)
    text = to_svg(Strokes.joined(parts), (72, 90), ground, manner.opacity)
    assert text.count("<path") == sum(map(len, parts)) > 50
    drawn = rasterised(text)
    assert np.abs(drawn - canvas.colour).mean() < 0.01
    assert structural_similarity(drawn, canvas.colour.astype(float), channel_axis=2, data_range=1) > 0.97


def test_straight_strokes_and_dabs_are_exact_paths() -> None:
    points = np.array([[-0.04, 3], [20, -1.26], [7, 7]], np.float32)
    strokes = Strokes(
        np.array([0, 2, 3], np.int32), points, np.array([2, 1.5], np.float32), np.eye(2, 3, dtype=np.float32)
    )
    text = to_svg(strokes, (10, 12), np.ones(3, np.float32), 1)
    assert 'd="M0 3L20 -1.3" stroke="#ff0000" stroke-width="4.00"' in text
    assert 'd="M7 7h.01" stroke="#00ff00" stroke-width="3.00"' in text
    assert 'viewBox="-0.5 -0.5 12 10"' in text
