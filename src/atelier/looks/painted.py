"""Brush looks: cartoons, Kuwahara, oil, watercolour, ink wash.

Pictures are float32 (H, W, 3) sRGB in 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from atelier.colour.cielab import from_lab, lightness, to_lab
from atelier.colour.palette import nearest, palette
from atelier.filtering import noise as grain
from atelier.filtering.kuwahara import anisotropic_kuwahara, kuwahara
from atelier.filtering.structure_tensor import blur, directions, flow, smooth_along, structure_tensor
from atelier.filtering.xdog import flow_lines
from atelier.looks.base import Hand, contrast, deep, tone, vivid
from atelier.maths.compiled import floats

Floats = npt.NDArray[np.float32]


def bilateral_cartoon(image: Floats, hand: Hand) -> Floats:
    """A cartoon: bilateral filtering, lightness in soft steps, and flow-based lines.

    Winnemöller, Olsen & Gooch, "Real-time video abstraction", 2006, whose lines are not flow-based.
    """
    lab = to_lab(image)
    for _ in range(3):
        lab = floats(cv2.bilateralFilter(lab, 0, 7.0, 2.6 * hand.unit))
    flat = from_lab(_toon_steps(lab, 9))
    return _lined(vivid(flat, 1.35), image, hand, 1.1)


def _toon_steps(lab: Floats, steps: int) -> Floats:
    """Quantises lightness in soft steps, whose edges are as sharp as the picture's (eq. 6)."""
    width = 100 / steps
    light = lab[..., 0]
    near = np.rint(light / width) * width
    slope = np.hypot(*np.gradient(light)) if min(light.shape) > 1 else np.zeros_like(light)
    sharpness = 0.15 + 0.35 * (slope / 3).clip(0, 1)
    stepped = lab.copy()
    stepped[..., 0] = near + width / 2 * np.tanh(sharpness * (light - near)) / np.tanh(
        0.5 * width * sharpness
    )
    return stepped


def _lined(painted: Floats, image: Floats, hand: Hand, width: float) -> Floats:
    if hand.lines <= 0:
        return painted
    calm = floats(cv2.bilateralFilter(contrast(image), 5, 0.06, 2 * hand.unit))
    vectors, _ = flow(blur(image, hand.unit), 2.0 * hand.unit)
    lines = flow_lines(calm, vectors, width * hand.unit, weight=hand.lines)
    ink = np.asarray((0.06, 0.05, 0.07), np.float32)
    return floats(ink + (painted - ink) * lines[..., None])


def guided_cartoon(image: Floats, hand: Hand) -> Floats:
    """A cel: the guided filter (He, Sun & Tang, 2013) flattens surfaces; a small palette, bold lines."""
    smooth = image
    for _ in range(3):
        smooth = floats(cv2.ximgproc.guidedFilter(smooth, smooth, max(1, round(6 * hand.unit)), 4e-3))
    lab = to_lab(vivid(smooth.clip(0, 1), 1.6))
    lab[..., 0] = 0.4 * lab[..., 0] + 0.6 * (12 + 88 * tone(smooth.clip(0, 1)))
    colours = palette(lab, 18, hand.seed)
    painted = colours[nearest(lab.reshape(-1, 3), colours)].reshape(lab.shape)
    cells = cv2.medianBlur((from_lab(painted) * 255).astype(np.uint8), 5)
    return _lined(blur(floats(cells / 255), 0.6), image, hand, 1.5)


def plain_kuwahara(image: Floats, hand: Hand) -> Floats:
    """The Kuwahara filter."""
    return kuwahara(image, max(1, round(5 * hand.unit)))


def flowing_kuwahara(image: Floats, hand: Hand) -> Floats:
    """The anisotropic Kuwahara filter."""
    return anisotropic_kuwahara(image, 6 * hand.unit, sigma=2 * hand.unit)


