"""Modern paintings: a cubist guitar in facets, and an abstraction of circles and lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from atelier.examples import paint
from atelier.examples.paint import Array, Random, f32, palette, points

_FACETS = 997


def _guitar(image: Array) -> Array:
    """A guitar standing askew, with its sound hole, strings and pegs."""
    size = image.shape[0]
    half = points(
        "0.0 -0.3, 0.085 -0.29, 0.145 -0.22, 0.13 -0.14, 0.105 -0.06, "
        "0.13 0.03, 0.185 0.12, 0.16 0.24, 0.0 0.29"
    )
    body = f32([*half, *[(-a, b) for a, b in half[-2:0:-1]]])
    turn = f32([[np.cos(0.35), np.sin(0.35)], [-np.sin(0.35), np.cos(0.35)]])
    place = f32([0.47, 0.6])

    def put(points: Array) -> Array:
        return f32(f32(points) @ turn + place)

    outline = put(paint.spline([tuple(p) for p in body], closed=True))
    neck = put(f32([[-0.032, -0.2], [0.032, -0.2], [0.026, -0.62], [-0.026, -0.62]]))
    head = put(f32([[-0.04, -0.6], [0.04, -0.6], [0.05, -0.72], [-0.05, -0.72]]))
    image = paint.lay(image, palette("c98a3f")[0], paint.shape(size, outline))
    image = paint.lay(
        image, palette("e2b56a")[0], paint.shape(size, outline) * paint.step(0.52, 0.36, paint.grid(size)[0])
    )
    for part, colour in ((neck, "4a2d1c"), (head, "2c1d18")):
        image = paint.lay(image, palette(colour)[0], paint.shape(size, part))
    for radius, colour in ((0.075, "7a4a22"), (0.06, "ead9b0"), (0.052, "1c1512")):
        x, y = put(f32([0, -0.05])).tolist()
        image = paint.lay(image, palette(colour)[0], paint.disc(size, x, y, radius))
    bridge = put(f32([[-0.09, 0.14], [0.09, 0.14], [0.09, 0.165], [-0.09, 0.165]]))
    image = paint.lay(image, palette("2c1d18")[0], paint.shape(size, bridge))
    strings = [put(f32([[k * 0.009, -0.7], [k * 0.014, 0.15]])) for k in (-2, -1, 0, 1, 2)]
    image = paint.lay(image, palette("f3e7c8")[0], paint.lines(size, strings, 1.5))
    return paint.lay(
        image, palette("1c1512")[0], paint.lines(size, [f32(np.vstack([outline, outline[:1]]))], 6)
    )


def _table(rng: Random, size: int) -> Array:
    """Wall, table, bottle, glass and a newspaper under the guitar."""
    x, y = paint.grid(size)
    wall = paint.ramp(
        f32(np.clip(0.5 + 0.3 * paint.noise(rng, size, 3), 0, 1)), palette("4f5a58 6f7a6c 8f8f74 a89a78")
    )
    table = (
        palette("8a5a32")[0]
        * (1 + 0.16 * np.sin(80 * y + 6 * paint.noise(rng, size, 4, stretch=5)))[..., None]
    )
    image = paint.lay(wall, f32(table), paint.step(-0.002, 0.002, f32(y - 0.62 + 0.12 * x)))
    cloth = f32([[0.02, 0.78], [0.5, 0.66], [0.78, 0.86], [0.3, 1.05]])
    image = paint.lay(image, palette("efe6cf")[0], paint.shape(size, cloth))
    print_lines = (np.sin(2 * np.pi * 52 * (y + 0.25 * x)) > 0.2) * (
        paint.noise(rng, size, 70, octaves=1) > -0.5
    )
    image = paint.lay(
        image,
        palette("2c2a2a")[0],
        f32(0.75 * paint.shape(size, f32((cloth - 0.4) * 0.85 + 0.4 + 0.025)) * print_lines),
    )
    bottle = paint.spline(
        points("0.76 0.14, 0.765 0.34, 0.7 0.43, 0.69 0.78, 0.9 0.78, 0.89 0.43, 0.825 0.34, 0.82 0.14")
    )
    image = paint.lay(image, palette("24443a")[0], paint.shape(size, bottle))
    label = f32([[0.7, 0.52], [0.89, 0.52], [0.89, 0.68], [0.7, 0.68]])
    image = paint.lay(image, palette("e6d3a0")[0], paint.shape(size, label))
    image = paint.lay(image, palette("a83a2c")[0], paint.disc(size, 0.795, 0.6, 0.045))
    image = paint.lay(
        image, palette("9ab5a4")[0], 0.8 * paint.lines(size, [f32([[0.735, 0.46], [0.73, 0.74]])], 9)
    )
    glass = paint.spline(
        points(
            "0.12 0.4, 0.15 0.56, 0.2 0.6, 0.2 0.74, 0.14 0.76, "
            "0.3 0.76, 0.24 0.74, 0.24 0.6, 0.29 0.56, 0.32 0.4"
        )
    )
    image = paint.lay(image, palette("b8c8c0")[0], 0.75 * paint.shape(size, glass))
    return paint.lay(image, palette("243a44")[0], paint.lines(size, [glass], 3))


def _planes(rng: Random, size: int, count: int) -> tuple[NDArray[np.int64], Array, Array]:
    """Facets cut by straight lines: each point's facet, the distance to the nearest line, and its side."""
    x, y = paint.grid(size)
    code, nearest, side = (
        np.zeros((size, size), np.int64),
        f32(np.full((size, size), 9)),
        f32(np.zeros((size, size))),
    )
    for k in range(count):
        turn = np.pi * (k * 0.382 + 0.12 * rng.standard_normal())
        cx, cy = 0.5 + 0.33 * rng.standard_normal(), 0.5 + 0.33 * rng.standard_normal()
        across = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        along = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        # each cut has an end, so that facets open into one another (the cubists' passage)
        reach = 0.15 + 0.35 * rng.random()
        cut = (across > 0) & (np.abs(along) < reach)
        code = code * 2 + cut
        edge = np.where(np.abs(along) < reach, np.abs(across), 9)
        side = f32(np.where(edge < nearest, np.sign(across), side))
        nearest = f32(np.minimum(nearest, edge))
    # a fixed number of names, so that a facet has the same one whichever others show at this size
    return (code * 40503 + (code >> 9)) % _FACETS, nearest, side


