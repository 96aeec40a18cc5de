"""Pictures of pieces: a stained-glass rosette and a mosaic of a fish."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atelier.examples import paint
from atelier.examples.paint import Array, Random, f32, palette, points

_SUN = (0.5, 0.36)
_RINGS = ((0.075, 10), (0.14, 12), (0.205, 18), (0.275, 22), (0.35, 26), (0.435, 30), (0.53, 34), (0.64, 38))


def _rosette(rng: Random) -> tuple[Array, Array]:
    """The middles of the panes and, for each, which colours it is cut from."""
    x0, y0 = _SUN
    seeds, kinds = [(x0, y0)], [0]
    for kind, (radius, count) in enumerate(_RINGS, start=1):
        for k in range(count):
            turn = 2 * np.pi * (k + 0.5 * (kind % 2)) / count + 0.05 * rng.standard_normal()
            r = radius * (1 + 0.025 * rng.standard_normal())
            seeds.append((x0 + r * np.cos(turn), y0 + r * np.sin(turn)))
            kinds.append(kind)
    places, kind_of = f32(seeds), np.asarray(kinds)
    above = places[:, 1] < 0.66 + 0.04 * np.sin(7 * places[:, 0])
    return f32(places[above]), f32(kind_of[above])


def _fields(rng: Random) -> tuple[Array, Array]:
    """Rolling panes of hills and river below the sun."""
    seeds, kinds = [], []
    for row, y in enumerate(np.linspace(0.7, 1.02, 7)):
        for x in np.arange(-0.03, 1.06, 0.062 + 0.012 * row):
            where = x + 0.04 * (row % 2) + 0.01 * rng.standard_normal()
            level = y + 0.04 * np.sin(7 * where + 0.3 * row) + 0.006 * rng.standard_normal()
            river = abs(where - 0.5 - 0.13 * np.sin(9 * level)) < 0.06 + 0.14 * (level - 0.66)
            seeds.append((where, level))
            kinds.append(12.0 if river else 9.0 + row % 3)
    return f32(seeds), f32(kinds)


_PANES = [
    "fff0b8",
    "ffd24a ffe08a",
    "f2951c e8a92a",
    "b8141f 8f1426",
    "e2651a c8391f",
    "1a3f9c 2450b5 5a1f6f",
    "9cc7dc 3f86c8 1f55a8",
    "102a7a 1b3f98 24307f",
    "0f3573 1a5a9c 4a2a7f",
    "0f6a3f 2a8a3f 74a83a",
    "1a7a4a b8b13a d9a52a",
    "0c4f45 1f7a55 4f9a3f",
    "2f8fc0 a5dce2 1f62a8",
]


def _glass(rng: Random, size: int, pane: Array, seeds: Array, kinds: Array) -> Array:
    """Each pane's colour with its own streaks, bubbles and slant of light."""
    x, y = paint.grid(size)
    tints = [palette(_PANES[int(k)]) for k in kinds]
    colours = paint.vary(rng, f32([t[rng.integers(len(t))] for t in tints]), 0.12, 0.025)
    index = pane.astype(int)
    turn = rng.uniform(0, np.pi, len(seeds))[index]
    lean = ((x - seeds[index, 0]) * np.cos(turn) + (y - seeds[index, 1]) * np.sin(turn)) * 14
    swirls = paint.noise(rng, size, 10, octaves=5, gain=0.6)
    reamy = paint.warp(paint.noise(rng, size, 24, octaves=3, stretch=0.2), 0.02 * swirls, 0.03 * swirls.T)
    seedy = paint.step(1.9, 2.6, paint.noise(rng, size, 110, octaves=1))
    tone = 1 + 0.16 * np.tanh(lean) + 0.11 * swirls + 0.07 * reamy + 0.25 * seedy
    hue = 0.04 * np.stack([swirls, reamy, -swirls], -1)
    return f32(np.clip(colours[index] * tone[..., None] + hue * (colours[index] > 0.15), 0, 1.2))


def _leads(rng: Random, size: int, gap: Array) -> Array:
    """Lead cames along the edges, round in section with solder at the joints: height 0..1."""
    width = 0.0062 * (1 + 0.12 * paint.noise(rng, size, 12))
    return f32(np.sqrt(np.clip(1 - (gap / width) ** 2, 0, 1)))


def _frame(size: int) -> tuple[Array, Array]:
    """The mask of the border and the distance to its edges."""
    x, y = paint.grid(size)
    margin = np.minimum.reduce([x, y, 1 - x, 1 - y])
    return f32(margin < 0.04), f32(np.minimum(np.abs(margin - 0.04), margin))