def oil(image: Floats, hand: Hand) -> Floats:
    """Oil on canvas: anisotropic Kuwahara, bristle marks along the flow, and a lit paint relief."""
    size = image.shape[:2]
    # A small random displacement first, so that surfaces do not look filtered.
    base = anisotropic_kuwahara(_dabbed(image, hand), 6 * hand.unit, sigma=2.5 * hand.unit)
    vectors = _brush_directions(base, hand)
    hairs = [
        grain.noise(size, width * hand.unit, hand.seed + index) for index, width in enumerate((1.6, 5.0))
    ]
    fine, coarse = np.moveaxis(smooth_along(floats(np.stack(hairs, axis=2)), vectors, 15 * hand.unit), 2, 0)
    bristles = fine / max(float(fine.std()), 1e-6) + 1.2 * coarse / max(float(coarse.std()), 1e-6)
    light = lightness(base)
    relief = 0.36 * bristles + 9 * (light - blur(light, 3 * hand.unit))
    relief = relief + 0.2 * hand.surface * grain.canvas(size, hand.unit, hand.seed + 2)
    lab = to_lab(vivid(base, 1.5))
    lab[..., 0] = 50 + 1.08 * (lab[..., 0] - 50) + 0.9 * bristles
    return floats((from_lab(lab) * grain.lit(relief, strength=0.26)[..., None]).clip(0, 1))


def _brush_directions(image: Floats, hand: Hand) -> Floats:
    """Directions (H, W, 2) of the brush: along clear edges, else a direction that varies slowly."""
    tensor = structure_tensor(image, 5 * hand.unit)
    angle = 0.6 + 0.9 * grain.noise(image.shape[:2], 130 * hand.unit, hand.seed + 9)
    x, y = np.cos(angle), np.sin(angle)
    # The tensor holds gradients, which are perpendicular to the stroke.
    own = np.stack([y * y, -x * y, x * x], axis=2)
    return directions(floats(tensor + 3e-4 * own))[0]


