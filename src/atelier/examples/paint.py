"""The painter's tools that all example styles share: noise, colour, masks, brushes, light and grain.

Coordinates are fractions of the picture's side (x to the right, y down), so that one seed gives the
same composition at every size. Colour is float32 sRGB 0..1, masks and heights are float32 `(S, S)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Random = np.random.Generator

REFERENCE = 640  # the side, in pixels, at which stroke widths are given


def px(size: int, length: float) -> float:
    """A length in pixels of the 640 px picture, in pixels of this one."""
    return length * size / REFERENCE


def f32(values: Any) -> Array:
    """Anything as a float32 array."""
    return np.asarray(values, np.float32)


def palette(text: str) -> Array:
    """Hexadecimal sRGB colours, `(N, 3)`.

    >>> palette("ff0000 00ff00").tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    return f32([[int(word[i : i + 2], 16) / 255 for i in (0, 2, 4)] for word in text.split()])


def points(text: str) -> list[tuple[float, float]]:
    """Places written as in `x y, x y`.

    >>> points("0.1 0.2, 0.3 0.4")
    [(0.1, 0.2), (0.3, 0.4)]
    """
    pairs = (word.split() for word in text.split(","))
    return [(float(x), float(y)) for x, y in pairs]


def ramp(t: Array, colours: Array) -> Array:
    """The colours as a gradient, read at t in 0..1: `(..., 3)`."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(t, stops, colours[:, k]) for k in range(3)], axis=-1).astype(np.float32)


def grid(size: int) -> tuple[Array, Array]:
    """The pixel centres' x and y, each `(S, S)`."""
    line = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(line, line)
    return f32(x), f32(y)


def noise(
    rng: Random,
    size: int,
    cells: float,
    *,
    octaves: int = 4,
    gain: float = 0.5,
    stretch: float = 1.0,
) -> Array:
    """Smooth noise `(S, S)` of unit deviation; `stretch` above 1 draws it out sideways."""
    own = np.random.default_rng(int(rng.integers(2**62)))
    total, weight = np.zeros((size, size), np.float32), 1.0
    for octave in range(octaves):
        if octave and cells * 2**octave > size:
            break  # finer than the pixels: it would only alias
        down, across = (max(2, round(cells * k * 2**octave)) for k in (1.0, 1 / stretch))
        coarse = own.standard_normal((down + 2, across + 2)).astype(np.float32)
        total += f32(weight * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))
        weight *= gain
    return f32(total / max(float(total.std()), 1e-6))


def blur(image: Array, sigma: float) -> Array:
    """A Gaussian blur, sigma in this picture's pixels."""
    return f32(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.05)))


def step(low: float, high: float, t: Array) -> Array:
    """The smooth step from 0 at `low` to 1 at `high` (either order)."""
    u = np.clip((t - low) / (high - low), 0, 1)
    return f32(u * u * (3 - 2 * u))


def lay(image: Array, colour: Array, mask: Array) -> Array:
    """Opaque colour, one or `(S, S, 3)`, over the image where the mask is."""
    return f32(image + (colour - image) * mask[..., None])


def glaze(image: Array, colour: Array, density: Array) -> Array:
    """Transparent pigment: the light is absorbed once more for each unit of density (Beer's law)."""
    return f32(image * np.power(np.clip(colour, 0.02, 1), density[..., None]))


def spline(points: Sequence[tuple[float, float]], *, count: int = 24, closed: bool = False) -> Array:
    """A Catmull-Rom curve through the points, `(M, 2)`."""
    p = f32(points)
    p = np.vstack([p[-1:], p, p[:2]]) if closed else np.vstack([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, count, endpoint=False, dtype=np.float32)[:, None]
    parts = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True):
        cubic = (3 * b - a - 3 * c + d) * t**3 + (2 * a - 5 * b + 4 * c - d) * t**2 + (c - a) * t + 2 * b
        parts.append(cubic / 2)
    return f32(np.vstack([*parts, p[-2:-1]]))


