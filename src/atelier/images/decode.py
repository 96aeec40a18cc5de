"""Bytes to pixels: whatever a file holds becomes upright float32 sRGB 0..1, or one sentence.

Pillow decodes 8 bits. It silently opens 16-bit colour as 8 bits, so those values come from OpenCV
(PNG) and tifffile (TIFF), after Pillow or tifffile have read the header.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from atelier.core.errors import AtelierError, InputError, ResourceError
from atelier.images import profiles, receipts

MAX_PIXELS = 100_000_000
READABLE = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
KINDS = "JPEG, PNG, WebP, TIFF, BMP or GIF"

# Floats a little outside 0..1 are the ringing of a resampler and are clipped; further out they are
# on another scale (0..255, scene light), and clipping would quietly give a white picture.
_RINGING = 0.5
_ORIENTATION = 274

Floats = npt.NDArray[np.float32]


@dataclass
class Decoded:
    """`pixels` (H, W, 3) and `alpha` (H, W) or None, float32 0..1, and the recipe found with them."""

    pixels: Floats
    alpha: Floats | None
    recipe: dict[str, Any] | None = None


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Decoded:
    """The picture in a file's bytes; `name` is for the error sentence.

    Raises InputError where the bytes are not a picture, are damaged, or declare more than
    `max_pixels` (checked before decoding), and ResourceError where memory runs out.
    """
    with _explained(data, name) as kind:
        if kind == "TIFF":
            return _decode_tiff(data, name, max_pixels)
        return _decode_pillow(data, kind, name, max_pixels)


def decode_recipe(data: bytes, name: str) -> dict[str, Any] | None:
    """The recipe in a file's bytes, without decoding the pixels. Raises InputError as `decode` does."""
    with _explained(data, name) as kind:
        if kind == "TIFF":
            with _open_tiff(data) as tiff:
                return receipts.parse(tiff.pages.first.description)
        image = _open(data, kind)
        with _quiet():
            return receipts.of_image(image)


def from_pil(image: Image.Image, max_pixels: int = MAX_PIXELS) -> Decoded:
    """A PIL image of any mode, its profile and orientation applied."""
    _check_size(image.size, "the image", max_pixels)
    if image.mode == "I":
        # Pillow's "I" is signed 32 bits, and everything that writes it means 16 unsigned ones.
        values = np.asarray(image)
        deep = values.astype(np.uint16) if values.min() >= 0 and values.max() <= 65535 else values
        return from_array(deep, "the image", max_pixels)
    if image.mode == "F" or image.mode.startswith("I;16"):
        return from_array(np.asarray(image), "the image", max_pixels)
    return _finish(image)


def from_array(values: npt.NDArray[Any], name: str, max_pixels: int = MAX_PIXELS) -> Decoded:
    """(H, W) or (H, W, C), C of 1 to 4: bool, unsigned integers, or floats 0..1. Raises InputError."""
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4):
        raise InputError(
            f"{name} has the shape {values.shape}: a picture is (height, width) with 1 to 4 channels"
        )
    _check_size((values.shape[1], values.shape[0]), name, max_pixels)
    scaled = _to_unit(values, name)
    grey = scaled.shape[2] < 3
    pixels = scaled[..., :1].repeat(3, axis=2) if grey else np.ascontiguousarray(scaled[..., :3])
    alpha = np.ascontiguousarray(scaled[..., -1]) if scaled.shape[2] in (2, 4) else None
    return Decoded(pixels, alpha)


def _to_unit(values: npt.NDArray[Any], name: str) -> Floats:
    if values.dtype == np.bool_:
        return values.astype(np.float32)
    if np.issubdtype(values.dtype, np.unsignedinteger):
        top = np.iinfo(values.dtype).max
        if top <= 65535:
            scaled = values.astype(np.float32)
            scaled /= np.float32(top)
            return scaled
        return (values.astype(np.float64) / top).astype(np.float32)
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"{name} holds {values.dtype}: give uint8, uint16 or floats 0..1")
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{name} holds values that are not finite (NaN or infinity): mend it first")
    if low < -_RINGING or high > 1 + _RINGING:
        raise InputError(f"{name} holds values from {low:.4g} to {high:.4g}: floats must be 0..1, scale them")
    return np.clip(values, 0, 1, out=np.empty(values.shape, np.float32), casting="same_kind")


@contextmanager
def _explained(data: bytes, name: str) -> Iterator[str]:
    """The kind of file, and a sentence in place of whatever a decoder raises inside the block."""
    kind = _kind(data)
    if kind is None:
        found = "is empty" if not data else "is not a picture"
        raise InputError(f"'{name}' {found}: give a {KINDS} file")
    try:
        yield kind
    except AtelierError:
        raise
    except MemoryError as error:
        raise ResourceError(
            f"'{name}' does not fit into memory: close programs or give it smaller"
        ) from error
    except Exception as error:
        # Hostile bytes make decoders raise almost anything: KeyError, struct.error, SyntaxError ...
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if "BytesIO" in reason:  # Pillow names the file, and all it knows is our buffer
            reason = "its header makes no sense"
        raise InputError(
            f"'{name}' cannot be decoded: the {kind} file is damaged, cut short or of a rare kind "
            f"({reason}); export it again, for instance as PNG"
        ) from error


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    marks = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"GIF8": "GIF",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"II+\0": "TIFF",
        b"MM\0+": "TIFF",
    }
    return next((kind for mark, kind in marks.items() if data.startswith(mark)), None)


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"{name} is {width} x {height} pixels: a picture has at least one")
    if width * height > max_pixels:
        raise InputError(
            f"{name} is {width} x {height} = {_counted(width * height)} pixels, and the limit is "
            f"{_counted(max_pixels)}: give it smaller, or raise max_pixels"
        )