def _dabbed(image: Floats, hand: Hand) -> Floats:
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for axis, offset in ((x, 7), (y, 8)):
        axis += 1.0 * hand.unit * grain.noise((height, width), 14 * hand.unit, hand.seed + offset)
    return floats(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def watercolour(image: Floats, hand: Hand) -> Floats:
    """Watercolour with varying pigment density, dark wash edges and paper grain.

    Bousseau et al., "Interactive watercolor rendering with temporal coherence and abstraction", 2006.
    """
    size, unit = image.shape[:2], hand.unit
    lab = to_lab(vivid(image, 1.45))
    light = tone(image)
    lab[..., 0] = 100 * (0.22 + 0.78 * light**0.8)  # transparent paint is light and never black
    flat = anisotropic_kuwahara(from_lab(lab), 7 * unit, sigma=3 * unit, sharpness=10)
    flat = _wobbled(flat, hand)
    washes = _washes(flat, hand)
    edges = _edge_darkening(washes, unit)
    turbulence = grain.noise(size, 90 * unit, hand.seed + 11, octaves=4)
    granules = grain.paper(size, unit, hand.seed + 12)
    density = 1 + 1.3 * hand.lines * edges + 0.16 * turbulence - 0.10 * hand.surface * granules
    painted = _pigment(washes, density)
    shade = grain.lit(granules * 0.5 * unit, strength=0.12 * hand.surface)
    return floats((painted * shade[..., None] * np.asarray((1.0, 0.995, 0.98), np.float32)).clip(0, 1))


def _pigment(colour: Floats, density: Floats) -> Floats:
    """C' = C (1 - (1 - C) (d - 1)): Bousseau's eq. 1."""
    return floats((colour * (1 - (1 - colour) * (density[..., None] - 1))).clip(0, 1))


def _wobbled(image: Floats, hand: Hand) -> Floats:
    """Displaces the picture along noise, so that outlines look hand-drawn on rough paper."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for axis, offset in ((x, 21), (y, 22)):
        axis += 1.6 * hand.unit * grain.noise((height, width), 26 * hand.unit, hand.seed + offset, octaves=3)
    return floats(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _washes(image: Floats, hand: Hand) -> Floats:
    """Quantises lightness into overlaid flat washes with soft borders."""
    lab = to_lab(image)
    steps = 11.0
    lab[..., 0] += 1.5 * grain.noise(image.shape[:2], 60 * hand.unit, hand.seed + 31, octaves=2)
    near = np.rint(lab[..., 0] / steps) * steps
    lab[..., 0] = near + steps / 2 * np.tanh(0.35 * (lab[..., 0] - near)) / np.tanh(0.175 * steps)
    return from_lab(lab)


def _edge_darkening(image: Floats, unit: float) -> Floats:
    """Edge darkening (H, W) 0..1: pigment gathers in thin lines along the border of a wash."""
    light = lightness(image)
    inner = blur(light, 1.2 * unit) - blur(light, 4.0 * unit)
    slope = np.hypot(*np.gradient(blur(light, 0.8 * unit))) if min(light.shape) > 1 else np.zeros_like(light)
    return floats((12 * np.maximum(0, -inner) + 4 * slope).clip(0, 1))


def ink_wash(image: Floats, hand: Hand) -> Floats:
    """Sumi-e: a few bleeding ink washes, brush lines of varying width, and much white paper."""
    size, unit = image.shape[:2], hand.unit
    calm = _wobbled(anisotropic_kuwahara(image, 7 * unit, sigma=3 * unit, sharpness=10), hand)
    light = tone(calm)
    wet = 0.5 + 0.5 * np.tanh(1.5 * grain.noise(size, 70 * unit, hand.seed + 51, octaves=2))
    light = light + wet * (blur(light, 7 * unit) - light)
    density = np.zeros(size, np.float32)
    for level, weight in ((0.68, 0.16), (0.47, 0.30), (0.29, 0.55), (0.15, 1.1)):
        softness = 0.012 + 0.05 * wet
        wash = 0.5 - 0.5 * np.tanh((light - level) / softness)
        density += weight * (wash + 0.5 * (1 - wet) * 4 * wash * (1 - wash))
    granules = grain.paper(size, unit, hand.seed + 52)
    cloud = grain.noise(size, 110 * unit, hand.seed + 53, octaves=4)
    density *= 1 + 0.22 * cloud + 0.10 * hand.surface * granules
    density += 1.7 * _brush_lines(image, hand, granules)
    ink = np.asarray((0.13, 0.13, 0.145), np.float32)
    if hand.inks == "colour":
        ink = deep(calm)
    sheet = np.asarray((0.965, 0.95, 0.91), np.float32) * (1 + 0.01 * hand.surface * granules[..., None])
    return floats((sheet * ink ** (0.62 * np.maximum(density, 0)[..., None])).clip(0, 1))


def _brush_lines(image: Floats, hand: Hand, granules: Floats) -> Floats:
    """Outlines (H, W) 0..1 of a soft brush: their width varies, and they break up where the brush is dry."""
    if hand.lines <= 0:
        return np.zeros(image.shape[:2], np.float32)
    calm = floats(cv2.bilateralFilter(contrast(image), 0, 0.1, 3 * hand.unit))
    vectors, _ = flow(blur(image, 1.5 * hand.unit), 3 * hand.unit)
    thin = 1 - flow_lines(calm, vectors, 1.2 * hand.unit, weight=0.8 * hand.lines)
    thick = 1 - flow_lines(calm, vectors, 2.6 * hand.unit, weight=0.8 * hand.lines, along=4.0)
    load = 0.5 + 0.5 * np.tanh(2 * grain.noise(image.shape[:2], 60 * hand.unit, hand.seed + 54))
    brush = np.maximum(thin * (1 - 0.6 * load), thick * load)
    dry = (0.75 + 0.5 * load + 0.3 * hand.surface * granules).clip(0, 1)
    return floats(brush * dry)
