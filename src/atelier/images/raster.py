"""`Raster`: stored samples before colour management, and the way from them to sRGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from atelier.images import profiles
from atelier.images.arrays import Decoded, Floats, as_rgb, to_unit, upright

Mode = Literal["L", "RGB", "CMYK", "LAB"]


@dataclass
class Raster:
    """What a decoder delivers: samples in the file's own colour space, transparency apart.

    `colour` is (H, W, C): uint8 where the file has 8 bits or fewer, else float32 0..1. `mode` is the colour
    space in Pillow's words; CMYK counts ink (0 is paper), LAB is uint8 with a* and b* as signed bytes.
    `alpha` is (H, W) float32 0..1 or None. `orientation` is EXIF's, still to be applied.
    """

    colour: npt.NDArray[Any]
    mode: Mode
    alpha: Floats | None = None
    orientation: int = 1

    def to_srgb(self, profile: bytes | None, recipe: dict[str, Any] | None = None) -> Decoded:
        """The picture upright and in sRGB. A profile that is broken or of another colour space is ignored."""
        turned = np.ascontiguousarray(upright(self.colour, self.orientation))
        alpha = None if self.alpha is None else np.ascontiguousarray(upright(self.alpha, self.orientation))
        if turned.dtype == np.uint8:
            pixels = _eight_bits(turned, self.mode, profile)
        elif self.mode == "CMYK":
            pixels = _deep_inks(turned, profile)
        else:
            pixels = profiles.array_to_srgb(as_rgb(turned), profile)
        return Decoded(pixels, alpha, recipe)


def _eight_bits(colour: npt.NDArray[np.uint8], mode: Mode, profile: bytes | None) -> Floats:
    height, width = colour.shape[:2]
    image = Image.frombuffer(mode, (width, height), colour, "raw", mode, 0, 1)
    return to_unit(np.asarray(profiles.image_to_srgb(image, profile)), "the picture")


def _deep_inks(colour: Floats, profile: bytes | None) -> Floats:
    """CMYK of more than 8 bits; a profile of inks is a look-up table, which LittleCMS applies to 8 bits."""
    if profile:
        return _eight_bits(np.rint(colour * 255).astype(np.uint8), "CMYK", profile)
    return np.asarray((1 - colour[..., :3]) * (1 - colour[..., 3:]), np.float32)