def _brushed(rng: Random, size: int, angle: Array) -> Array:
    """The streaks of a bristle brush drawn along the angles: unit deviation."""
    grain, total = paint.noise(rng, size, 160, octaves=2, gain=0.8), np.zeros((size, size), np.float32)
    for reach in np.linspace(-0.02, 0.02, 13):
        total += paint.warp(grain, f32(reach * np.cos(angle)), f32(reach * np.sin(angle)))
    return f32(total / total.std())


def _shifted(rng: Random, size: int, index: NDArray[np.int64]) -> tuple[Array, Array]:
    """Where each facet looks: a little turned, moved and enlarged, as if seen from another side."""
    x, y = paint.grid(size)
    count = _FACETS
    turn, grow = 0.08 * rng.standard_normal(count)[index], 1 + 0.07 * rng.standard_normal(count)[index]
    move = 0.02 * rng.standard_normal((2, count))[:, index]
    dx = grow * ((x - 0.5) * np.cos(turn) - (y - 0.5) * np.sin(turn)) + 0.5 - x + move[0]
    dy = grow * ((x - 0.5) * np.sin(turn) + (y - 0.5) * np.cos(turn)) + 0.5 - y + move[1]
    return f32(dx), f32(dy)


def _facets(rng: Random, size: int) -> tuple[Array, Array, Array]:
    """The picture in shaded facets, the brush's angle in each, and the distance to their edges."""
    index, edge, side = _planes(rng, size, 19)
    count = _FACETS
    motif = paint.warp(_guitar(_table(rng, size)), *_shifted(rng, size, index))
    tints = palette("f0dfb4 b98a4e 5f7480 33333a d9b273 8c937c c2683a e6d2a2 7d93a0")
    tone = tints[rng.integers(0, len(tints), count)][index]
    x, y = paint.grid(size)
    # the guitar keeps its own colour, so that it can be read
    middle = 0.25 + 0.75 * paint.step(0.16, 0.42, f32(np.hypot(x - 0.47, y - 0.55)))
    chance = rng.choice([0.08, 0.18, 0.36], count, p=[0.5, 0.3, 0.2])
    share = (chance[index] * middle)[..., None]
    image = (1 - share) * motif + share * tone
    slope = np.exp(-edge / 0.06) * side
    light = np.clip(1 + 0.13 * rng.standard_normal(count)[index] * middle + 0.5 * slope, 0.35, 1.5)[..., None]
    image = image * np.minimum(light, 1)
    image = image + (palette("f7ecd0")[0] - image) * np.clip(0.8 * (light - 1), 0, 0.4)
    angle = rng.choice([0.15, 0.8, 1.5, -0.7], count)[index] + 0.15 * paint.noise(rng, size, 6)
    return f32(np.clip(image, 0, 1)), f32(angle), edge


