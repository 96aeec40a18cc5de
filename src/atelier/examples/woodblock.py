"""A colour woodblock print: a snow mountain over a lake, cherry blossom in front."""

from __future__ import annotations

import numpy as np

from atelier.examples import paint
from atelier.examples.paint import Array, Random, f32, points
from atelier.examples.prints import Press, rice_paper


def _mountain(rng: Random, size: int) -> tuple[Array, Array, Array]:
    """The mountain's mask, its snow, and the lines of the key block."""
    x, y = paint.grid(size)
    away = np.abs(x - 0.4)
    ridge = 0.2 + 0.95 * away / (1 + 0.9 * away) * (1 + 0.5 * away) - 0.03 * np.exp(-((away / 0.03) ** 2))
    ridge = ridge + 0.004 * paint.noise(rng, size, 12)[0][None] + 0.01 * (np.abs(x - 0.4) < 0.022)
    mask = paint.step(-0.001, 0.001, f32(y - ridge))
    tongues = (
        0.33
        + 0.45 * away
        + 0.03 * np.sin(x * 83 + 1.7 * np.sin(31 * x))
        + 0.02 * np.sin(x * 197 + 2 * np.sin(17 * x))
    )
    snow = mask * paint.step(0.001, -0.001, f32(y - tongues)) * paint.step(0.3, 0.26, f32(away))
    gullies = []
    for _ in range(70):
        start, fall = 0.4 + 0.36 * rng.standard_normal(), 0.03 + 0.08 * rng.random()
        top = 0.34 + 0.5 * abs(start - 0.4) + 0.16 * rng.random()
        lean = 0.8 * np.sign(start - 0.4) * fall
        gullies.append(
            paint.spline(
                [(start, top), (start + 0.4 * lean, top + 0.5 * fall), (start + lean, top + fall)], count=6
            )
        )
    line = np.stack([x[0], ridge[0]], -1)[:: max(1, size // 160)]
    key = np.maximum(paint.lines(size, [f32(line)], 2), 0.8 * mask * paint.lines(size, gullies, 1.2))
    return mask, f32(snow), f32(key)


def _mist(rng: Random, size: int) -> tuple[Array, Array]:
    """Rounded bands of mist, and their outlines."""
    bands = np.zeros((size, size), np.float32)
    for x, y, w in (
        (-0.05, 0.48, 0.32),
        (0.5, 0.525, 0.3),
        (0.12, 0.555, 0.42),
        (0.78, 0.475, 0.4),
        (0.72, 0.15, 0.25),
        (-0.1, 0.13, 0.24),
    ):
        for k in range(3):
            left = x + 0.05 * k + 0.05 * rng.standard_normal()
            right, level, h = left + w * (0.7 + 0.5 * rng.random()), y + 0.02 * k, 0.011
            cap = np.linspace(-np.pi / 2, np.pi / 2, 12)
            east = np.stack([right + h * np.cos(cap), level + h * np.sin(cap)], -1)
            west = np.stack([left - h * np.cos(cap), level - h * np.sin(cap)], -1)
            bands = np.maximum(bands, paint.shape(size, f32(np.vstack([east, west]))))
    inner = paint.blur(bands, paint.px(size, 1.2))
    rims = paint.step(0.08, 0.35, inner) * (1 - paint.step(0.45, 0.7, inner))
    return bands, f32(rims)


def _water(rng: Random, size: int) -> tuple[Array, Array]:
    """The lake's mask and its ripples."""
    _, y = paint.grid(size)
    lake = paint.step(-0.001, 0.001, y - 0.66)
    curves = []
    for level in 0.675 + 0.33 * np.linspace(0, 1, 26) ** 1.3:
        t, drift = np.linspace(0, 1, 60), 6.3 * rng.random()
        swing = 0.0025 + 0.012 * (level - 0.66)
        whole = np.stack(
            [t, level + swing * np.sin(t * 24 / (0.4 + level) + drift) * np.sin(t * 7 + drift)], -1
        )
        for start in (0, 15, 32, 46):
            first = start + int(rng.integers(0, 6))
            curves.append(f32(whole[first : first + 6 + int(rng.integers(0, 9))]))
    return lake, paint.lines(size, curves, 1.5)


def _shore(rng: Random, size: int) -> tuple[Array, Array]:
    """Wooded hills at the lake's edge, with a line for every tree."""
    x, y = paint.grid(size)
    far = 0.635 - 0.035 * np.sin(4.2 * x + 2.6) - 0.008 * np.abs(np.sin(95 * x + 3 * np.sin(11 * x)))
    wood = paint.step(-0.001, 0.001, f32(y - far)) * paint.step(0.662, 0.66, y)
    near = 0.64 - 0.07 * paint.step(0.62, 1.0, x) - 0.01 * np.abs(np.sin(70 * x + 2 * np.sin(15 * x)))
    copse = paint.step(-0.001, 0.001, f32(y - near)) * paint.step(
        0.682, 0.68, f32(y + 0.03 * paint.step(0.75, 0.55, x))
    )
    return f32(wood), f32(copse * (x > 0.6))


def _boughs(rng: Random) -> tuple[list[tuple[Array, float]], list[Array]]:
    """The cherry's boughs with their widths, and where the blossom sits."""
    stems = [(points("1.05 0.99, 0.93 0.86, 0.87 0.7, 0.74 0.6, 0.69 0.47, 0.56 0.4"), 17.0)]
    stems += [
        ([(0.88, 0.72), (0.93, 0.55), (0.88, 0.42), (0.92, 0.3)], 10.0),
        ([(0.75, 0.61), (0.6, 0.66), (0.5, 0.62), (0.38, 0.66)], 9.0),
    ]
    stems += [
        ([(0.7, 0.48), (0.74, 0.36), (0.7, 0.29)], 6.0),
        ([(0.9, 0.83), (0.76, 0.86), (0.66, 0.82), (0.56, 0.87)], 9.0),
    ]
    stems += [
        ([(0.6, 0.655), (0.54, 0.73), (0.46, 0.74)], 5.0),
        ([(0.9, 0.45), (0.97, 0.4), (0.98, 0.32)], 5.0),
    ]
    curves = [(paint.spline(places), width) for places, width in stems]
    seats = []
    for curve, width in curves:
        last = len(curve) - 1
        for at in rng.uniform(0.3 if width > 12 else 0.12, 1.0, 9 if width > 8 else 7):
            seats.append(curve[int(at * last)] + f32(0.02 * rng.standard_normal(2)))
    return curves, seats


def _blossom(rng: Random, seat: Array, reach: float) -> tuple[list[Array], list[Array]]:
    """Five notched petals and the stamens of one flower."""
    turn, tilt, petals, stamens = 6.3 * rng.random(), 0.75 + 0.25 * rng.random(), [], []
    for k in range(5):
        bend = turn + k * 2 * np.pi / 5 + 0.08 * rng.standard_normal()
        axes = f32([[np.cos(bend), np.sin(bend)], [-np.sin(bend), np.cos(bend)]])
        local = f32([[0.08, 0], [0.5, -0.42], [0.93, -0.28], [0.86, 0.0], [0.95, 0.26], [0.52, 0.42]])
        petals.append(
            seat
            + reach * f32([1, tilt]) * (paint.spline([tuple(p) for p in local], count=5, closed=True) @ axes)
        )
        stamens.append(seat + reach * f32([[0, 0], [0.42, 0.06]]) @ axes)
    return [f32(p) for p in petals], [f32(s) for s in stamens]


def _blossoms(rng: Random, press: Press, image: Array, seats: list[Array]) -> tuple[Array, Array]:
    """Every flower printed in two pinks; returns the picture and the key lines."""
    size = image.shape[0]
    white, deep, key = (np.zeros((size, size), np.float32) for _ in range(3))
    for seat in seats:
        reach = 0.026 + 0.012 * rng.random()
        petals, stamens = _blossom(rng, seat, reach)
        whole = np.max([paint.shape(size, p) for p in petals], axis=0)
        rims = paint.lines(size, [f32(np.vstack([p, p[:1]])) for p in petals], 1.1)
        white, key = (
            np.maximum(white, whole),
            np.maximum(key * (1 - whole), np.maximum(rims, paint.lines(size, stamens, 0.8))),
        )
        turn = np.linspace(0, 2 * np.pi, 24)
        heart = paint.shape(size, f32(seat + 0.55 * reach * np.stack([np.cos(turn), np.sin(turn)], -1)))
        deep = np.maximum(deep * (1 - whole), whole * heart)
    deep = paint.blur(deep, paint.px(size, 4)) * white
    image = press(image, "fbe6e1", f32(white), load=1.05)
    return press(image, "e0607a", f32(0.85 * deep)), f32(key)


def _land(rng: Random, press: Press, size: int) -> tuple[Array, Array]:
    """Sky, sun, mountain, shore and lake, each with its gradation, and the key lines."""
    _, y = paint.grid(size)
    edge = 0.02 * paint.noise(rng, size, 3, stretch=4)
    image = rice_paper(rng, size, "f3e7cb")
    mountain, snow, key = _mountain(rng, size)
    (lake, ripples), (wood, copse), (mist, rims) = _water(rng, size), _shore(rng, size), _mist(rng, size)
    sun = paint.disc(size, 0.79, 0.24, 0.075)
    blocks = [
        ("f0a58a", 0.85 * paint.step(0.25, 0.6, f32(y + edge)) * (1 - lake)),
        ("24407c", 0.95 * paint.step(0.19, -0.01, f32(y + edge)) * (1 - mountain)),
        ("d8412f", sun * (1 - 0.25 * paint.step(0.2, 0.32, y))),
        ("5f7fa6", mountain * (1 - snow) * (1 - lake)),
        ("b2563f", mountain * (1 - snow) * paint.step(0.34, 0.62, f32(y + edge)) * (1 - lake)),
        ("21376b", mountain * (1 - snow) * paint.step(0.42, 0.24, f32(y + edge)) * 0.9),
        ("f8f3e4", snow),
        ("f6ecd4", mist),
        ("4f8274", wood),
        ("24504f", copse),
        ("8db6bf", lake * 0.9),
        ("1f4a86", lake * (0.9 * paint.step(0.86, 1.02, f32(y + edge)) + 0.5 * paint.step(0.7, 0.655, y))),
        ("1f4a86", 0.7 * lake * ripples),
    ]
    for colour, block in blocks:
        image = press(image, colour, f32(block * (1 - mist * (colour == "b2563f"))))
    lines = np.maximum(key * (1 - mist) * (1 - lake), 0.8 * rims)
    return image, f32(lines)


def woodblock(rng: Random, size: int) -> Array:
    """Flat colour with gradations, a fine dark outline and paper grain."""
    work = 2 * size
    press = Press(rng, work, starved=0.35)
    image, key = _land(rng, press, work)
    curves, seats = _boughs(rng)
    for curve, width in curves:
        shaky = f32(curve + 0.0025 * rng.standard_normal(curve.shape))
        bough = paint.lines(work, [shaky], width)
        image = press(image, "5b4338", bough, load=1.05)
        image = press(image, "2b2530", f32(bough * np.roll(1 - bough, work // 110, 0)))
        key = key * (1 - bough)
    image, petals = _blossoms(rng, press, image, seats)
    image = press(image, "1f2238", f32(np.maximum(key, petals)), load=0.92)
    return paint.settle(paint.halve(image))
