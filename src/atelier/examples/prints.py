"""A woodcut: a breaking wave in bold carved lines."""

from __future__ import annotations

import cv2
import numpy as np

from atelier.examples import paint
from atelier.examples.paint import Array, Random, f32, palette, points

_WAVE = points("-0.1 0.62, 0.06 0.42, 0.2 0.22, 0.36 0.12, 0.53 0.13, 0.66 0.22, 0.71 0.34")
_BARREL = points("0.71 0.34, 0.63 0.29, 0.53 0.28, 0.45 0.34, 0.41 0.45, 0.43 0.57, 0.5 0.67, 0.62 0.73")
_TAIL = [(0.62, 0.73), (0.78, 0.72), (0.9, 0.65), (1.1, 0.62)]


def _wave(size: int) -> tuple[Array, Array]:
    """The mask of the great wave and its upper contour."""
    contour = np.vstack([paint.spline(part) for part in (_WAVE, _BARREL, _TAIL)])
    body = np.vstack([contour, f32([[1.1, 1.1], [-0.1, 1.1]])])
    return paint.shape(size, f32(body)), f32(contour)


def _gouge(rng: Random, size: int, phase: Array, tone: Array) -> Array:
    """Carved lines: the level lines of `phase` in turns, cut wider where `tone` is light."""
    wobble = phase + 0.05 * paint.noise(rng, size, 20) + 0.03 * paint.noise(rng, size, 60)
    ridge = np.abs((wobble % 1.0) - 0.5) * 2
    slope = np.hypot(np.gradient(phase, axis=0), np.gradient(phase, axis=1)) * 2
    soft = np.clip(1.2 * slope, 0.02, 0.5)
    breaks = 0.16 * paint.noise(rng, size, 16)
    edge = np.clip(tone + breaks, -0.3, 1.3)
    return f32(np.clip((edge - ridge) / soft + 0.5, 0, 1))


def _claws(rng: Random, contour: Array) -> list[Array]:
    """Foam that grips forward from the crest, as closed curves."""
    shapes = []
    for k in range(62, 214, 5):
        ahead = contour[k + 4] - contour[k - 4]
        turn = np.arctan2(ahead[1], ahead[0]) + (-0.35 if k < 168 else 0.5) + 0.35 * rng.standard_normal()
        reach = (0.03 + 0.022 * rng.random()) * (1.5 if 110 < k < 185 else 1.0)
        for finger in (-0.75, 0.0, 0.75):
            shapes.append(_claw(contour[k], turn + finger, reach * (1 - 0.25 * abs(finger))))
    return shapes


def _claw(root: Array, turn: float, reach: float) -> Array:
    """One hooked finger of foam."""
    forward, side = f32([np.cos(turn), np.sin(turn)]), f32([-np.sin(turn), np.cos(turn)])
    local = points("-0.2 -0.35, 0.5 -0.42, 0.95 -0.1, 1.0 0.42, 0.74 0.12, 0.45 0.12, -0.2 0.4")
    return paint.spline(
        [tuple(root + reach * (a * forward + b * side)) for a, b in local], count=6, closed=True
    )


def _spray(rng: Random, size: int) -> Array:
    """Drops thrown off the crest."""
    mask = np.zeros((size, size), np.uint8)
    for _ in range(150):
        away = np.abs(rng.standard_normal()) * 0.07
        turn = -1.4 + 2.0 * rng.random()
        x, y = (
            0.48 + 0.25 * rng.random() + away * np.cos(turn),
            0.13 + 0.14 * rng.random() + away * np.sin(turn),
        )
        radius = max(8, int(16 * paint.px(size, 0.7 + 2.4 * rng.random() ** 3)))
        cv2.circle(mask, paint.fixed(f32([x, y]), size).tolist(), radius, 255, -1, cv2.LINE_AA, 4)
    return f32(mask / 255.0)