def fixed(points: Array, size: int) -> NDArray[np.int32]:
    """Points in the 1/16 pixels of OpenCV's `shift=4`."""
    return np.round((points * size - 0.5) * 16).astype(np.int32)


def shape(size: int, points: Array) -> Array:
    """The mask of a filled polygon with smooth edges."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [fixed(points, size)], 255, cv2.LINE_AA, 4)
    return f32(mask / np.float32(255))


def lines(size: int, curves: Sequence[Array], width: float) -> Array:
    """The mask of open curves, `width` in pixels of the 640 px picture."""
    mask = np.zeros((size, size), np.uint8)
    thick = max(1, round(px(size, width)))
    cv2.polylines(mask, [fixed(c, size) for c in curves], False, 255, thick, cv2.LINE_AA, 4)
    return f32(mask / np.float32(255))


def disc(size: int, x: float, y: float, radius: float, soft: float = 0.004) -> Array:
    """The mask of a disc with an edge `soft` wide."""
    across, down = grid(size)
    return step(radius + soft / 2, radius - soft / 2, f32(np.hypot(across - x, down - y)))


def warp(image: Array, dx: Array, dy: Array) -> Array:
    """The image read at places shifted by (dx, dy), in fractions of the side."""
    size = image.shape[0]
    x, y = grid(size)
    where = [f32((a + d) * size - 0.5) for a, d in ((x, dx), (y, dy))]
    return f32(cv2.remap(image, where[0], where[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def inside(mask: Array) -> Array:
    """The distance from each point of the mask to its edge, in fractions of the side."""
    solid = (mask > 0.5).astype(np.uint8)
    return f32(cv2.distanceTransform(solid, cv2.DIST_L2, 5) / mask.shape[0])


def relief(height: Array, strength: float) -> Array:
    """How light from the upper left falls on a height: a factor round 1."""
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3)
    return f32(1 - strength * np.tanh(0.7 * dx + dy))


def canvas_weave(rng: Random, size: int) -> Array:
    """Linen: a factor round 1, with uneven threads."""
    x, y = grid(size)
    wobble = noise(rng, size, 12) * 0.004
    warp_threads = np.sin(2 * np.pi * 150 * (x + wobble)) * (1 + 0.5 * noise(rng, size, 30))
    weft_threads = np.sin(2 * np.pi * 150 * (y + wobble.T)) * (1 + 0.5 * noise(rng, size, 30))
    return f32(1 + 0.012 * (warp_threads + weft_threads))


def paper_tooth(rng: Random, size: int, cells: float = 90) -> Array:
    """The hills and valleys of rough paper, unit deviation."""
    return f32(0.7 * noise(rng, size, cells, octaves=3, gain=0.7) + 0.5 * noise(rng, size, cells / 8))


def trace(angle: Array, starts: Array, steps: int, stride: float) -> Array:
    """Paths `(N, steps, 2)` that run through the starts along the angles, half to either side."""
    size = angle.shape[0]
    halves = []
    for sign in (-1, 1):
        here, path = starts.copy(), []
        for _ in range(steps // 2):
            path.append(here)
            cell = np.clip((here * size).astype(int), 0, size - 1)
            turn = angle[cell[:, 1], cell[:, 0]]
            here = f32(here + sign * stride * np.stack([np.cos(turn), np.sin(turn)], -1))
        halves.append(path)
    return f32(np.stack([*halves[0][:0:-1], *halves[1]], axis=1))


def scatter(rng: Random, count: int) -> Array:
    """Jittered places all over the picture and a little beyond, in random order: `(N, 2)`."""
    side = max(2, int(np.sqrt(count)))
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
    places = (cells + rng.random(cells.shape)) / side * 1.06 - 0.03
    return f32(rng.permutation(places))


def pick(image: Array, places: Array) -> Array:
    """The image's values at places `(N, 2)`."""
    size = image.shape[0]
    cell = np.clip((places * size).astype(int), 0, size - 1)
    return f32(image[cell[:, 1], cell[:, 0]])


