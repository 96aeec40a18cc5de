"""16-bit PNG in colour or with alpha, decoded by libpng (imagecodecs); Pillow reduces it to 8 bits."""

from __future__ import annotations

from atelier.images.arrays import to_unit
from atelier.images.raster import Raster

# Offsets of the bit depth and colour type in the image header, which comes first (PNG 11.2.1).
_DEPTH, _COLOUR_TYPE = 24, 25
_GREY = 0


def is_deep(data: bytes) -> bool:
    """Whether a PNG file has samples that Pillow would reduce to 8 bits: 16-bit colour or alpha."""
    return data[_DEPTH] == 16 and data[_COLOUR_TYPE] != _GREY


def decode(data: bytes, name: str, orientation: int) -> Raster:
    """The samples of a deep PNG file, with the tRNS colour as alpha; `name` is for error messages.

    Only for files that Pillow has loaded: imagecodecs miscounts references when libpng fails, and on Python
    3.11 a few thousand failures crash the process. Raises the errors of imagecodecs.
    """
    import imagecodecs

    values = to_unit(imagecodecs.png_decode(data), f"'{name}'")
    channels = values.shape[2]
    colours = 1 if channels == 2 else 3
    alpha = values[..., -1] if channels in (2, 4) else None
    return Raster(values[..., :colours], "L" if colours == 1 else "RGB", alpha, orientation)
