"""`Raster`: stored samples before colour management, and the way from them to sRGB."""

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
    """What a decoder delivers: samples in the file's own colour space, transparency apart.

    `colour` is (H, W, C): uint8 where the file has 8 bits or fewer, else float32 0..1. `mode` is the colour
    space in Pillow's words; CMYK counts ink (0 is paper), LAB is uint8 with a* and b* as signed
    bytes, or floats in CIELAB's own units (L* 0..100). `alpha` is (H, W) float32 0..1 or None.
    `orientation` is EXIF's, still to be applied.
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
        """The picture upright and in sRGB. A profile that is broken or of another colour space is ignored."""
        turned = np.ascontiguousarray(upright(self.colour, self.orientation))
        alpha = None if self.alpha is None else np.ascontiguousarray(upright(self.alpha, self.orientation))
        pixels = profiles.to_srgb(turned, self.mode, profile)
        if metadata.dpi is not None and self.orientation in (5, 6, 7, 8):
            metadata = replace(metadata, dpi=metadata.dpi[::-1])
        return Decoded(pixels, alpha, recipe, metadata)
