"""Bytes to pixels: any supported file becomes upright float32 sRGB 0..1, or one error sentence.

Each format has one decoder: tifffile for TIFF (`tiff`), pillow-heif for HEIC (`heif`), and Pillow for the
rest (`pil`), except for PNG of 16 bits in colour, which Pillow would reduce to 8 (`png`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from atelier.core.errors import AtelierError, InputError, ResourceError
from atelier.images import colourspace, heif, metadata, pil, png, tiff
from atelier.images.arrays import MAX_PIXELS, Decoded, check_size

READABLE = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".avif",
    ".heic",
    ".heif",
)
KINDS = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC"

# Loggers without handlers print to stderr, and these report every oddity of a file.
for _library in ("tifffile", "imagecodecs"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS, *, as_data: bool = False) -> Decoded:
    """The picture in a file's bytes (the first frame or page); `name` is for error messages.

    Files of more than 8 bits a channel keep their depth, except JPEG, WebP and AVIF. With `as_data` the
    stored numbers are not colour-managed, whatever colour space the file declares. Raises InputError if the
    bytes are not a picture, are damaged, or declare more than `max_pixels` pixels (checked before decoding),
    and ResourceError if memory runs out or an optional package is missing.
    """
    with _explained(data, name) as kind:
        if kind == "TIFF":
            return tiff.decode(data, name, max_pixels, as_data=as_data)
        if kind == "HEIC":
            return heif.decode(data, name, max_pixels, as_data=as_data)
        image = pil.opened(data, kind)
        check_size(image.size, f"'{name}'", max_pixels)
        key = pil.colour_key(image)
        image = pil.loaded(image, data, kind)
        deep = kind == "PNG" and png.is_deep(data)
        raster = png.decode(data, name, pil.orientation(image)) if deep else pil.raster(image, key)
        space = colourspace.of_png(image, data) if kind == "PNG" else colourspace.of_image(image)
        return raster.to_srgb(None if as_data else space, pil.recipe(image), metadata.of_image(image))


def is_picture(data: bytes) -> bool:
    """Whether the bytes begin like a picture file that can be read; it may still be damaged."""
    return _kind(data) is not None


def decode_recipe(data: bytes, name: str) -> dict[str, Any] | None:
    """The recipe in a file's bytes, without decoding the pixels. Raises InputError as `decode` does."""
    with _explained(data, name) as kind:
        if kind == "TIFF":
            return tiff.recipe(data)
        if kind == "HEIC":
            return heif.recipe(heif.opened(data))
        return pil.recipe(pil.opened(data, kind))


@contextmanager
def _explained(data: bytes, name: str) -> Iterator[str]:
    """Yields the kind of file, and turns any exception inside the block into an error sentence."""
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
            f"'{name}' does not fit into memory: close other programs, or make it smaller"
        ) from error
    except Exception as error:
        # Malformed bytes make decoders raise almost anything: KeyError, struct.error, SyntaxError ...
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if "BytesIO" in reason:  # Pillow's message names our buffer instead of the file.
            reason = "its header is invalid"
        raise InputError(
            f"'{name}' cannot be decoded: the {kind} file is damaged, cut short or of an unsupported kind "
            f"({reason}); export it again, for instance as PNG"
        ) from error


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _heif_kind(data)
    return next((kind for mark, kind in _SIGNATURES.items() if data.startswith(mark)), None)


def _heif_kind(data: bytes) -> str | None:
    """AVIF or HEIC by the brands of ISO 14496-12's file type box: one major, and the compatible ones."""
    box = data[8 : max(16, min(int.from_bytes(data[:4], "big"), 256))]
    brands = {box[:4], *(box[place : place + 4] for place in range(8, len(box), 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return "HEIC" if brands & {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1"} else None
