"""An etching: a still life in cross-hatched lines that follow the forms."""

from __future__ import annotations

import numpy as np

from atelier.examples import paint
from atelier.examples.paint import Array, Random, f32, palette, points

# what lies on the table: x, y, radius, how much taller than wide
_FRUIT = [
    (0.6, 0.7, 0.115, 0.95),
    (0.79, 0.735, 0.092, 0.94),
    (0.7, 0.795, 0.08, 0.95),
    (0.17, 0.78, 0.085, 0.95),
]


class _Plate:
    """The scene as it is drawn: how dark each place is, and two coordinates the hatching runs along."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.x, self.y = paint.grid(size)
        self.tone = f32(np.zeros_like(self.x))
        self.across, self.along = self.x.copy(), self.y.copy()
        self.contours = f32(np.zeros_like(self.x))

    def put(self, mask: Array, tone: Array, across: Array, along: Array) -> None:
        """A form in front of what is there."""
        self.contours = f32(self.contours * (1 - mask))
        self.tone = f32(self.tone + (np.clip(tone, 0, 1) - self.tone) * mask)
        solid = mask > 0.5
        self.across = f32(np.where(solid, across, self.across))
        self.along = f32(np.where(solid, along, self.along))

    def outline(self, rng: Random, curve: Array) -> None:
        """A contour, gone over three times by a searching needle."""
        strokes = []
        for _ in range(3):
            drift = 0.0014 * rng.standard_normal((1, 2)) + 0.0006 * rng.standard_normal(curve.shape)
            first, last = (int(0.2 * len(curve) * rng.random()) for _ in range(2))
            strokes.append(f32(curve + drift)[first : len(curve) - last])
        drawn = paint.lines(self.size, [s for s in strokes if len(s) > 1], 1.0)
        self.contours = np.maximum(self.contours, drawn)

    def shade(self, mask: Array, amount: float) -> None:
        """A cast shadow."""
        self.tone = f32(np.clip(self.tone + amount * mask, 0, 1))


def _room(rng: Random, plate: _Plate) -> None:
    x, y = plate.x, plate.y
    glow = (
        0.56
        - 0.52 * np.exp(-((x - 0.12) ** 2 + (y - 0.22) ** 2) / 0.16)
        + 0.05 * paint.noise(rng, plate.size, 3)
    )
    plate.put(f32(np.ones_like(x)), f32(glow + 0.14 * x), x, y)
    table = paint.step(-0.001, 0.001, f32(y - 0.63))
    wood = 0.2 + 0.1 * np.sin(30 * y + 3 * np.sin(3 * x)) + 0.12 * (x - 0.3)
    plate.put(table, f32(wood), f32(x + 0.6 * (x - 0.5) * (y - 0.63)), f32(y + 0.02 * np.sin(5 * x)))
    front = paint.step(-0.001, 0.001, f32(y - 0.93))
    plate.put(front, f32(0.72 + 0 * x), x, y)
    for level in (0.63, 0.93):
        plate.outline(rng, f32(np.stack([np.linspace(-0.1, 1.1, 50), np.full(50, level)], -1)))


def _turned(
    rng: Random, plate: _Plate, profile: list[tuple[float, float]], centre: float, gloss: float, dark: float
) -> None:
    """A vessel turned on a wheel: its profile as (half width, y) from the top down."""
    x, y = plate.x, plate.y
    curve = paint.spline(profile)
    half = np.interp(y[:, 0], curve[:, 1], curve[:, 0], left=0, right=0)[:, None] + 0 * x
    u = (x - centre) / np.maximum(half, 1e-4)
    mask = paint.step(1.0, 0.985, f32(np.abs(u))) * (half > 0.002)
    bulge = np.sqrt(np.clip(1 - u * u, 0, 1))
    light = -0.62 * u + 0.55 * bulge
    tone = dark - 0.62 * light + 0.25 * paint.step(0.75, 1.0, f32(u)) * -1
    shine = np.exp(-(((u + 0.5) / 0.11) ** 2)) * paint.step(0.0, 0.02, f32(y - curve[0, 1] - 0.03))
    tone = tone - gloss * shine
    plate.put(
        f32(mask), f32(tone), f32(centre + half * np.arcsin(np.clip(u, -1, 1))), f32(y + 0.16 * half * bulge)
    )
    for side in (-1, 1):
        plate.outline(rng, f32(np.stack([centre + side * curve[:, 0], curve[:, 1]], -1)))
    for end in (0, -1):
        rim = np.linspace(0, 2 * np.pi, 40)
        w, level = curve[end]
        plate.outline(rng, f32(np.stack([centre + w * np.cos(rim), level + 0.16 * w * np.sin(rim)], -1)))


def _shadow(plate: _Plate, x: float, y: float, width: float) -> None:
    """The shadow that a thing standing at (x, y) throws to the right."""
    u, v = (plate.x - x - 0.9 * width) / (1.75 * width), (plate.y - y) / (0.3 * width)
    plate.shade(paint.step(1.25, 0.45, f32(np.hypot(u, v - 0.25 * u))) * (plate.y > 0.63), 0.62)


def _fruit(rng: Random, plate: _Plate, x: float, y: float, r: float, tall: float) -> None:
    u, v = (plate.x - x) / r, (plate.y - y) / (r * tall)
    away = np.hypot(u, v) * (1 + 0.05 * np.cos(2 * np.arctan2(v, u)))
    bulge = np.sqrt(np.clip(1 - away * away, 0, 1))
    light = -0.5 * u - 0.52 * v + 0.62 * bulge
    tone = 0.72 - 0.78 * light + 0.2 * np.exp(-((u + 0.05) ** 2 + (v + 0.8) ** 2) / 0.04)
    reflected = 0.22 * paint.step(0.8, 1.0, f32(away)) * (v > 0)
    mask = paint.step(1.0, 0.98, f32(away))
    plate.put(
        mask,
        f32(tone - reflected),
        f32(x + r * u / (0.35 + bulge) * 0.7),
        f32(y + r * v / (0.35 + bulge) * 0.7),
    )
    turn = np.linspace(0, 2 * np.pi, 60)
    swell = r / (1 + 0.05 * np.cos(2 * turn))
    plate.outline(rng, f32(np.stack([x + swell * np.cos(turn), y + tall * swell * np.sin(turn)], -1)))
    plate.outline(
        rng, paint.spline([(x, y - 0.8 * r * tall), (x + 0.1 * r, y - 1.1 * r), (x + 0.3 * r, y - 1.3 * r)])
    )


def _cloth(rng: Random, plate: _Plate) -> None:
    """A cloth that falls over the table's edge, in folds."""
    x, y = plate.x, plate.y
    edge = paint.spline(
        points("-0.05 0.74, 0.14 0.85, 0.3 0.84, 0.46 0.88, 0.5 0.96, 0.44 1.1, -0.05 1.1"),
        closed=True,
    )
    sway = 40 * (x + 0.5 * (y - 0.85) * (x - 0.25)) + 1.2 * paint.noise(rng, plate.size, 4)
    folds = 0.3 + 0.26 * np.sin(sway) * paint.step(0.8, 0.95, y) + 0.06 * paint.noise(rng, plate.size, 7)
    plate.put(
        paint.shape(plate.size, edge),
        f32(folds - 0.1),
        f32(x + 0.03 * np.sin(sway)),
        f32(y + 0.012 * np.cos(sway)),
    )
    plate.outline(rng, edge)