def _enamel(rng: Random, size: int, gap: Array, pane: NDArray[np.int64], count: int) -> Array:
    """Lines painted on the panes: a thread inside each lead, and hatching in some panes."""
    x, y = paint.grid(size)
    shaky = gap + 0.0006 * paint.noise(rng, size, 50)
    thread = paint.step(0.0011, 0.0004, f32(np.abs(shaky - 0.0125)))
    turn = rng.uniform(0, np.pi, count)[pane]
    stripes = np.sin((x * np.cos(turn) + y * np.sin(turn)) * 420 + 2 * paint.noise(rng, size, 9))
    hatched = (rng.random(count) < 0.4)[pane] * paint.step(0.017, 0.028, gap)
    worn = paint.step(-1.2, 0.3, paint.noise(rng, size, 60))
    return f32(np.maximum(0.75 * thread, 0.5 * hatched * paint.step(0.45, 0.9, f32(stripes))) * worn)


def stained_glass(rng: Random, size: int) -> Array:
    """Leaded panes round a sun, lit from behind."""
    (sky, sky_kinds), (land, land_kinds) = _rosette(rng), _fields(rng)
    seeds, kinds = f32(np.vstack([sky, land])), f32(np.concatenate([sky_kinds, land_kinds]))
    x, y = paint.grid(size)
    bend = [0.005 * paint.noise(rng, size, 5) for _ in range(2)]
    where = np.stack([x + bend[0], y + bend[1]], -1).reshape(-1, 2)
    near, index = cKDTree(seeds).query(where, k=2)
    between = np.linalg.norm(seeds[index[:, 0]] - seeds[index[:, 1]], axis=1)
    gap = (near[:, 1] ** 2 - near[:, 0] ** 2) / (2 * np.maximum(between, 1e-6))
    pane = index[:, 0].reshape(size, size)
    border, edge = _frame(size)
    gap = f32(np.where(border > 0, np.abs(((x + y) * 11 % 1) - 0.5) / 11, gap.reshape(size, size)))
    lead = _leads(rng, size, np.minimum(gap, edge))
    glass = _glass(rng, size, f32(pane), seeds, kinds)
    bands = palette("8f1426 163a86 c8912f")[(np.floor((x + y) * 11 + 0.5) % 3).astype(int)]
    ream = 0.9 + 0.16 * paint.noise(rng, size, 30)
    glass = np.where(border[..., None] > 0, bands * ream[..., None], glass)
    glass = glass * (1 - 0.8 * _enamel(rng, size, gap, pane, len(seeds)))[..., None]
    return _backlit(rng, f32(glass), lead)


def _backlit(rng: Random, glass: Array, lead: Array) -> Array:
    """Daylight through the glass, spilling over leads that lie in shadow."""
    size = len(lead)
    x, y = paint.grid(size)
    away = np.hypot(x - _SUN[0], y - _SUN[1])
    day = (0.66 + 0.5 * np.exp(-((away / 0.45) ** 2))) * (
        1 - 0.35 * paint.blur(f32(lead > 0), paint.px(size, 4))
    )
    lit = f32(glass * day[..., None])
    halo = paint.blur(f32(lit * (lead[..., None] == 0)), paint.px(size, 9))
    round_light = paint.relief(f32(lead * 2), 0.55) * (1 + 0.2 * paint.noise(rng, size, 50))
    metal = palette("26262a")[0] * (0.5 + 0.8 * round_light)[..., None]
    return paint.settle(paint.lay(lit, f32(metal), paint.step(0.0, 0.3, lead)) + 0.2 * halo)


def _fish(size: int) -> tuple[list[tuple[Array, str]], Array]:
    """The masks of the picture's parts from back to front with their colours, and the fish's outline."""
    body = paint.spline(
        points(
            "0.14 0.5, 0.24 0.37, 0.42 0.3, 0.58 0.35, 0.72 0.46, 0.72 0.53, 0.58 0.64, 0.42 0.69, 0.24 0.62"
        ),
        closed=True,
    )
    tail = paint.spline(
        points("0.69 0.495, 0.8 0.38, 0.93 0.27, 0.88 0.4, 0.86 0.5, 0.89 0.6, 0.94 0.72, 0.8 0.61"),
        closed=True,
    )
    fin = paint.spline(points("0.32 0.36, 0.42 0.2, 0.6 0.17, 0.57 0.26, 0.62 0.38, 0.45 0.4"), closed=True)
    under = paint.spline(points("0.4 0.64, 0.46 0.76, 0.58 0.8, 0.56 0.7, 0.58 0.62"), closed=True)
    cheek = paint.spline(points("0.12 0.5, 0.22 0.36, 0.3 0.38, 0.325 0.5, 0.3 0.62, 0.22 0.63"), closed=True)
    masks = [paint.shape(size, s) for s in (tail, fin, under, body, cheek)]
    masks[4] = masks[4] * masks[3]
    names = [
        "d9532f e8833a b8322f",
        "e8a33a d9702f f2c65a",
        "e8a33a d9702f f2c65a",
        "e2622f f0913f f6bf5a c83f2f",
        "f2c862 f7dd96 e8a840",
    ]
    eye = [paint.disc(size, 0.225, 0.46, r) for r in (0.034, 0.019)]
    return [*zip(masks, names, strict=True), (eye[0], "fbf6e3"), (eye[1], "14202e")], masks[3]