def _key_block(rng: Random, size: int) -> tuple[Array, Array, Array]:
    """The black block, the blue block and the foam (paper left bare)."""
    x, y = paint.grid(size)
    body, contour = _wave(size)
    depth = paint.blur(paint.inside(body), size / 200)
    light = np.clip(0.64 - 2.0 * depth + 0.25 * np.sin(9 * x + 4 * y), 0.06, 0.9)
    cut = _gouge(rng, size, f32(depth * 46), f32(light))
    swell = 0.83 + 0.05 * np.sin(6.5 * x + 0.6) - 0.04 * np.exp(-((x - 0.2) ** 2) / 0.02)
    near = paint.step(-0.001, 0.001, f32(y - swell))
    near_cut = _gouge(
        rng,
        size,
        f32((y - swell) * 30 + 0.3 * np.sin(13 * x)),
        f32(np.clip(0.55 - 1.8 * (y - swell), 0.1, 0.9)),
    )
    sea = body * (1 - near) * (1 - cut) + near * (1 - near_cut)
    foam = paint.lines(size, [contour[34:150]], 26) * paint.step(-0.7, -0.4, paint.noise(rng, size, 26))
    outline = np.zeros((size, size), np.float32)
    for claw in _claws(rng, contour):
        inner = paint.shape(size, claw)
        rim = paint.lines(size, [f32(np.vstack([claw, claw[:1]]))], 2.2)
        foam, outline = np.maximum(foam, inner), np.maximum(outline * (1 - inner), rim)
    foam = np.maximum(foam, _spray(rng, size))
    edges = paint.lines(size, [contour], 3.5)
    key = np.maximum(np.maximum(sea, edges) * (1 - foam), outline)
    return f32(key), f32(np.maximum(body, near) * (1 - foam)), f32(foam)


def _sky_block(rng: Random, size: int) -> tuple[Array, Array]:
    """A sun in carved rays, and a far mountain."""
    x, y = paint.grid(size)
    cx, cy = 0.83, 0.24
    turn, away = np.arctan2(y - cy, x - cx), np.hypot(x - cx, y - cy)
    rays = _gouge(
        rng, size, f32(turn * 84 / (2 * np.pi)), f32(np.clip(0.98 - 0.75 * np.exp(-away * 2.2), 0, 1))
    )
    clouds = _gouge(
        rng,
        size,
        f32((y + 0.012 * np.sin(17 * x)) * 40),
        f32(0.75 + 0.2 * paint.noise(rng, size, 4, stretch=3)),
    )
    mixed = np.where(paint.noise(rng, size, 3, stretch=2.5) > 0.9, clouds, rays)
    disc = paint.disc(size, cx, cy, 0.085)
    return f32((1 - mixed) * (1 - paint.disc(size, cx, cy, 0.1))), disc


class Press:
    """Prints one block after another: uneven ink, wood grain, starved spots and misregistration."""

    def __init__(self, rng: Random, size: int, *, starved: float = 1.0) -> None:
        x, y = paint.grid(size)
        grain = np.sin(2 * np.pi * 34 * (y + 0.02 * paint.noise(rng, size, 3, stretch=3) + 0.05 * x))
        spots = paint.noise(rng, size, 150, octaves=2) + 0.5 * paint.noise(rng, size, 6)
        bare = starved * (1 - paint.step(-2.9, -1.8, f32(spots)))
        self._rng = rng
        self._ink = f32((0.93 + 0.045 * grain + 0.05 * paint.noise(rng, size, 5)) * (1 - 0.65 * bare))

    def __call__(self, image: Array, colour: str, block: Array, *, load: float = 1.0) -> Array:
        """The image with the block printed on it; `load` is how much ink it carries."""
        turned = self._ink[:: self._rng.choice((-1, 1)), :: self._rng.choice((-1, 1))]
        slip = np.float32(0.0008) * self._rng.standard_normal(2)
        flat = np.zeros_like(block)
        moved = paint.warp(block, f32(flat + slip[0]), f32(flat + slip[1]))
        return paint.lay(image, palette(colour)[0], f32(np.clip(moved * load * turned, 0, 1)))


def rice_paper(rng: Random, size: int, colour: str) -> Array:
    """Warm paper with long fibres and age."""
    age = 0.02 * paint.noise(rng, size, 3) + 0.01 * paint.noise(rng, size, 120, octaves=2, stretch=3)
    return f32(np.broadcast_to(palette(colour)[0], (size, size, 3)) * (1 + age)[..., None])


def woodcut(rng: Random, size: int) -> Array:
    """A breaking wave in bold carved lines, indigo and cream."""
    work = 2 * size  # carved at twice the size, for crisp lines
    sky, sun = _sky_block(rng, work)
    key, blue, foam = _key_block(rng, work)
    open_sky = (1 - _wave(work)[0]) * (1 - foam)
    image = rice_paper(rng, work, "efe2c4")
    press = Press(rng, work)
    dusk = paint.step(0.75, 0.1, paint.grid(work)[1])
    image = press(image, "e6b27a", f32(0.55 * open_sky * dusk))
    image = press(image, "cf4a2c", f32(sun * open_sky))
    image = press(image, "6f8fa8", f32(blue * 0.8))
    image = press(image, "2f4f7a", f32(sky * open_sky * (1 - sun)), load=0.9)
    image = press(image, "182848", key)
    return paint.settle(paint.halve(image))
