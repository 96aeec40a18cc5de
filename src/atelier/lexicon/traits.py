"""Traits that words name and pixels show: light, contrast, colours, and the marks of the brush.

Each trait is a number that grows with what its word says; only its rank among all paintings is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from atelier.colour import cielab
from atelier.images import Picture, fit

Floats = npt.NDArray[np.float32]

#: The long side at which traits are measured.
SIDE = 512

#: The words of each trait: for a high value, and for a low one where a word says that.
WORDS: Mapping[str, tuple[str, str]] = {
    "lightness": ("light", "dark"),
    "contrast": ("high contrast", "low contrast"),
    "chroma": ("colourful", "muted"),
    "warmth": ("warm", "cold"),
    "red": ("red", ""),
    "orange": ("orange", ""),
    "yellow": ("yellow", ""),
    "green": ("green", ""),
    "turquoise": ("turquoise", ""),
    "blue": ("blue", ""),
    "violet": ("violet", ""),
    "pink": ("pink", ""),
    "brown": ("brown", ""),
    "gold": ("gold", ""),
    "white": ("white", ""),
    "grey": ("grey", ""),
    "black": ("black", ""),
    "dots": ("dots", ""),
    "lines": ("lines", ""),
    "patches": ("patches", ""),
    "flatness": ("flat", ""),
    "fineness": ("fine", ""),
    "roughness": ("rough", "smooth"),
}
#: The kind of word of each trait that is not a colour.
KINDS = {"lightness": "light", "contrast": "light", "chroma": "light", "warmth": "light"} | dict.fromkeys(
    ("dots", "lines", "patches", "flatness", "fineness", "roughness"), "mark"
)


def measured(picture: Picture) -> dict[str, float]:
    """The traits of a picture, by name, in the order of `WORDS`."""
    view = View.of(picture.resized(fit(picture.shape, SIDE)).pixels)
    return {name: float(_MEASURES[name](view)) for name in WORDS}


@dataclass(frozen=True)
class View:
    """A picture in CIELAB (H, W): lightness 0..100, chroma, hue in degrees; and its lightness smoothed."""

    lightness: Floats
    chroma: Floats
    hue: Floats
    warmth: Floats
    soft: Floats
    fine: Floats
    middle: Floats

    @classmethod
    def of(cls, pixels: Floats) -> View:
        """The view of sRGB pixels (H, W, 3) in 0..1."""
        lightness, a, b = np.moveaxis(cielab.to_lab(np.ascontiguousarray(pixels)), 2, 0)
        lightness = np.ascontiguousarray(lightness)
        low, lower = (cv2.GaussianBlur(lightness, (0, 0), sigma) for sigma in (1.5, 5.0))
        return cls(
            lightness=lightness,
            chroma=np.hypot(a, b),
            hue=np.degrees(np.arctan2(b, a)) % 360,
            # From blue-green to orange.
            warmth=(b + 0.5 * a).astype(np.float32),
            soft=cv2.GaussianBlur(lightness, (0, 0), 1.0).astype(np.float32),
            fine=np.asarray(lightness - low, np.float32),
            middle=np.asarray(low - lower, np.float32),
        )

    def hues(
        self, first: float, last: float, light: tuple[float, float] = (0, 100), chroma: float = 8
    ) -> float:
        """The share of pixels whose hue lies from `first` to `last` degrees, weighted by their chroma."""
        inside = (self.hue - first) % 360 < (last - first) % 360
        inside &= (self.lightness >= light[0]) & (self.lightness < light[1])
        return float((np.clip((self.chroma - chroma) / 20, 0, 1) * inside).mean())

    def towards(self, hue: float) -> float:
        """How far the mean colour lies towards a hue: a picture is blue that is so as a whole."""
        return float((self.chroma * np.cos(np.radians(self.hue - hue))).mean())

    def greys(self, dark: float, light: float, chroma: float) -> float:
        """The share of pixels of a lightness and with little chroma."""
        inside = (self.lightness >= dark) & (self.lightness < light) & (self.chroma < chroma)
        return float(inside.mean())


def _contrast(view: View) -> float:
    return float(view.lightness.std())


def _share(band: Floats, view: View) -> float:
    """The contrast of a detail band against that of the whole; 2 shades are noise."""
    return float(band.std()) / (_contrast(view) + 2)


def _roundness(view: View) -> float:
    """How far the surface at 2 px is curved as by dots, alike in all directions, and not as by lines."""
    soft = cv2.GaussianBlur(view.lightness, (0, 0), 2.0)
    across, down, both = (cv2.Sobel(soft, cv2.CV_64F, *order) for order in ((2, 0), (0, 2), (1, 1)))
    determinant = across * down - both * both
    size = across**2 + down**2 + 2 * both**2
    return float(np.maximum(determinant, 0).sum() / (size.sum() + 1e-9))


def _drawn(view: View) -> float:
    """The mean depth of thin dark structures, which the closing by a disc of 7 px fills."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    return float(cv2.morphologyEx(view.lightness, cv2.MORPH_BLACKHAT, disc).mean())


def _tensor(view: View) -> tuple[Floats, Floats]:
    """The trace of the structure tensor over 4 px, and how far one direction prevails, 0..1."""
    across, down = (cv2.Sobel(view.soft, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    products = (across * across, across * down, down * down)
    xx, xy, yy = (cv2.GaussianBlur(one, (0, 0), 4.0) for one in products)
    trace = xx + yy
    coherence = np.sqrt((xx - yy) ** 2 + 4 * xy**2) / (trace + 1e-6)
    return trace.astype(np.float32), coherence.astype(np.float32)


def _coherence(view: View) -> float:
    """How far the edges are those of patches: of one direction each, with little texture beside them."""
    trace, coherence = _tensor(view)
    return float((coherence * trace).sum() / (trace.sum() + 1e-6))


def _flatness(view: View) -> float:
    """The share of pixels round which next to nothing changes."""
    return float((np.sqrt(_tensor(view)[0]) < 4).mean())


_MEASURES: Mapping[str, Callable[[View], float]] = {
    "lightness": lambda view: float(view.lightness.mean()),
    "contrast": _contrast,
    "chroma": lambda view: float(view.chroma.mean()),
    "warmth": lambda view: float(view.warmth.mean()),
    "red": lambda view: view.towards(35),
    "orange": lambda view: view.towards(65),
    "yellow": lambda view: view.towards(95),
    "green": lambda view: view.towards(145),
    "turquoise": lambda view: view.towards(205),
    "blue": lambda view: view.towards(280),
    "violet": lambda view: view.towards(320),
    "pink": lambda view: view.hues(340, 30, (60, 100)),
    "brown": lambda view: view.hues(40, 85, (0, 50)),
    "gold": lambda view: view.hues(65, 95, (45, 80), 30),
    "white": lambda view: view.greys(85, 101, 14),
    "grey": lambda view: view.greys(25, 80, 9),
    "black": lambda view: view.greys(0, 18, 14),
    "dots": _roundness,
    "lines": _drawn,
    "patches": _coherence,
    "flatness": _flatness,
    "fineness": lambda view: _share(view.fine, view),
    "roughness": lambda view: _share(view.middle, view),
}