def cubist(rng: Random, size: int) -> Array:
    """A guitar, a bottle and a newspaper broken into shaded facets, ochre and grey."""
    image, angle, edge = _facets(rng, size)
    streaks = _brushed(rng, size, angle)
    canvas = paint.easel(np.clip(image * (1 + 0.09 * streaks)[..., None], 0, 1))
    for width, strokes, length, share in ((9, 2600, 0.045, 1.0), (5, 7000, 0.03, 0.8)):
        places = paint.busy(1 - image, paint.scatter(rng, strokes), share)
        places = places[rng.random(len(places)) < 0.55]
        colours = paint.vary(rng, paint.pick(image, places), 0.08, 0.015)
        paint.brush(canvas, rng, paint.trace(angle, places, 8, length / 7), colours, width, hairs=5)
    height = 0.3 + 0.1 * streaks
    canvas[..., 3] = np.maximum(canvas[..., 3], (255 * np.clip(height, 0, 1)).astype(np.uint8))
    crisp = np.abs(image - paint.blur(image, paint.px(size, 2.5))).max(-1)
    kept = paint.lay(f32(canvas[..., :3] / 255.0), image, paint.step(0.04, 0.13, f32(crisp)))
    canvas[..., :3] = (255 * kept).clip(0, 255).astype(np.uint8)
    painted = paint.varnish(rng, canvas, 0.17)
    shaky = edge + 0.0008 * paint.noise(rng, size, 60)
    charcoal = paint.step(0.0034, 0.0012, f32(shaky)) * paint.step(-0.9, 0.5, paint.noise(rng, size, 7))
    worn = 0.75 + 0.25 * paint.noise(rng, size, 150, octaves=1)
    return paint.settle(paint.lay(painted, palette("17120f")[0], f32(np.clip(0.85 * charcoal * worn, 0, 1))))