def _cartoon(rng: Random, size: int) -> tuple[Array, Array]:
    """The mosaic's drawing in colour, and the angle along which the tesserae are laid."""
    x, y = paint.grid(size)
    parts, _ = _fish(size)
    sea = np.floor((y + 0.025 * np.sin(9 * x) + 0.01 * np.sin(21 * x + 1)) * 13)
    image = palette("0f3f66 1b5f86 2f86a3 58aeb5 1b5f86 8fd0c4")[(sea % 6).astype(int)]
    distance, solid = f32(np.full_like(x, 1)), np.zeros_like(x)
    for mask, colours in parts:
        tints, depth = palette(colours), paint.inside(mask)
        rows = np.floor(depth * 42).astype(int)
        image = np.where(mask[..., None] > 0.5, tints[rows % len(tints)], image)
        distance = f32(np.where(mask > 0.5, depth, distance))
        solid = np.maximum(solid, mask)
    outside = paint.inside(f32(1 - solid))
    ring = (outside > 0) & (outside < 0.03)
    image = np.where(ring[..., None], palette("f3ead2")[0], image)
    waves = y + 0.025 * np.sin(9 * x) + 0.01 * np.sin(21 * x + 1)
    field = np.where(solid > 0.5, distance, np.where(outside < 0.09, -outside, waves))
    field = paint.blur(f32(field), size / 90)
    return f32(image), f32(np.arctan2(np.gradient(field, axis=0), np.gradient(field, axis=1)))


def _nearest(places: Array, turns: Array, where: Array) -> tuple[Array, Array]:
    """For each point its tessera and how far (in square distance) it is from the seam with the next."""
    _, index = cKDTree(places).query(where, k=5)
    away = where[:, None] - places[index]
    cos, sin = np.cos(turns[index]), np.sin(turns[index])
    square = np.maximum(
        np.abs(away[..., 0] * cos + away[..., 1] * sin), np.abs(away[..., 1] * cos - away[..., 0] * sin)
    )
    order = np.argpartition(square, 1, axis=1)[:, :2]
    pair = np.take_along_axis(square, order, 1)
    first = np.take_along_axis(index, np.take_along_axis(order, pair.argmin(1)[:, None], 1), 1)[:, 0]
    return f32(first), f32(np.abs(pair[:, 0] - pair[:, 1]) / 2)


def _lay_tesserae(rng: Random, angle: Array, count: int) -> tuple[Array, Array]:
    """Places and turns of the stones, settled into rows (Hausner, Simulating decorative mosaics, 2001)."""
    coarse = 240
    x, y = paint.grid(coarse)
    where = np.stack([x.ravel(), y.ravel()], -1)
    places = paint.scatter(rng, count)
    for _ in range(12):
        owner = _nearest(places, paint.pick(angle, places), where)[0].astype(int)
        total = np.maximum(np.bincount(owner, minlength=len(places)), 1)[:, None]
        middles = [np.bincount(owner, where[:, k], len(places)) for k in (0, 1)]
        centre = np.stack(middles, -1) / total
        places = np.where(np.bincount(owner, minlength=len(places))[:, None] > 0, centre, places).astype(
            np.float32
        )
    return places, paint.pick(angle, places)


def mosaic(rng: Random, size: int) -> Array:
    """A fish in tesserae that follow its outline, in sandy grout."""
    image, angle = _cartoon(rng, size)
    places, turns = _lay_tesserae(rng, angle, 3900)
    turns = f32(turns + 0.06 * rng.standard_normal(len(turns)))
    x, y = paint.grid(size)
    shake = [0.0012 * paint.noise(rng, size, 60, octaves=2) for _ in range(2)]
    where = f32(np.stack([x + shake[0], y + shake[1]], -1).reshape(-1, 2))
    owner, seam = _nearest(places, turns, where)
    index, seam = owner.astype(int).reshape(size, size), seam.reshape(size, size)
    tones = paint.vary(rng, paint.pick(image, places), 0.12, 0.03)
    slant = rng.standard_normal((len(places), 2))[index]
    tilt = ((x - places[index, 0]) * slant[..., 0] + (y - places[index, 1]) * slant[..., 1]) * 8
    stone = paint.step(0.0011, 0.0022, seam)
    face = (
        tones[index]
        * (1 + tilt + 0.06 * paint.noise(rng, size, 90) + 0.05 * paint.noise(rng, size, 20))[..., None]
    )
    height = paint.blur(
        f32(paint.step(0.0008, 0.0045, seam) + 0.12 * paint.noise(rng, size, 100)), paint.px(size, 0.7)
    )
    grout = palette("b9aa8c")[0] * (0.62 + 0.1 * paint.noise(rng, size, 120, octaves=2))[..., None]
    return paint.settle(paint.lay(f32(grout), f32(face), stone) * paint.relief(height, 0.22)[..., None])
