"""PNG: pixels by libpng (imagecodecs), at every depth and with tRNS applied; metadata by Pillow.

Pillow reduces 16-bit colour to 8 bits, and compares a transparent colour key with values that it has scaled.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from atelier.images.arrays import to_unit
from atelier.images.raster import Raster

_SIGNATURE = 8


def decode(data: bytes, name: str, orientation: int) -> Raster:
    """The samples of a PNG file. Raises what imagecodecs raises over damaged data."""
    import imagecodecs

    values = imagecodecs.png_decode(data)
    if values.ndim == 2:
        values = values[..., None]
    channels = values.shape[2]
    colours = 1 if channels < 3 else 3
    colour = values[..., :colours]
    alpha = to_unit(values[..., -1], f"'{name}'") if channels in (2, 4) else None
    if values.dtype != np.uint8:
        colour = to_unit(colour, f"'{name}'")
    return Raster(colour, "L" if colours == 1 else "RGB", alpha, orientation)


def add_late_exif(image: Image.Image, data: bytes) -> None:
    """Gives an opened image the EXIF of an eXIf chunk behind the pixels, or empty EXIF.

    Where there is neither, Pillow would decode the pixels in search of it.
    """
    if "exif" not in image.info and "Raw profile type exif" not in image.info:
        found = next((body for kind, body in _chunks(data) if kind == b"eXIf"), None)
        image.info["exif"] = b"" if found is None else b"Exif\0\0" + found


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = _SIGNATURE
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += 12 + length
