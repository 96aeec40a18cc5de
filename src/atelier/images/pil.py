"""Files that Pillow decodes, and PIL images from callers: any mode, transparency and orientation."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from atelier.core.errors import InputError, ResourceError, first_line
from atelier.images import colourspace, metadata, receipts
from atelier.images.arrays import MAX_PIXELS, Decoded, Floats, check_size, to_unit
from atelier.images.raster import Mode, Raster

_ORIENTATION = 274
_NATIVE: dict[str, Mode] = {"L": "L", "RGB": "RGB", "CMYK": "CMYK", "LAB": "LAB"}
# Pillow's scale factors for the grey of PNG files with fewer than 8 bits. It does not scale tRNS keys.
_KEY_SCALES = {"L;2": 85, "L;4": 17}
_END_OF_IMAGE = b"\xff\xd9"

_settings = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Disables Pillow's warnings and pixel limit, which are process-wide, so keep the block short."""
    with _settings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def opened(data: bytes, kind: str) -> Image.Image:
    """An image with its header read but not its pixels. `kind` is Pillow's name for the format."""
    if kind == "AVIF" and not features.check("avif"):
        raise ResourceError("this build of Pillow cannot read AVIF: pip install --upgrade pillow")
    with quiet():
        return Image.open(BytesIO(data), formats=[kind])


def loaded(image: Image.Image, data: bytes, kind: str) -> Image.Image:
    """The image with its pixels loaded; a JPEG that lacks only its end marker counts as complete.

    Raises OSError for other truncated files.
    """
    try:
        image.load()
    except OSError as error:
        whole = _with_end_marker(data) if kind == "JPEG" and "truncated" in str(error) else None
        if whole is None:
            raise
        return whole
    return image


def _with_end_marker(data: bytes) -> Image.Image | None:
    """The image of a JPEG if its coded data is complete, else None.

    libjpeg silently replaces missing data if it sees an end marker. So the file is decoded with two different
    fillers before the marker: if the data is complete, both results agree, because libjpeg skips everything
    after the last block.
    """
    body = data.removesuffix(_END_OF_IMAGE[:1])
    images = [opened(body + filling * 64 + _END_OF_IMAGE, "JPEG") for filling in (b"\x00", b"\xfe")]
    try:
        for image in images:
            image.load()
    except OSError:
        return None
    return images[0] if np.array_equal(np.asarray(images[0]), np.asarray(images[1])) else None


def from_pil(image: Image.Image, max_pixels: int = MAX_PIXELS, *, as_data: bool = False) -> Decoded:
    """Converts a PIL image of any mode; applies its profile (unless `as_data`), transparency and orientation.

    Loads the image if it was only opened. Modes I;16 and F keep their depth; mode I counts as 16 bits, or as
    8 if no value exceeds 255. Raises InputError above `max_pixels`, and for files that fail to load.
    """
    check_size(image.size, "the image", max_pixels)
    key = colour_key(image)  # from the raw mode, which Pillow discards on loading
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"the image cannot be loaded ({first_line(error)}): save it again") from error
    space = None if as_data else colourspace.of_image(image)
    return raster(image, key).to_srgb(space, recipe(image), metadata.of_image(image))


def recipe(image: Image.Image) -> dict[str, Any] | None:
    """The recipe stored in an image, if any."""
    with quiet():
        return receipts.of_image(image)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 if there is none or EXIF is broken."""
    try:
        with quiet():
            turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF does not affect the pixels
        return 1
    return turn if isinstance(turn, int) else 1


def raster(image: Image.Image, key: Any = None) -> Raster:
    """The samples of a loaded image; `key` overrides the transparent colour in `image.info`."""
    turn = orientation(image)
    key = image.info.get("transparency") if key is None else key
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = _deep(image)
        alpha = (values != key).astype(np.float32) if isinstance(key, int) else None
        return Raster(to_unit(values, "the image")[..., None], "L", alpha, turn)
    if image.mode in ("1", "L") and isinstance(key, int):
        grey = np.asarray(image)
        visible = grey != (bool(key) if image.mode == "1" else key)
        return Raster(np.asarray(image.convert("L"))[..., None], "L", visible.astype(np.float32), turn)
    colour, alpha = _split(image, key)
    if colour.mode not in _NATIVE:
        colour = colour.convert("L" if colour.mode == "1" else "RGB")
    samples = np.asarray(colour)  # of LAB, with a* and b* as signed bytes
    samples = samples[..., None] if samples.ndim == 2 else samples
    return Raster(samples, _NATIVE[colour.mode], alpha, turn)


def colour_key(image: Image.Image) -> Any:
    """The transparent colour of a PNG that is not loaded yet, on the scale of the loaded pixels."""
    key = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    raw = tiles[0][3] if tiles else None
    if isinstance(key, int) and isinstance(raw, str):
        return key * _KEY_SCALES.get(raw, 1)
    if isinstance(key, tuple) and raw == "RGB;16B":
        return tuple(value >> 8 for value in key)
    return key


def _deep(image: Image.Image) -> npt.NDArray[Any]:
    values = np.asarray(image)
    # Mode "I" is signed 32-bit, but in practice holds unsigned 16-bit values.
    if image.mode == "I" and values.min() >= 0 and 255 < values.max() <= 65535:
        return values.astype(np.uint16)
    return values


def _split(image: Image.Image, key: Any) -> tuple[Image.Image, Floats | None]:
    """The image without transparency, and alpha (H, W) or None."""
    if not image.has_transparency_data:
        return image, None
    if image.mode == "RGB" and isinstance(key, tuple):
        visible = (np.asarray(image) != np.array(key)).any(axis=2)
        return image, visible.astype(np.float32)
    if image.mode == "La":
        image = image.convert("LA")
    elif image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    alpha = to_unit(np.asarray(image.getchannel("A")), "alpha")
    return image.convert("L" if image.mode == "LA" else "RGB"), alpha