def _counted(pixels: int) -> str:
    return f"{pixels / 1e6:,.1f} million" if pixels >= 100_000 else f"{pixels:,}"


_pillow_settings = threading.RLock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow without its warnings and its own limit of pixels, which are process-wide: keep it short."""
    with _pillow_settings, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open(data: bytes, kind: str) -> Image.Image:
    with _quiet():
        return Image.open(BytesIO(data), formats=[kind])


def _decode_pillow(data: bytes, kind: str, name: str, max_pixels: int) -> Decoded:
    image = _open(data, kind)
    _check_size(image.size, f"'{name}'", max_pixels)
    image.load()
    if kind == "PNG" and data[24] == 16:
        values = _decode_opencv(data)
        return _finish_deep(values, name, _orientation(image), image.info.get("icc_profile"), image)
    return _finish(image)


def _finish(image: Image.Image) -> Decoded:
    """A decoded 8-bit image: transparency apart, colours to sRGB, upright."""
    with _quiet():
        recipe = receipts.of_image(image)
    turn = _orientation(image)
    colour, alpha = _split(image)
    rgb = profiles.image_to_srgb(colour, image.info.get("icc_profile"))
    pixels = _to_unit(_upright(np.asarray(rgb), turn), "the picture")
    veil = None if alpha is None else _to_unit(_upright(np.asarray(alpha), turn), "the picture")
    return Decoded(pixels, veil, recipe)


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    if not image.has_transparency_data:
        return image, None
    if image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    return image.convert("L" if image.mode == "LA" else "RGB"), image.getchannel("A")


def _orientation(image: Image.Image) -> int:
    try:
        with _quiet():
            turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Broken EXIF does not spoil the pixels.
        return 1
    return turn if isinstance(turn, int) else 1


def _upright(values: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """Undoes EXIF orientation `turn` (1..8; anything else counts as 1)."""
    turns = {
        2: lambda v: v[:, ::-1],
        3: lambda v: v[::-1, ::-1],
        4: lambda v: v[::-1],
        5: lambda v: v.swapaxes(0, 1),
        6: lambda v: np.rot90(v, -1),
        7: lambda v: v[::-1, ::-1].swapaxes(0, 1),
        8: lambda v: np.rot90(v, 1),
    }
    return turns[turn](values) if turn in turns else values


def _finish_deep(
    values: npt.NDArray[Any], name: str, turn: int, profile: bytes | None, image: Image.Image | None
) -> Decoded:
    made = from_array(_upright(values, turn), f"'{name}'", max_pixels=max(values.size, 1))
    made.pixels = profiles.array_to_srgb(made.pixels, profile)
    if image is not None:
        with _quiet():
            made.recipe = receipts.of_image(image)
    return made


def _decode_opencv(data: bytes) -> npt.NDArray[Any]:
    """(H, W, C) in RGB(A) order at the file's own depth, EXIF orientation not applied."""
    import cv2

    # OpenCV tells stderr of damaged files; the sentence that becomes of them is enough.
    log = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        log.setLogLevel(level)
    if values is None:
        raise ValueError("its values cannot be read")
    if values.ndim == 2:
        return np.asarray(values)
    order = [2, 1, 0, 3][: values.shape[2]]
    return np.asarray(values[..., order])


@contextmanager
def _open_tiff(data: bytes) -> Iterator[Any]:
    import tifffile

    # A logger without handlers prints to stderr, and damaged files make this one talk.
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    with tifffile.TiffFile(BytesIO(data)) as tiff:
        yield tiff


def _decode_tiff(data: bytes, name: str, max_pixels: int) -> Decoded:
    with _open_tiff(data) as tiff:
        page = tiff.pages.first
        _check_size((page.imagewidth, page.imagelength), f"'{name}'", max_pixels)
        if page.is_tiled:
            _check_size((page.tilewidth, page.tilelength), f"a tile of '{name}'", max_pixels)
        recipe = receipts.parse(page.description)
        if page.bitspersample > 8 and page.photometric in (0, 1, 2):
            made = _decode_deep_tiff(data, page, name)
        else:
            made = _decode_pillow(data, "TIFF", name, max_pixels)
    made.recipe = recipe
    return made


def _decode_deep_tiff(data: bytes, page: Any, name: str) -> Decoded:
    if page.samplesperpixel > 4 or page.imagedepth > 1:
        raise InputError(f"'{name}' has {page.samplesperpixel} channels: a picture has 1 to 4")
    values = _tiff_values(data, page)
    if page.photometric == 0:
        values = values.max(initial=0) - values if values.dtype.kind == "f" else ~values
    colours = 3 if page.photometric == 2 else 1
    extra = page.extrasamples[0] if page.extrasamples else 0
    if values.ndim == 3 and extra not in (1, 2):
        values = values[..., :colours]
    tag = page.tags.get(_ORIENTATION)
    made = _finish_deep(values, name, tag.value if tag else 1, page.iccprofile, None)
    if extra == 1 and made.alpha is not None:
        made.pixels = (made.pixels / np.maximum(made.alpha, 1e-6)[..., None]).clip(0, 1)
    return made


def _tiff_values(data: bytes, page: Any) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return _decode_opencv(data)
    separate = page.planarconfig == 2 and values.ndim == 3
    return values.transpose(1, 2, 0) if separate else values
