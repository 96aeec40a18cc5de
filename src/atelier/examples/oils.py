"""An oil painting: a nocturne of thick strokes that swirl."""

from __future__ import annotations

import numpy as np

from atelier.examples import paint
from atelier.examples.paint import Array, Random, f32, palette

# x, y, radius, turning sense: the moon first, then the eddies and the stars
_EDDIES = [(0.78, 0.2, 0.17, 1.0), (0.42, 0.3, 0.17, -1.2), (0.58, 0.42, 0.1, 1.0), (0.12, 0.42, 0.12, 0.9)]
_STARS = [
    (0.16, 0.14, 0.055),
    (0.36, 0.08, 0.04),
    (0.55, 0.13, 0.045),
    (0.93, 0.42, 0.045),
    (0.31, 0.47, 0.034),
]


def _stream(rng: Random, size: int) -> Array:
    """The stream function of the night wind: strokes run along its level lines."""
    x, y = paint.grid(size)
    flow = 0.9 * y + 0.05 * np.sin(5 * x + 1) + 0.012 * paint.noise(rng, size, 4)
    for cx, cy, radius, sense in _EDDIES:
        flow += 2.2 * sense * radius * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    for cx, cy, radius in _STARS:
        flow += 3.6 * radius * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    return f32(flow)


def _along(flow: Array) -> Array:
    """The angle of the level lines."""
    smooth = paint.blur(flow, flow.shape[0] / 160)
    return f32(np.arctan2(-np.gradient(smooth, axis=1), np.gradient(smooth, axis=0)))


def _night_sky(rng: Random, size: int, flow: Array) -> Array:
    x, y = paint.grid(size)
    night = palette("0e1a4a 14286b 1f4390 2f6bb0 5c9cc4 9cc7c0 d9d7a0")
    bands = 0.13 * np.sin(flow * 60) + 0.05 * np.sin(flow * 117 + 1)
    sky = paint.ramp(
        f32(np.clip(0.04 + 0.95 * y**1.3 + bands + 0.04 * paint.noise(rng, size, 6), 0, 1)), night
    )
    glow = palette("fff6cf ffe27a f3bf4a 9fc4a8 2f6bb0")
    for cx, cy, radius in [(0.78, 0.2, 0.15), *_STARS]:
        away = np.hypot(x - cx, y - cy) / radius
        rings = np.clip(away / 1.5 + 0.06 * np.sin(away * 13), 0, 1)
        sky = paint.lay(sky, paint.ramp(f32(rings), glow), paint.step(1.5, 0.55, f32(away)))
    crescent = paint.disc(size, 0.78, 0.2, 0.065) * (1 - paint.disc(size, 0.755, 0.185, 0.05))
    return paint.lay(sky, palette("ffd65a")[0], crescent)


def _hills(rng: Random, size: int, image: Array, angle: Array) -> tuple[Array, Array]:
    """Three ranges over the sky, each with strokes that roll along its slope."""
    x, y = paint.grid(size)
    ranges = [(0.66, 0.05, 4.0, "2b4f86 3c74a0 1d3567"), (0.75, 0.045, 6.0, "1b4a5c 2f7a6b 123047")]
    ranges.append((0.86, 0.03, 5.0, "17382f 5c8a3c 0e1f2a"))
    for level, swell, pace, colours in ranges:
        ridge = level + swell * np.sin(pace * x + 9 * level) + 0.02 * paint.noise(rng, size, 3)[0][None]
        depth = y - ridge
        t = np.clip(
            0.5 + 0.28 * np.sin(depth * 95 + 4 * np.sin(9 * x)) + 0.2 * paint.noise(rng, size, 7), 0, 1
        )
        mask = paint.step(-0.002, 0.002, f32(depth))
        image = paint.lay(image, paint.ramp(f32(t), palette(colours)), mask)
        slope = np.arctan2(np.gradient(ridge, axis=1) * size, 1.0) + 0.5 * np.sin(20 * x + 60 * depth)
        angle = np.where(mask > 0.5, slope, angle)
    return image, f32(angle)


def _village(rng: Random, image: Array) -> Array:
    size = image.shape[0]
    for x in np.sort(0.28 + 0.66 * rng.random(15)):
        y, w = 0.785 + 0.05 * rng.random(), 0.036 + 0.02 * rng.random()
        wall = f32([[x, y], [x + w, y], [x + w, y + w], [x, y + w]])
        roof = f32([[x - 0.004, y], [x + w / 2, y - 0.7 * w], [x + w + 0.004, y]])
        image = paint.lay(image, palette("3c5f86 6a8aa0 27476b")[rng.integers(3)], paint.shape(size, wall))
        image = paint.lay(image, palette("7a3b32 1d2c4c 96583a")[rng.integers(3)], paint.shape(size, roof))
        pane = f32([[0.3, 0.3], [0.62, 0.3], [0.62, 0.75], [0.3, 0.75]]) * w + f32([x, y])
        image = paint.lay(image, palette("ffd35c")[0], paint.shape(size, pane))
    return image


def _cypress(rng: Random, image: Array, angle: Array) -> tuple[Array, Array]:
    size = image.shape[0]
    x, y = paint.grid(size)
    for foot, top, width in ((0.14, 0.2, 0.075), (0.235, 0.46, 0.05)):
        t = np.clip((y - top) / (1.02 - top), 0, 1)
        lean = foot + 0.02 * np.sin(9 * y + foot * 20)
        half = width * np.sqrt(t) * (1.1 - 0.35 * t) * (1 + 0.16 * paint.noise(rng, size, 14))
        mask = paint.step(0.004, -0.004, f32(np.abs(x - lean) - half)) * (y > top)
        tone = (
            0.5
            + 0.35 * np.sin((x - lean) / width * 9 + 5 * np.sin(14 * y))
            + 0.15 * paint.noise(rng, size, 9)
        )
        image = paint.lay(
            image, paint.ramp(f32(np.clip(tone, 0, 1)), palette("0a1418 16302b 2f5233 7a6a33")), mask
        )
        angle = np.where(mask > 0.5, np.pi / 2 + 0.5 * np.sin(26 * y + 30 * x), angle)
    return image, f32(angle)


def nocturne(rng: Random, size: int) -> Array:
    """Thick oil strokes that swirl round the stars over sleeping hills."""
    flow = _stream(rng, size)
    scene, angle = _hills(rng, size, _night_sky(rng, size, flow), _along(flow))
    scene, angle = _cypress(rng, _village(rng, scene), angle)
    canvas = paint.easel(0.6 * paint.blur(scene, paint.px(size, 20)))
    passes = (
        (22, 900, 0.17, 9, 1.0),
        (11, 2600, 0.11, 6, 1.0),
        (7, 5500, 0.08, 5, 0.8),
        (4, 9000, 0.03, 3, 0.22),
    )
    for width, count, length, hairs, share in passes:
        places = paint.busy(scene, paint.scatter(rng, count), share)
        colours = paint.vary(rng, paint.pick(paint.blur(scene, paint.px(size, width / 5)), places), 0.1, 0.03)
        paint.brush(canvas, rng, paint.trace(angle, places, 12, length / 11), colours, width, hairs=hairs)
    return paint.varnish(rng, canvas, 0.2)
