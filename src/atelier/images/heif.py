"""HEIC, through the optional package pillow-heif."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from atelier.core.extras import require
from atelier.images import colourspace, metadata, pil, receipts
from atelier.images.arrays import Decoded, check_size, straight, to_unit
from atelier.images.raster import Raster

_DESCRIPTION = 270


def opened(data: bytes) -> Any:
    """The primary picture as a `pillow_heif.HeifFile`, not decoded; its size is that of the upright picture.

    Raises ResourceError if pillow-heif is not installed, and ValueError for damaged data.
    """
    pillow_heif = require("pillow_heif", "heif", "a HEIC picture")
    with pil.quiet():
        return pillow_heif.open_heif(BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)


def decode(data: bytes, name: str, max_pixels: int, *, as_data: bool = False) -> Decoded:
    """The picture in sRGB, which libheif turns upright.

    Raises the errors of `opened`, and InputError above `max_pixels`.
    """
    file = opened(data)
    check_size(file.size, f"'{name}'", max_pixels)
    values = np.asarray(file)
    values = values[..., None] if values.ndim == 2 else values
    if values.dtype != np.uint8:  # 10 or 12 bits, stored in 16
        top = 2 ** int(file.info["bit_depth"]) - 1
        values = (values / np.float32(top)).astype(np.float32)
    colours = 1 if values.shape[2] < 3 else 3
    colour, alpha = values[..., :colours], None
    if values.shape[2] in (2, 4):
        alpha = to_unit(values[..., -1], f"'{name}'")
        if file.premultiplied_alpha:
            colour = straight(to_unit(colour, f"'{name}'"), alpha)
    raster = Raster(colour, "L" if colours == 1 else "RGB", alpha)
    profile = None if as_data else colourspace.of_info(file.info)
    return raster.to_srgb(profile, recipe(file), metadata.of_info(file.info))


def recipe(file: Any) -> dict[str, Any] | None:
    """The recipe in the EXIF of an opened file; broken EXIF counts as none."""
    exif = Image.Exif()
    try:
        exif.load(file.info.get("exif") or b"")
        return receipts.parse(exif.get(_DESCRIPTION))
    except Exception:  # Pillow raises many things over broken EXIF, and none matters to the picture.
        return None