class _Sheet:
    """An abstract picture in the making: every form has its own pigment, wear and soft inner gradient."""

    def __init__(self, rng: Random, size: int) -> None:
        self.rng, self.size = rng, size
        self.x, self.y = paint.grid(size)
        self._grains = {cells: paint.noise(rng, size, cells) for cells in (8, 24, 40, 90)}
        cloud = 0.5 + 0.2 * paint.noise(rng, size, 2) + 0.08 * paint.noise(rng, size, 12, octaves=5)
        self.image = paint.ramp(f32(np.clip(cloud, 0, 1)), palette("d8c39a eadbb8 f3e9cf f0dcc0"))

    def _grain(self, cells: int) -> Array:
        """One of the prepared noises, turned another way each time."""
        flips = self.rng.choice((-1, 1), 2)
        turned = self._grains[cells][:: flips[0], :: flips[1]]
        return f32(turned.T if self.rng.random() < 0.5 else turned)

    def form(self, mask: Array, colour: str, *, cover: float = 0.9, sheer: bool = False) -> None:
        """A painted form, opaque or as a glaze."""
        size, tints = self.size, palette(colour)
        turn, centre = 6.3 * self.rng.random(), 0.5
        lean = (self.x - centre) * np.cos(turn) + (self.y - centre) * np.sin(turn)
        t = np.clip(0.5 + 1.6 * lean + 0.18 * self._grain(8), 0, 1)
        shaky = 0.0011 * self._grain(40)
        mask = paint.warp(mask, shaky, f32(-shaky))
        worn = 1 - 0.4 * paint.step(1.1, 2.2, self._grain(90)) - 0.07 * self._grain(24)
        rim = np.clip(mask - paint.blur(mask, paint.px(size, 3)), 0, 1)
        paint_layer = paint.ramp(f32(t), tints)
        amount = f32(np.clip(mask * cover * worn, 0, 1))
        if sheer:
            self.image = f32(
                self.image * np.power(np.clip(paint_layer, 0.02, 1), (amount + 0.5 * rim)[..., None])
            )
        else:
            self.image = paint.lay(self.image, f32(paint_layer * (1 - 0.25 * rim[..., None])), amount)

    def disc(
        self,
        x: float,
        y: float,
        radius: float,
        colour: str,
        *,
        soft: float = 0.003,
        cover: float = 0.9,
        sheer: bool = False,
    ) -> None:
        self.form(paint.disc(self.size, x, y, radius, soft), colour, cover=cover, sheer=sheer)

    def line(self, points: list[tuple[float, float]], width: float, colour: str = "15131a") -> None:
        curve = paint.spline(points)
        self.form(paint.lines(self.size, [curve], width), colour, cover=0.95)


def _great_circle(sheet: _Sheet) -> None:
    """The dark sun, upper left, and its companions."""
    sheet.disc(0.3, 0.29, 0.25, "f08a6a f7c98a", soft=0.12, cover=0.7)
    sheet.disc(0.3, 0.29, 0.175, "15131f 2a2038")
    sheet.disc(0.305, 0.285, 0.142, "6a2a7a 8f3f8a 4a2f86")
    sheet.disc(0.29, 0.3, 0.085, "c8372f e2602f", cover=0.95)
    sheet.disc(0.275, 0.31, 0.038, "f2c14a f7e09a")
    sheet.disc(0.39, 0.41, 0.09, "2f6fb0 4fa0c8", sheer=True)
    for x, y, r, outer, inner in (
        (0.8, 0.17, 0.075, "1f4f8a 3f8ac0", "f2b53a"),
        (0.77, 0.66, 0.105, "d8452f e8803a", "1b2a5a"),
        (0.15, 0.74, 0.08, "e8b53a f2d98a", "b8343a"),
        (0.55, 0.85, 0.055, "2a7a6a 5fae8a", "f2e6c8"),
    ):
        sheet.disc(x, y, 1.5 * r, outer, soft=0.8 * r, cover=0.4)
        sheet.disc(x, y, r, outer)
        sheet.disc(x, y, 0.62 * r, "f2e6c8 e8d4a0")
        sheet.disc(x, y, 0.48 * r, inner)
        sheet.disc(x + 0.1 * r, y - 0.1 * r, 0.18 * r, "15131a")


