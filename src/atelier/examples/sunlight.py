"""Paintings of sunlight: a fauve harbour in big patches and a pointillist river garden."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from atelier.examples import paint
from atelier.examples.paint import Array, Random, f32, palette, points

_BOATS = [(0.52, 0.485, 0.05), (0.65, 0.56, 0.085), (0.1, 0.53, 0.06), (0.38, 0.65, 0.12)]


def _patches(rng: Random, size: int, colours: str, cells: float, stretch: float = 1.0) -> Array:
    """Neighbouring patches, each one of the colours."""
    tints = palette(colours)
    t = paint.noise(rng, size, cells, octaves=2, stretch=stretch)
    edges = np.quantile(t, np.linspace(0, 1, len(tints) + 1)[1:-1])
    return tints[np.digitize(t, edges)]


def _coast(rng: Random, size: int) -> tuple[Array, Array]:
    """Sky, hills, sea and quay in flat unnatural colours, and the direction of the brush."""
    x, y = paint.grid(size)
    image = _patches(rng, size, "6db3cf 93cbd0 f6e7b8 f9d27c f4ab92", 2, 3)
    angle = 0.35 + 0.3 * np.sin(4 * x)
    coasts = [
        (0.34 - 0.09 * np.sin(3.3 * x + 0.4), "5a4fb0 7f6cc4 c9679f", 4, 1.5, 0.4),
        (0.4 + 0.06 * np.sin(5 * x + 2.2), "1f6f7a 2f8f6b c8b83c e0703a", 5, 1.5, -0.4),
        (0.455 + 0 * x, "1d5fae 2b86bc 1aa3a8 5cc6b8 f3c48a", 9, 5.0, 0.0),
        (0.8 - 0.13 * x + 0.015 * np.sin(20 * x), "d9486a ea6a48 f2925a f7c65a", 4, 2.0, -0.25),
    ]
    for ridge, colours, cells, stretch, lean in coasts:
        mask = paint.step(-0.003, 0.003, f32(y - ridge))
        image = paint.lay(image, _patches(rng, size, colours, cells, stretch), mask)
        angle = np.where(mask > 0.5, lean, angle)
    return image, f32(angle)


def _houses(rng: Random, image: Array) -> tuple[Array, list[Array]]:
    """The town between hills and sea, and the curves of its contours."""
    size, contours = image.shape[0], []
    walls, roofs = palette("f7e3c0 f4b6a0 fdf3dd f0cf6b"), palette("e2502f c8374a f07f35")
    for x in 0.0 + 0.068 * np.arange(7) + 0.015 * rng.random(7):
        w, h = 0.07, 0.05 + 0.03 * rng.random()
        wall = f32([[x, 0.46 - h], [x + w, 0.46 - h], [x + w, 0.46], [x, 0.46]])
        roof = f32([[x - 0.008, 0.46 - h], [x + w / 2, 0.46 - h - 0.045], [x + w + 0.008, 0.46 - h]])
        door = f32([[0.4, 0.35], [0.62, 0.35], [0.62, 1.0], [0.4, 1.0]]) * f32([w, h]) + f32([x, 0.46 - h])
        for colour, outline in ((walls[rng.integers(4)], wall), (roofs[rng.integers(3)], roof)):
            image = paint.lay(image, colour, paint.shape(size, outline))
            contours.append(f32(np.vstack([outline, outline[:1]])))
        image = paint.lay(image, palette("2f6fa8")[0], paint.shape(size, door))
    return image, contours


def _boats(rng: Random, image: Array) -> tuple[Array, list[Array]]:
    """Sailing boats with their reflections, and the curves of their contours."""
    size, contours = image.shape[0], []
    hulls, sails = palette("d8352f 2a3f9b f08a2c 1f7f62"), palette("fbf0d2 f6b04a f4866f fdf7e6")
    for k, (x, y, s) in enumerate(_BOATS):
        hull = paint.spline([(-0.9, -0.12), (-0.6, 0.22), (0.6, 0.22), (1.05, -0.16)]) * s + f32([x, y])
        sail = paint.spline([(0.02, -2.3), (0.5, -1.2), (0.85, -0.35), (0.04, -0.3)]) * s + f32([x, y])
        jib = f32([[-0.06, -2.0], [-0.06, -0.35], [-0.7, -0.3]]) * s + f32([x, y])
        mirror = (sail - f32([x, y])) * f32([1, -0.55]) + f32([x, y + 0.3 * s])
        broken = paint.shape(size, f32(mirror)) * (paint.noise(rng, size, 40, stretch=5) > -0.2)
        image = paint.lay(image, sails[k], f32(0.8 * broken))
        for colour, outline in ((sails[k], sail), (sails[(k + 1) % 4], jib), (hulls[k], hull)):
            image = paint.lay(image, colour, paint.shape(size, f32(outline)))
            contours.append(f32(np.vstack([outline, outline[:1]])))
        contours.append(f32([[x, y - 2.4 * s], [x, y]]))
    return image, contours


def _pine(rng: Random, image: Array, angle: Array) -> tuple[Array, Array, list[Array]]:
    """A pine in the foreground: a vermilion trunk under clouds of green and blue."""
    size = image.shape[0]
    left = paint.spline(points("0.83 1.05, 0.84 0.8, 0.8 0.62, 0.835 0.42, 0.79 0.2"))
    right = paint.spline(points("0.825 0.2, 0.875 0.43, 0.845 0.62, 0.895 0.8, 0.92 1.05"))
    bough = paint.spline(points("0.84 0.46, 0.76 0.36, 0.66 0.3, 0.66 0.275, 0.77 0.33, 0.85 0.42"))
    trunk = np.maximum(paint.shape(size, f32(np.vstack([left, right]))), paint.shape(size, bough))
    image = paint.lay(image, _patches(rng, size, "c9302c e8602c 7b2f6f f2994a", 18, 0.5), trunk)
    angle = np.where(trunk > 0.5, 1.45, angle)
    leaves = np.zeros((size, size), np.float32)
    for x, y, r in [
        (0.66, 0.22, 0.1),
        (0.8, 0.13, 0.13),
        (0.93, 0.2, 0.11),
        (0.74, 0.07, 0.1),
        (0.97, 0.33, 0.07),
    ]:
        leaves = np.maximum(leaves, paint.disc(size, x, y, r, 0.1))
    crown = paint.step(0.46, 0.54, f32(leaves + 0.12 * paint.noise(rng, size, 14)))
    image = paint.lay(image, _patches(rng, size, "123f6b 1c7a55 0e5560 5fae4a c9c944 2a4fa3", 11), crown)
    return image, np.where(crown > 0.5, -0.7, angle).astype(np.float32), [left, right, bough]


def fauve(rng: Random, size: int) -> Array:
    """A harbour at noon in big unmixed patches, bare canvas between them."""
    image, angle = _coast(rng, size)
    image, town = _houses(rng, image)
    quay = image
    image, boats = _boats(rng, image)
    afloat = np.abs(image - quay).max(-1)
    image, angle, trunk = _pine(rng, image, angle)
    angle = f32(angle + 0.3 * paint.noise(rng, size, 5))
    canvas = paint.easel(np.broadcast_to(palette("efe3c8"), image.shape))
    passes = (
        (30, 420, 0.14, 12, 1.0),
        (17, 1300, 0.1, 9, 0.8),
        (9, 2600, 0.06, 6, 0.5),
        (5, 7000, 0.03, 4, 0.2),
    )
    for width, count, length, hairs, share in passes:
        places = paint.busy(image, paint.scatter(rng, count), share)
        colours = paint.vary(
            rng, paint.pick(paint.blur(image, paint.px(size, width / 8)), places), 0.06, 0.03
        )
        paths = paint.trace(angle, places, 12, length / 11)
        paint.brush(canvas, rng, paths, colours, width, hairs=hairs, streak=0.05)
    for curve in town:
        if paint.pick(afloat, curve).max() == 0:  # not behind a sail
            _contour(canvas, rng, curve, 1.6)
    for curve in (*boats, *trunk):
        _contour(canvas, rng, curve, 2.4)
    return paint.varnish(rng, canvas, 0.16)


def _contour(canvas: NDArray[np.uint8], rng: Random, curve: Array, thin: float) -> None:
    """Short overlapping blue strokes along a curve."""
    along = np.linspace(0, len(curve) - 1, 120)
    path = f32(np.stack([np.interp(along, np.arange(len(curve)), curve[:, k]) for k in (0, 1)], -1))
    for start in range(0, 120, 20):
        piece = path[start : start + 24] + 0.001 * rng.standard_normal((1, 2))
        width = thin * (1 + 0.9 * rng.random())
        blue = paint.vary(rng, palette("20306f"), 0.2, 0.04)
        paint.brush(canvas, rng, f32(piece[None]), blue, width, hairs=3, ragged=0.1)


def _riverside(rng: Random, size: int) -> Array:
    """Sky, far bank, river and lawn with long shadows."""
    x, y = paint.grid(size)
    wisps = 0.2 * paint.noise(rng, size, 5, stretch=3)
    image = paint.ramp(f32(np.clip(y / 0.36 + wisps, 0, 1)), palette("7fb0df a9cbe6 f4e3c6 fbe0a8"))
    far = 0.3 + 0.03 * np.sin(9 * x) + 0.025 * paint.noise(rng, size, 7)[0]
    trees = paint.ramp(
        f32(np.clip(0.5 + 0.35 * paint.noise(rng, size, 14), 0, 1)), palette("3b4f93 3f7f74 8cae62 d8c978")
    )
    image = paint.lay(image, trees, paint.step(-0.004, 0.004, f32(y - far)))
    ripples = 0.5 + 0.3 * paint.noise(rng, size, 26, stretch=6) + 0.3 * np.sin(4 * x - 1)
    water = paint.ramp(f32(np.clip(ripples, 0, 1)), palette("3f6fb5 6fa3d2 a9cfdc f7e6bd"))
    image = paint.lay(image, water, paint.step(-0.003, 0.003, y - 0.39))
    bank = 0.74 - 0.34 * np.maximum(0, 0.75 - x) ** 1.2 + 0.006 * paint.noise(rng, size, 12)[0]
    lawn = paint.ramp(
        f32(np.clip(1.5 * (y - 0.5) + 0.2 * paint.noise(rng, size, 9), 0, 1)),
        palette("e6d67c b0c45c 82b055 5a9350"),
    )
    shade = paint.step(-0.4, 0.5, f32(paint.noise(rng, size, 5, stretch=3) + 3.5 * (y - 0.86)))
    lawn = paint.lay(lawn, paint.ramp(f32(y), palette("27408b 2d5f7f 2b5a70 3b3f86")), 0.85 * shade)
    return paint.lay(image, lawn, paint.step(-0.003, 0.003, f32(y - bank)))


def _sails(image: Array) -> Array:
    size = image.shape[0]
    for x, y, s in ((0.5, 0.46, 0.07), (0.66, 0.43, 0.045), (0.87, 0.52, 0.1)):
        sail = f32([[0, -1.7], [0.75, -0.1], [0, -0.1]]) * s + f32([x, y])
        hull = f32([[-0.6, 0], [0.8, 0], [0.5, 0.2], [-0.4, 0.2]]) * s + f32([x, y])
        mirror = f32([[0, 0.25], [0.7, 0.25], [0.1, 1.3]]) * s + f32([x, y])
        for colour, outline, strength in (("fff4dc", sail, 1), ("8c3b52", hull, 1), ("f3dfc0", mirror, 0.6)):
            image = paint.lay(image, palette(colour)[0], f32(strength * paint.shape(size, outline)))
    return image


def _strollers(image: Array) -> Array:
    """Ladies with parasols on the lawn, their shadows falling to the left."""
    size = image.shape[0]
    people = [
        (0.6, 0.9, 0.15, "c23b5a f28c3a"),
        (0.42, 0.72, 0.08, "34418f e8546a"),
        (0.75, 0.8, 0.1, "7a3f94 f6c945"),
    ]
    for x, y, s, colours in people:
        dress, parasol = palette(colours)
        skirt = paint.spline(points("-0.1 -1.0, -0.15 -0.6, -0.4 0, 0.36 0, 0.14 -0.6, 0.1 -1.0")) * s
        shadow = skirt * f32([0.4, -0.22]) + f32([-0.45, 0.02]) * s
        shadow[:, 0] += 1.6 * shadow[:, 1]
        top = paint.spline(points("-0.62 -1.2, -0.4 -1.55, 0.05 -1.72, 0.5 -1.55, 0.68 -1.2")) * s
        image = paint.lay(image, palette("26357a")[0], 0.7 * paint.shape(size, f32(shadow + f32([x, y]))))
        image = paint.lay(image, dress, paint.shape(size, f32(skirt + f32([x, y]))))
        image = paint.lay(image, palette("f0c7a0")[0], paint.disc(size, x, y - 1.1 * s, 0.09 * s))
        image = paint.lay(image, parasol, paint.shape(size, f32(top + f32([x, y]))))
    return image


def _foliage(rng: Random, image: Array) -> Array:
    """The tree that frames the left side."""
    size = image.shape[0]
    x, _ = paint.grid(size)
    trunk = paint.spline(
        points("0.08 1.0, 0.105 0.7, 0.09 0.4, 0.12 0.1, 0.17 0.1, 0.155 0.4, 0.18 0.7, 0.22 1.0")
    )
    bark = paint.ramp(f32(np.clip((x - 0.08) / 0.11, 0, 1)), palette("3a2a63 6a3f5f c77a45 f0b45c"))
    image = paint.lay(image, bark, paint.shape(size, trunk))
    cover = np.zeros((size, size), np.float32)
    for cx, cy, r in (
        (0.1, 0.1, 0.2),
        (0.3, 0.04, 0.15),
        (0.02, 0.32, 0.13),
        (0.28, 0.2, 0.08),
        (0.47, 0.0, 0.08),
    ):
        cover = np.maximum(cover, paint.disc(size, cx, cy, r, 0.12))
    mask = paint.step(0.44, 0.56, f32(cover + 0.13 * paint.noise(rng, size, 16)))
    tone = np.clip(0.42 + 0.3 * paint.noise(rng, size, 10) + 0.5 * (x - 0.15), 0, 1)
    return paint.lay(image, paint.ramp(f32(tone), palette("22346f 1f5f5a 3f864a 86ad4c d9cc6a")), mask)


def _dots(canvas: NDArray[np.uint8], rng: Random, scene: Array, count: int, radius: float) -> None:
    """One pass of dots: pure colours round the scene's, and now and then the complement."""
    size, places = scene.shape[0], paint.scatter(rng, count)
    local = paint.pick(scene, places)
    grey = local.mean(-1, keepdims=True)
    pure = grey + (local - grey) * (0.9 + 0.5 * rng.random((len(places), 1)))
    pure = pure + 0.08 * rng.standard_normal(pure.shape)
    opposite = rng.random((len(places), 1)) < 0.09
    colours = np.where(opposite, grey - 0.9 * (local - grey) + 0.08, pure).clip(0, 1)
    ink = np.concatenate([colours, 0.5 + 0.5 * rng.random((len(places), 1))], -1) * 255
    axes = np.maximum(8, paint.px(size, radius) * (0.7 + 0.5 * rng.random((len(places), 2))) * 16).astype(int)
    for centre, axis, turn, colour in zip(
        paint.fixed(places, size), axes, rng.integers(0, 180, len(places)), ink, strict=True
    ):
        cv2.ellipse(
            canvas, centre.tolist(), axis.tolist(), int(turn), 0, 360, colour.tolist(), -1, cv2.LINE_AA, 4
        )


def garden(rng: Random, size: int) -> Array:
    """A riverside in dots of pure and complementary colour."""
    scene = _foliage(rng, _strollers(_sails(_riverside(rng, size))))
    canvas = paint.easel(paint.lay(scene * 0.5, palette("f2e6cc")[0], f32(np.full((size, size), 0.5))))
    for count, radius in ((9000, 5.4), (15000, 3.8), (19000, 2.7)):
        _dots(canvas, rng, scene, count, radius)
    return paint.varnish(rng, canvas, 0.07)
