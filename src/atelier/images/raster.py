"""`Raster`: stored samples before colour management, and their conversion to sRGB."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from atelier.images import profiles
from atelier.images.arrays import Decoded, Floats, upright
from atelier.images.metadata import NO_METADATA, Metadata
from atelier.images.profiles import Mode

__all__ = ["Mode", "Raster"]


@dataclass
class Raster:
    """The output of a decoder: samples in the colour space of the file, with separate alpha.

    `colour` is (H, W, C): uint8 if the file has 8 bits or fewer, else float32 0..1. `mode` is Pillow's name
    of the colour space. CMYK values are amounts of ink (0 is paper); LAB is uint8 with a* and b* as signed
    bytes, or floats in CIELAB units (L* 0..100). `alpha` is (H, W) float32 0..1 or None. `orientation` is the
    EXIF orientation, not yet applied.
    """

    colour: npt.NDArray[Any]
    mode: Mode
    alpha: Floats | None = None
    orientation: int = 1

    def to_srgb(
        self,
        profile: bytes | None,
        recipe: dict[str, Any] | None = None,
        metadata: Metadata = NO_METADATA,
    ) -> Decoded:
        """The picture, upright and in sRGB. Broken profiles and those of other colour spaces are ignored."""
        turned = np.ascontiguousarray(upright(self.colour, self.orientation))
        alpha = None if self.alpha is None else np.ascontiguousarray(upright(self.alpha, self.orientation))
        pixels = profiles.to_srgb(turned, self.mode, profile)
        if metadata.dpi is not None and self.orientation in (5, 6, 7, 8):
            metadata = replace(metadata, dpi=metadata.dpi[::-1])
        return Decoded(pixels, alpha, recipe, metadata)
