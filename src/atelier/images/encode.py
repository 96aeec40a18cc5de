"""Pixels to bytes: JPEG, PNG, TIFF and WebP, tagged as sRGB, with recipe and metadata."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from atelier.core.errors import OutputError
from atelier.images import metadata, profiles, receipts
from atelier.images.picture import Picture, to_integers

WRITABLE = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")
_XMP = 700
DEEP = (".png", ".tif", ".tiff")

# A JPEG segment holds 65,533 bytes, of which the recipe's EXIF wrapping takes a few.
_JPEG_RECIPE = 65_000
# WebP stores sides in 14 bits. JPEG uses 16, and libjpeg stops slightly below that (JPEG_MAX_DIMENSION).
_LONGEST = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}


def encode(picture: Picture, suffix: str, *, bits: int, quality: int, quick: bool = False) -> bytes:
    """The bytes of a file with this suffix (one of `WRITABLE`, lower case); `quick` as in `write`.

    Raises OutputError if the format cannot hold the picture's size or its recipe.
    """
    check_size(suffix, *picture.size)
    if suffix in (".jpg", ".jpeg"):
        return _jpeg(picture, quality)
    if suffix == ".webp":
        return _webp(picture, quality)
    return _png(picture, bits, quick) if suffix == ".png" else _tiff(picture, bits)


def check_size(suffix: str, width: int, height: int) -> None:
    """Raises OutputError if the format of this suffix cannot hold a picture of width x height pixels."""
    longest = _LONGEST.get(suffix)
    if longest and max(width, height) > longest:
        raise OutputError(
            f"{suffix} holds at most {longest:,} pixels per side, not {width} x {height}: write .png or .tif"
        )


def _jpeg(picture: Picture, quality: int) -> bytes:
    exif = _exif(picture)
    if len(exif) > _JPEG_RECIPE:
        # Every output is guaranteed to carry its recipe, so it is not dropped silently.
        raise OutputError(
            f"the recipe takes {len(exif)} bytes and JPEG holds {_JPEG_RECIPE}: write .png or .tif, "
            "or leave the receipt out"
        )
    # 4:4:4, because halved chroma is visible in brush strokes and flat colours. No "optimize": Pillow then
    # estimates the file size, and detailed pictures such as paintings exceed it and fail.
    options: dict[str, Any] = {"quality": quality, "subsampling": 0}
    if picture.metadata.dpi is not None:
        options["dpi"] = tuple(round(side) for side in picture.metadata.dpi)  # JFIF holds integers
    return _save(Image.fromarray(_on_white(picture)), "JPEG", picture, options)


def _on_white(picture: Picture) -> npt.NDArray[Any]:
    if picture.alpha is None:
        return to_integers(picture, bits=8)
    alpha = picture.alpha[..., None]
    flat = picture.pixels * alpha + (1 - alpha)
    return to_integers(Picture(flat, name=picture.name, sha256=picture.sha256), bits=8)


def _webp(picture: Picture, quality: int) -> bytes:
    return _save(picture.pil(), "WEBP", picture, {"quality": quality, "method": 4})


def _save(image: Image.Image, kind: str, picture: Picture, options: dict[str, Any]) -> bytes:
    if packet := metadata.xmp(picture.metadata):
        options["xmp"] = packet
    buffer = BytesIO()
    image.save(buffer, kind, exif=_exif(picture), icc_profile=profiles.srgb_profile(), **options)
    return buffer.getvalue()


def _exif(picture: Picture) -> bytes:
    return receipts.exif(picture.recipe, metadata.exif_fields(picture.metadata))


def _png(picture: Picture, bits: int, quick: bool) -> bytes:
    import cv2

    values = to_integers(picture, bits)
    order = [2, 1, 0, 3][: values.shape[2]]
    strategy = cv2.IMWRITE_PNG_STRATEGY_RLE if quick else cv2.IMWRITE_PNG_STRATEGY_DEFAULT
    effort = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, strategy]
    done, data = cv2.imencode(".png", np.ascontiguousarray(values[..., order]), effort)
    if not done:
        raise OutputError(f"PNG cannot hold {picture.label}: write .tif")
    encoded = data.tobytes()
    header = 8 + 25  # the signature and IHDR, which comes first and has a fixed length (PNG 5.6, 11.2.1)
    return encoded[:header] + _png_chunks(picture) + encoded[header:]


def _png_chunks(picture: Picture) -> bytes:
    chunks = _chunk(b"sRGB", b"\x01")  # rendering intent 1: relative colorimetric
    if picture.metadata.dpi is not None:
        per_metre = [round(side / 0.0254) for side in picture.metadata.dpi]
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if exif := _exif(picture):
        chunks += _chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if packet := metadata.xmp(picture.metadata):
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + packet)
    return chunks


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _tiff(picture: Picture, bits: int) -> bytes:
    import tifffile

    about = picture.metadata
    texts = ((metadata.ARTIST, about.artist), (metadata.COPYRIGHT, about.copyright))
    # Type 2 is ASCII, in practice UTF-8; type 1 is bytes.
    extra = [(tag, 2, 0, words.encode(), True) for tag, words in texts if words]
    if packet := metadata.xmp(about):
        extra.append((_XMP, 1, len(packet), packet, True))
    buffer = BytesIO()
    tifffile.imwrite(
        buffer,
        to_integers(picture, bits),
        photometric="rgb",
        extrasamples=() if picture.alpha is None else ("unassalpha",),
        compression="zlib",
        predictor=True,
        metadata=None,
        description=None if picture.recipe is None else receipts.text(picture.recipe),
        iccprofile=profiles.srgb_profile(),
        software="atelier",
        extratags=extra,
        resolution=about.dpi,
        resolutionunit=None if about.dpi is None else 2,
    )
    return buffer.getvalue()