def _angles(sheet: _Sheet) -> None:
    """Triangles, a fan of wedges and a leaning chequer."""
    polygons = [
        ([(0.44, 0.96), (0.62, 0.3), (0.72, 0.94)], "5a93b8 9cc4cc"),
        ([(0.56, 0.62), (0.96, 0.44), (0.68, 0.82)], "f0b53a f7dc8a"),
        ([(0.05, 0.97), (0.28, 0.52), (0.43, 0.9)], "c86a8a e8a9a4"),
        ([(0.84, 0.78), (0.98, 0.72), (0.95, 0.97)], "2f7a5f 7fb58a"),
    ]
    for corners, colour in polygons:
        sheet.form(paint.shape(sheet.size, f32(corners)), colour, cover=0.85, sheer=True)
    for k in range(5):
        a, b = 0.15 + 0.22 * k, 0.15 + 0.22 * k + 0.13
        wedge = f32(
            [
                (0.47, 0.52),
                (0.47 + 0.34 * np.cos(a - 0.9), 0.52 + 0.34 * np.sin(a - 0.9)),
                (0.47 + 0.34 * np.cos(b - 0.9), 0.52 + 0.34 * np.sin(b - 0.9)),
            ]
        )
        sheet.form(
            paint.shape(sheet.size, wedge),
            ("2a3f7a 4a6ab0", "d8452f f08a4a", "15131a 3a2f3f", "e8b53a f0d07a", "4f8a7a 8fc0a0")[k],
            cover=0.75,
            sheer=True,
        )
    for i in range(4):
        for j in range(5):
            corner = f32([(0, 0), (1, 0), (1, 1), (0, 1)]) + f32([j, i])
            lean = f32([[0.036, -0.011], [0.014, 0.034]])
            tile = corner @ lean + f32([0.6, 0.07])
            colour = ("15131a 2a2430", "f2e6c8 f7f0dc", "c8372f", "e8b53a")[
                (i + j) % 2 if (3 * i + j) % 5 else 2 + (i % 2)
            ]
            sheet.form(paint.shape(sheet.size, f32(tile)), colour, cover=0.92)


def _strings(sheet: _Sheet) -> None:
    """Long lines, arcs, a whiplash and a comb of short strokes."""
    sheet.line([(0.03, 0.6), (0.97, 0.28)], 3.5)
    sheet.line([(0.12, 0.98), (0.72, 0.03)], 5)
    sheet.line([(0.36, 0.99), (0.99, 0.5)], 2.5)
    sheet.line(
        points("0.4 0.72, 0.5 0.67, 0.56 0.75, 0.64 0.68, 0.7 0.76, 0.78 0.7, 0.9 0.8"),
        5,
        "7a1f3a",
    )
    for k in range(4):
        arc = np.linspace(-0.5, 1.7, 9)
        r = 0.1 + 0.022 * k
        sheet.line(
            [(0.86 + r * np.cos(a + 2.2), 0.4 + r * np.sin(a + 2.2)) for a in arc],
            2.4 + 0.8 * (k % 2),
            ("15131a", "1f4f8a")[k % 2],
        )
    for k in range(11):
        sheet.line([(0.05 + 0.019 * k, 0.07 + 0.004 * k), (0.07 + 0.019 * k, 0.03 + 0.004 * k)], 2.2)
        sheet.line(
            [(0.2 + 0.026 * k, 0.86 - 0.0411 * k), (0.235 + 0.026 * k, 0.875 - 0.0411 * k)], 2, "15131a"
        )
    for x, y, r in 0.04 + 0.92 * sheet.rng.random((26, 3)):
        colour = ("15131a", "c8372f", "1f4f8a", "e8b53a")[int(4 * r) % 4]
        sheet.disc(x, y, 0.003 + 0.008 * r * r, colour)


def abstraction(rng: Random, size: int) -> Array:
    """Circles, wedges and lines in worn colour on a warm ground."""
    sheet = _Sheet(rng, size)
    _great_circle(sheet)
    _angles(sheet)
    _strings(sheet)
    tooth = paint.relief(f32(0.35 * paint.paper_tooth(rng, size, 120)), 0.07)
    return paint.settle(sheet.image * tooth[..., None] * paint.canvas_weave(rng, size)[..., None])
