"""Works on paper: an ink landscape and watercolour poppies."""

from __future__ import annotations

import cv2
import numpy as np

from atelier.examples import paint
from atelier.examples.paint import Array, Random, f32, palette, points


def _paper(rng: Random, size: int, colour: str) -> Array:
    """Handmade paper: warm blotches, fibres and tooth."""
    stain = 0.012 * paint.noise(rng, size, 3) + 0.008 * paint.noise(rng, size, 60, stretch=4)
    sheet = np.broadcast_to(palette(colour)[0], (size, size, 3)) * (1 + stain)[..., None]
    fibres = []
    for _ in range(260):
        at, turn, bend = rng.random(2), 6.3 * rng.random(), rng.standard_normal()
        t = np.linspace(0, 0.02 + 0.04 * rng.random(), 8)
        fibres.append(
            f32(np.stack([np.cos(turn + bend * t * 30), np.sin(turn + bend * t * 30)], -1) * t[:, None] + at)
        )
    return f32(sheet * (1 - 0.035 * paint.lines(size, fibres, 1)[..., None]))


def _ridge(rng: Random, size: int, level: float, height: float, peak: float) -> Array:
    """The outline of a mountain as y over x, `(S,)`: one steep mass and its shoulders."""
    x = paint.grid(size)[0][0]
    mass = np.exp(-(np.abs(x - peak) ** 1.3) / 0.07) + 0.5 * np.exp(-(np.abs(x - peak - 0.17) ** 1.5) / 0.02)
    crags = paint.noise(rng, size, 5, octaves=6, gain=0.55)[size // 2]
    return f32(level - height * mass * (1 + 0.06 * crags) - 0.012 * crags)


def _mountain(rng: Random, size: int, ridge: Array, ink: float, mist: float) -> Array:
    """Ink density of one range: dark along the crest, wet folds below, dissolving into mist."""
    _, y = paint.grid(size)
    depth = y - ridge[None]
    folds = paint.noise(rng, size, 9, octaves=5, gain=0.6)
    wash = np.exp(-np.maximum(depth, 0) / mist) * (0.75 + 0.3 * folds)
    crest = np.exp(-np.maximum(depth, 0) / 0.006) * paint.step(-0.8, 0.6, paint.noise(rng, size, 24))
    slope = paint.blur(f32(np.gradient(np.broadcast_to(ridge, (size, size)), axis=1)), size / 60)
    drawn = paint.warp(paint.noise(rng, size, 26, octaves=4, gain=0.7, stretch=0.25), -slope * depth, 0 * y)
    cuts = paint.step(0.7, 1.8, f32(drawn + 0.5 * folds)) * np.exp(
        -np.maximum(depth - 0.01, 0) / (0.9 * mist)
    )
    edge = paint.step(-0.002, 0.002, f32(depth + 0.0015 * paint.noise(rng, size, 90)))
    return f32(ink * edge * np.maximum(0, wash + 0.8 * crest + 0.9 * cuts))


def _dry_brush(rng: Random, size: int, curve: Array, width: float, dryness: float) -> Array:
    """Ink density of one stroke of a bristle brush that runs dry towards its end."""
    along = np.linspace(0, len(curve) - 1, 30)
    path = np.stack([np.interp(along, np.arange(len(curve)), curve[:, k]) for k in (0, 1)], -1)
    easel, hairs = paint.easel(np.zeros((size, size, 3), np.float32)), max(5, int(width))
    for part in range(3):
        shade = f32(np.full((1, 3), 0.55 + 0.2 * part))
        ragged = dryness * (0.3 + 0.4 * part)
        paint.brush(easel, rng, f32(path)[None], shade, width, hairs=hairs, streak=0.3, ragged=ragged)
    density = f32(easel[..., 0]) / 255
    tooth = paint.paper_tooth(rng, size, 130)
    return f32(density * paint.step(-3.7 + 2 * dryness, -2.0 + 2 * dryness, tooth))


def _needles(rng: Random, size: int, twigs: list[tuple[float, float]]) -> Array:
    """Fans of pine needles round each twig's end."""
    total = np.zeros((size, size), np.float32)
    for x, y in twigs:
        centre, fans = f32([x, y]), []
        for turn in np.linspace(-np.pi - 0.25, 0.25, 30) + 0.06 * rng.standard_normal(30):
            reach = 0.05 * (0.75 + 0.35 * rng.random()) * f32([np.cos(turn), 0.75 * np.sin(turn)])
            fans.append(
                paint.spline(
                    [(x, y), tuple(centre + 0.5 * reach + f32([0, -0.003])), tuple(centre + reach)], count=4
                )
            )
        fan = paint.lines(size, fans, 1.2) * (0.55 + 0.35 * rng.random())
        wet = paint.disc(size, x, y - 0.012, 0.035, 0.05) * 0.22
        total = np.maximum(total, np.maximum(fan, wet))
    return f32(total)


def _pine_ink(rng: Random, size: int) -> Array:
    trunk = paint.spline(points("1.03 0.97, 0.9 0.86, 0.87 0.74, 0.76 0.66, 0.73 0.54, 0.62 0.5"))
    boughs = [
        ([(0.87, 0.76), (0.93, 0.66), (0.9, 0.58), (0.97, 0.5)], 8.0),
        ([(0.79, 0.68), (0.7, 0.7), (0.62, 0.66), (0.53, 0.68)], 8.0),
        ([(0.73, 0.55), (0.78, 0.48), (0.77, 0.42), (0.83, 0.38)], 7.0),
        ([(0.64, 0.5), (0.57, 0.46), (0.5, 0.47)], 5.0),
    ]
    density = 0.95 * _dry_brush(rng, size, trunk, 24, 0.5)
    for curve, width in boughs:
        density = np.maximum(density, _dry_brush(rng, size, paint.spline(curve), width, 0.35))
    twigs = points("0.97 0.5, 0.91 0.55, 0.99 0.58, 0.94 0.65, 0.53 0.67, 0.6 0.64, 0.66 0.68, 0.57 0.71")
    twigs += points("0.83 0.38, 0.77 0.42, 0.88 0.42, 0.78 0.48, 0.5 0.46, 0.56 0.44, 0.63 0.48, 0.71 0.52")
    return f32(np.maximum(density, _needles(rng, size, twigs)))


def _boat(size: int) -> Array:
    hull = paint.spline(
        points("0.2 0.842, 0.24 0.857, 0.3 0.858, 0.35 0.838, 0.3 0.868, 0.235 0.868, 0.2 0.842")
    )
    figure = paint.spline(points("0.285 0.855, 0.287 0.825, 0.297 0.815, 0.305 0.83, 0.308 0.855"))
    hat = paint.spline([(0.279, 0.819), (0.296, 0.803), (0.312, 0.82)])
    pole = f32([[0.31, 0.79], [0.335, 0.9]])
    ripples = [
        f32([[0.16 + 0.03 * k, 0.885 + 0.012 * k], [0.36 - 0.02 * k, 0.887 + 0.012 * k]]) for k in range(3)
    ]
    body = np.maximum(paint.shape(size, hull), 0.7 * paint.shape(size, figure))
    body = np.maximum(body, paint.shape(size, hat))
    return f32(
        np.maximum(
            body, np.maximum(0.6 * paint.lines(size, [pole], 1.4), 0.2 * paint.lines(size, ripples, 1))
        )
    )


def _bank(rng: Random, size: int) -> Array:
    """Rocks at the water's edge in wet ink, and reeds flicked up from them."""
    x, _ = paint.grid(size)
    edge = 1.03 - 0.12 * np.exp(-((x[0] - 0.93) ** 2) / 0.05) - 0.09 * np.exp(-((x[0] - 0.02) ** 2) / 0.03)
    rocks = _mountain(rng, size, f32(edge + 0.008 * paint.noise(rng, size, 9, octaves=6)[0]), 0.95, 0.05)
    reeds = []
    for foot in np.concatenate([0.02 + 0.12 * rng.random(14), 0.62 + 0.2 * rng.random(16)]):
        lean, tall = 0.03 + 0.025 * rng.standard_normal(), 0.04 + 0.07 * rng.random()
        reeds.append(
            paint.spline(
                [(foot, 1.0), (foot + 0.3 * lean, 0.98 - 0.7 * tall), (foot + lean, 0.98 - tall)], count=8
            )
        )
    thin, thick = paint.lines(size, reeds[::2], 1.2), paint.lines(size, reeds[1::2], 2.4)
    return f32(np.maximum(rocks, np.maximum(0.8 * thin, 0.5 * thick)))


def _seal(rng: Random, size: int, image: Array) -> Array:
    """A red seal with carved strokes."""
    x, y = 0.07, 0.8
    stone = f32([[x, y], [x + 0.052, y + 0.001], [x + 0.05, y + 0.066], [x + 0.001, y + 0.065]])
    mark = paint.shape(size, stone) * paint.step(-1.9, -1.1, paint.noise(rng, size, 120))
    carved = [
        [(0.2, 0.2), (0.8, 0.2)],
        [(0.5, 0.1), (0.5, 0.46)],
        [(0.22, 0.36), (0.78, 0.36)],
        [(0.2, 0.56), (0.8, 0.56)],
    ]
    carved += [[(0.22, 0.56), (0.22, 0.88)], [(0.5, 0.6), (0.48, 0.88), (0.8, 0.86), (0.8, 0.66)]]
    cuts = [f32([(x + 0.052 * a, y + 0.066 * b) for a, b in line]) for line in carved]
    return paint.glaze(image, palette("c23328")[0], f32(1.1 * mark * (1 - paint.lines(size, cuts, 2))))


def ink(rng: Random, size: int) -> Array:
    """Mountains in mist in washes of ink, a dry-brushed pine before them."""
    _, y = paint.grid(size)
    density = 0.05 * paint.step(0.5, 0.0, y) * (1 + 0.4 * paint.noise(rng, size, 3))
    ranges = [(0.5, 0.22, 0.75, 0.17, 0.1), (0.58, 0.46, 0.33, 0.42, 0.17), (0.68, 0.2, 0.08, 0.6, 0.09)]
    for level, height, peak, strength, mist in ranges:
        layer = _mountain(rng, size, _ridge(rng, size, level, height, peak), strength, mist)
        veil = paint.step(0, 0.06, layer)
        density = density * (1 - 0.8 * veil) + layer
    bleed = 0.004 * paint.noise(rng, size, 40)
    density = paint.warp(f32(density), bleed, f32(bleed.T))
    haze = 1 - 0.75 * np.exp(-((y - 0.6 - 0.02 * paint.noise(rng, size, 3, stretch=3)) ** 2) / 0.003)
    density = np.maximum(density * haze, _bank(rng, size))
    density = np.maximum(density, 1.05 * _pine_ink(rng, size)) + 0.9 * _boat(size)
    grain = 1 + 0.1 * paint.paper_tooth(rng, size) + 0.05 * paint.noise(rng, size, 200, octaves=1)
    sheet = _paper(rng, size, "efe6d2")
    image = paint.glaze(sheet, palette("201d24")[0], f32(np.clip(density * grain, 0, 1.3)))
    return paint.settle(_seal(rng, size, image))


def _wet(rng: Random, mask: Array, edge: float, bloom: float) -> Array:
    """A mask as a dried wash: pooled edges, granulation and blooms where it ran."""
    size = mask.shape[0]
    shaky = paint.warp(
        mask, 0.006 * paint.noise(rng, size, 14, octaves=5), 0.006 * paint.noise(rng, size, 14, octaves=5)
    )
    body = paint.step(0.3, 0.7, shaky)
    rim = np.clip(body - paint.blur(body, paint.px(size, 3.0)), 0, 1) * 2 * edge
    pool = 0.62 + bloom * paint.noise(rng, size, 5, octaves=5)
    back = paint.noise(rng, size, 7, octaves=4)
    backrun = 0.28 * np.exp(-((back - 0.5) ** 2) / 0.006) - 0.2 * paint.step(0.5, 0.9, back)
    grains = 1 + 0.13 * paint.paper_tooth(rng, size, 110)
    return f32(np.maximum(0, body * (pool + backrun) + body * rim) * grains)


def _petals(rng: Random, size: int, x: float, y: float, r: float) -> list[Array]:
    """The four overlapping petals of a poppy seen from one side."""
    masks = []
    for turn, wide, reach in ((-2.5, 0.95, 0.95), (-0.65, 0.95, 0.95), (-1.57, 1.0, 1.0), (1.4, 1.05, 0.72)):
        turn += 0.2 * rng.standard_normal()
        edge = []
        for t in np.linspace(-1, 1, 9):
            frill = 1 + 0.09 * rng.standard_normal()
            away, bend = r * reach * (1 - 0.35 * t * t) * frill, turn + wide * t
            edge.append((x + away * np.cos(bend), y + 0.85 * away * np.sin(bend)))
        masks.append(paint.shape(size, paint.spline([(x, y), *edge], closed=True)))
    return masks


def _leaves(rng: Random, size: int) -> tuple[Array, Array]:
    """Stems and feathery leaves."""
    stems = [
        [(0.42, 1.05), (0.44, 0.8), (0.36, 0.6), (0.34, 0.36)],
        [(0.5, 1.05), (0.55, 0.8), (0.66, 0.62), (0.68, 0.52)],
    ]
    stems += [
        [(0.46, 1.05), (0.48, 0.7), (0.58, 0.4), (0.6, 0.2)],
        [(0.38, 1.05), (0.3, 0.85), (0.2, 0.75), (0.17, 0.66)],
    ]
    stems += [
        [(0.56, 1.05), (0.68, 0.9), (0.85, 0.84), (0.88, 0.76)],
        [(0.44, 1.05), (0.4, 0.6), (0.16, 0.3), (0.15, 0.24)],
    ]
    mask, blades = paint.lines(size, [paint.spline(s) for s in stems], 4), np.zeros((size, size), np.float32)
    for _ in range(30):
        x, y, turn = (
            0.22 + 0.52 * rng.random(),
            0.66 + 0.32 * rng.random(),
            -1.57 + 0.9 * rng.standard_normal(),
        )
        reach, wide = 0.08 + 0.1 * rng.random(), 0.012 + 0.012 * rng.random()
        ahead, side = f32([np.cos(turn), np.sin(turn)]) * reach, f32([-np.sin(turn), np.cos(turn)]) * wide
        tip = ahead + 0.03 * rng.standard_normal(2)
        leaf = paint.spline(
            [(0, 0), tuple(0.45 * ahead + side), tuple(tip), tuple(0.45 * ahead - side)], closed=True
        )
        blades = np.maximum(blades, paint.shape(size, f32(leaf + f32([x, y]))))
    return mask, blades


def _spatter(rng: Random, size: int, count: int) -> Array:
    mask = np.zeros((size, size), np.uint8)
    for place in paint.fixed(f32(rng.random((count, 2))), size):
        radius = int(16 * paint.px(size, 0.6 + 3.2 * rng.random() ** 4))
        cv2.circle(mask, place.tolist(), max(8, radius), 255, -1, cv2.LINE_AA, 4)
    return f32(mask / 255.0)


def watercolour(rng: Random, size: int) -> Array:
    """Poppies wet in wet, with pooled edges, blooms and granulation."""
    x, y = paint.grid(size)
    image = _paper(rng, size, "f8f4ea")
    for colour, cx, cy, spread in (
        ("7fb3d8", 0.2, 0.3, 0.2),
        ("f2c879", 0.75, 0.2, 0.16),
        ("a9c77e", 0.4, 0.85, 0.2),
        ("b79fd4", 0.85, 0.75, 0.14),
    ):
        cloud = np.exp(
            -((x - cx) ** 2 + 1.3 * (y - cy) ** 2) / spread**2 + 0.5 * paint.noise(rng, size, 4, octaves=5)
        )
        wash = _wet(rng, paint.step(0.25, 0.75, f32(cloud)), 0.5, 0.25)
        image = paint.glaze(
            image, palette(colour)[0], f32(0.6 * np.clip(cloud, 0, 1.2) * (0.4 + 0.6 * wash) + 0.2 * wash)
        )
    stems, blades = _leaves(rng, size)
    for colour, mask, density in (
        ("5f8f5a", blades, 1.0),
        ("3f7a55", stems, 0.95),
        ("2f5f7a", np.roll(blades, size // 17, 1), 0.5),
    ):
        image = paint.glaze(image, palette(colour)[0], f32(density * _wet(rng, f32(mask), 0.9, 0.3)))
    flowers = [(0.34, 0.34, 0.17, "e2402c"), (0.68, 0.52, 0.18, "d92f3a"), (0.6, 0.16, 0.12, "ee6a3a")]
    flowers += [(0.17, 0.66, 0.11, "e8503f"), (0.88, 0.76, 0.1, "f08a4a"), (0.14, 0.22, 0.07, "c92f4f")]
    for cx, cy, r, colour in flowers:
        image = _poppy(rng, image, cx, cy, r, palette(colour)[0])
    image = paint.glaze(image, palette("c8372f")[0], f32(0.7 * _spatter(rng, size, 70)))
    image = paint.glaze(image, palette("4f7f5a")[0], f32(0.6 * _spatter(rng, size, 40)))
    return paint.settle(
        image * (1 + 0.018 * paint.relief(paint.paper_tooth(rng, size, 110), 1) - 0.018)[..., None]
    )


def _poppy(rng: Random, image: Array, x: float, y: float, r: float, colour: Array) -> Array:
    """Four glazes for the petals, veins, and the dark heart let into the wet paint."""
    size = image.shape[0]
    across, down = paint.grid(size)
    away = np.hypot(across - x, down - y) / r
    petals = _petals(rng, size, x, y, r)
    bloom = paint.blur(f32(np.max(petals, axis=0)), paint.px(size, 4))
    for mask in petals:
        image = paint.glaze(
            image, colour, f32(_wet(rng, mask, 1.2, 0.28) * (0.45 + 0.4 * np.clip(1.1 - away, 0, 1)))
        )
    turn = np.arctan2(down - y, across - x)
    veins = paint.step(0.75, 1, f32(np.sin(turn * 34 + 2 * paint.noise(rng, size, 12)))) * paint.step(
        1.0, 0.2, f32(away)
    )
    heart = paint.step(0.34, 0.12, f32(away + 0.05 * paint.noise(rng, size, 20)))
    seeds = f32(_spatter(rng, size, 9000) * paint.step(0.5, 0.3, f32(away)) * (away > 0.16))
    image = paint.glaze(image, colour, f32(0.3 * veins * bloom))
    image = paint.glaze(image, palette("2b1d3f")[0], f32(0.75 * heart + 0.8 * seeds))
    return paint.lay(image, palette("b9c27a")[0], f32(0.65 * paint.disc(size, x, y, 0.09 * r, 0.01)))