def busy(image: Array, places: Array, share: float) -> Array:
    """The given share of the places, those with the most detail round them, in their order."""
    grey = image.mean(-1)
    edges = blur(f32(np.abs(grey - blur(grey, px(len(grey), 5)))), px(len(grey), 4))
    detail = pick(edges, places)
    return places[detail >= np.quantile(detail, 1 - share)]


def vary(rng: Random, colours: Array, value: float = 0.07, hue: float = 0.03) -> Array:
    """Colours as a hand mixes them: each a little lighter or darker, warmer or colder."""
    tone = 1 + value * rng.standard_normal((len(colours), 1))
    return f32(np.clip(colours * tone + hue * rng.standard_normal(colours.shape), 0, 1))


def easel(ground: Array) -> NDArray[np.uint8]:
    """A canvas for `brush`: `(S, S, 4)` of red, green, blue and the paint's height."""
    height = np.zeros((*ground.shape[:2], 1), np.float32)
    return np.ascontiguousarray((np.concatenate([ground, height], -1) * 255).clip(0, 255).astype(np.uint8))


def _bristles(rng: Random, paths: Array, width: float, count: int) -> Array:
    """Each path split into `count` hairs side by side, `(N, count, L, 2)`."""
    along = np.gradient(paths, axis=1)
    along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
    normal = np.stack([-along[..., 1], along[..., 0]], -1)
    t = np.linspace(0, 1, paths.shape[1])
    pressure = np.minimum(1, 0.45 + 2.2 * np.minimum(t, 1.25 * (1 - t)))
    spread = np.linspace(-0.5, 0.5, count) if count > 1 else np.zeros(1)
    offset = spread + rng.standard_normal((len(paths), count)) * 0.25 / count
    reach = offset[:, :, None] * pressure * width / REFERENCE
    return f32(paths[:, None] + normal[:, None] * reach[..., None])


def brush(
    easel: NDArray[np.uint8],
    rng: Random,
    paths: Array,
    colours: Array,
    width: float,
    *,
    hairs: int = 7,
    streak: float = 0.06,
    ragged: float = 0.25,
) -> None:
    """Bristle strokes along paths `(N, L, 2)`, colours `(N, 3)`, width in px at 640, painted in place."""
    size, (count, length, _) = easel.shape[0], paths.shape
    points = fixed(_bristles(rng, paths, width, hairs), size)
    tone = 1 + streak * rng.standard_normal((count, hairs, 1))
    load = 0.45 + 0.5 * rng.random((count, hairs, 1))
    ink = np.concatenate([np.clip(colours[:, None] * tone, 0, 1), load], -1) * 255
    cut = (rng.random((2, count, hairs)) * ragged * length / 2).astype(int)
    thick = max(1, round(px(size, 1.5 * width / hairs)))
    for i in range(count):
        for j in range(hairs):
            stroke = points[i, j, cut[0, i, j] : length - cut[1, i, j]]
            cv2.polylines(easel, [stroke], False, ink[i, j].tolist(), thick, cv2.LINE_AA, 4)


def varnish(rng: Random, easel: NDArray[np.uint8], impasto: float = 0.12) -> Array:
    """The finished painting: light on the ridges of the paint, the weave, and a touch of dirt."""
    size = easel.shape[0]
    image, height = f32(easel[..., :3] / 255.0), f32(easel[..., 3] / 255.0)
    height = f32(blur(height, px(size, 0.6)) + 0.5 * blur(height, px(size, 1.6)))
    light = relief(height, impasto) * canvas_weave(rng, size)
    return settle(f32(image * (light * (1 + 0.015 * noise(rng, size, 3)))[..., None]))


def halve(image: Array) -> Array:
    """A picture made at twice the size, brought down to its own."""
    side = image.shape[0] // 2
    return f32(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA))


def settle(image: Array) -> Array:
    """The picture as float32 within 0..1."""
    return np.ascontiguousarray(np.clip(image, 0, 1), np.float32)
