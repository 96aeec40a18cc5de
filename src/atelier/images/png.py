"""PNG of 16 bits in colour or with alpha, by libpng (imagecodecs): Pillow reduces those to 8 bits."""

from __future__ import annotations

from atelier.images.arrays import to_unit
from atelier.images.raster import Raster

# Where the image header (PNG 11.2.1), which comes first, has the bit depth and the colour type.
_DEPTH, _COLOUR_TYPE = 24, 25
_GREY = 0


def is_deep(data: bytes) -> bool:
    """Whether a PNG file has samples that Pillow cannot hold; plain grey of 16 bits it can."""
    return data[_DEPTH] == 16 and data[_COLOUR_TYPE] != _GREY


def decode(data: bytes, name: str, orientation: int) -> Raster:
    """The samples of a deep PNG file, a transparent colour (tRNS) as alpha; `name` is for error messages.

    Only for files that Pillow has loaded. imagecodecs miscounts references where libpng fails, and on Python
    3.11 some thousand failures end the process. Raises what imagecodecs raises.
    """
    import imagecodecs

    values = to_unit(imagecodecs.png_decode(data), f"'{name}'")
    channels = values.shape[2]
    colours = 1 if channels == 2 else 3
    alpha = values[..., -1] if channels in (2, 4) else None
    return Raster(values[..., :colours], "L" if colours == 1 else "RGB", alpha, orientation)