def _hatch(rng: Random, plate: _Plate, angle: float, pitch: float, low: float, high: float) -> Array:
    """One set of lines, thin where the tone just passes `low` and full at `high`: ink 0..1."""
    size = plate.size
    phase = (plate.across * np.cos(angle) + plate.along * np.sin(angle)) * pitch
    phase = (
        phase + 0.16 * paint.noise(rng, size, 6, octaves=2) + 0.025 * paint.noise(rng, size, 60, octaves=2)
    )
    slope = np.hypot(np.gradient(phase, axis=0), np.gradient(phase, axis=1)) + 1e-6
    slope = np.clip(slope, 0.02, 0.4)
    distance = np.abs((phase % 1) - 0.5) / slope
    tone = plate.tone + 0.03 * paint.noise(rng, size, 30, octaves=2)
    weight = np.clip((tone - low) / (high - low), 0, 1)
    width = np.minimum(0.5, 5 * weight) + 0.24 * weight / slope
    bite = 0.8 + 0.2 * paint.noise(rng, size, 80, octaves=2)
    return f32(np.clip(width - distance + 0.5, 0, 1) * bite.clip(0.4, 1) * (weight > 0))


def _still_life(rng: Random, size: int) -> _Plate:
    plate = _Plate(size)
    _room(rng, plate)
    _shadow(plate, 0.36, 0.72, 0.12)
    bottle = points("0.034 0.14, 0.036 0.17, 0.03 0.2, 0.034 0.32, 0.06 0.38, 0.1 0.43, 0.105 0.56, 0.1 0.73")
    _turned(rng, plate, bottle, 0.37, 0.7, 0.86)
    jug = points("0.085 0.35, 0.07 0.39, 0.075 0.45, 0.13 0.53, 0.14 0.61, 0.1 0.69, 0.085 0.72")
    _shadow(plate, 0.62, 0.71, 0.12)
    _turned(rng, plate, jug, 0.64, 0.3, 0.55)
    handle = paint.spline([(0.72, 0.41), (0.81, 0.39), (0.84, 0.48), (0.77, 0.58)])
    grip = paint.lines(size, [handle], 15)
    plate.put(grip, f32(0.3 + 3 * (plate.x - 0.78)), plate.x, plate.y)
    plate.contours = np.maximum(plate.contours, grip - paint.lines(size, [handle], 12))
    _cloth(rng, plate)
    for fruit in _FRUIT:
        _shadow(plate, fruit[0], fruit[1] + 0.8 * fruit[2], fruit[2])
        _fruit(rng, plate, *fruit)
    return plate


def etching(rng: Random, size: int) -> Array:
    """Bottle, jug and fruit, every shadow a net of needle lines in warm black."""
    work = 2 * size
    plate = _still_life(rng, work)
    ink = plate.contours
    for angle, pitch, low, high in (
        (0.9, 150, 0.12, 0.9),
        (-0.75, 150, 0.32, 1.0),
        (1.57, 170, 0.5, 1.1),
        (0.1, 170, 0.66, 1.15),
    ):
        ink = np.maximum(ink, _hatch(rng, plate, angle, pitch, low, high))
    ink = paint.halve(ink)
    plate_tone = 0.07 + 0.03 * paint.noise(rng, size, 3) + 0.1 * paint.halve(plate.tone)
    sheet = 1 + 0.012 * paint.noise(rng, size, 4) + 0.014 * paint.paper_tooth(rng, size, 140)
    image = palette("efe4cd")[0] * sheet[..., None]
    return paint.settle(
        paint.glaze(
            f32(image),
            palette("2a1d18")[0],
            f32(np.clip(plate_tone + 0.95 * paint.blur(f32(ink), 0.45), 0, 1.1)),
        )
    )
