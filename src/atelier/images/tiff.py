"""TIFF of any depth, layout and compression, read by tifffile and imagecodecs.

YCbCr that is not JPEG-compressed is the exception: libtiff converts it, through imagecodecs. Tag numbers and
values are those of TIFF 6.0 and its supplements.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from atelier.core.errors import InputError
from atelier.images import colourspace, metadata, pil, receipts
from atelier.images.arrays import Decoded, check_size, straight, to_unit, upright
from atelier.images.raster import Mode, Raster

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _MASK, _CMYK, _YCBCR, _CIELAB, _ICCLAB = 0, 1, 2, 3, 4, 5, 6, 8, 9
_SPACES: dict[int, tuple[Mode, int]] = {
    _MINISWHITE: ("L", 1),
    _MINISBLACK: ("L", 1),
    _RGB: ("RGB", 3),
    _PALETTE: ("RGB", 1),
    _MASK: ("L", 1),
    _CMYK: ("CMYK", 4),
    _YCBCR: ("RGB", 3),
    _CIELAB: ("LAB", 3),
    _ICCLAB: ("LAB", 3),
}
# Uncompressed, CCITT (2, 3, 4), LZW, JPEG, Deflate (8, 32946), PackBits, LZMA, Zstandard, WebP.
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32946, 32773, 34925, 34926, 50000, 50001}
_NONE, _JPEG, _WEBP = 1, 7, 50001
_PHOTOMETRIC, _ORIENTATION, _SUBIFDS, _INK_SET = 262, 274, 330, 332
_XMP = 700
_EXIF = 34665
_ASSOCIATED, _UNASSOCIATED = 1, 2
#: A file with more samples per pixel than this is a measurement, not a picture.
_MOST_SAMPLES = 16


@contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """A `tifffile.TiffFile` on the bytes of a file."""
    import tifffile

    # Damaged tags overflow in tifffile's arithmetic; the user need not see these warnings.
    with np.errstate(all="ignore"), tifffile.TiffFile(BytesIO(data)) as tiff:
        yield tiff


def decode(data: bytes, name: str, max_pixels: int, *, as_data: bool = False) -> Decoded:
    """The first full-resolution page, upright and in sRGB; `name` is for error messages.

    Raises InputError for pages that hold no picture or more than `max_pixels`, which is checked before
    decoding, and the errors of tifffile and imagecodecs for damaged data.
    """
    with opened(data) as tiff:
        page = _page(tiff, name)
        check_size((page.imagewidth, page.imagelength), f"'{name}'", max_pixels)
        if page.is_tiled:
            check_size((page.tilewidth, page.tilelength), f"a tile of '{name}'", max_pixels)
        photometric = _photometric(page)
        _check_supported(page, photometric, name)
        if photometric == _YCBCR and not _converted_by_tifffile(page):
            raster = _through_libtiff(data, page)
        else:
            _check_segments(page, len(data))
            raster = _raster(page, photometric, f"'{name}'")
        profile = None if as_data else page.iccprofile or _exif_space(data, page)
        return raster.to_srgb(profile, receipts.parse(page.description), _metadata(page))


def _exif_space(data: bytes, page: Any) -> bytes | None:
    """The profile of the EXIF colour space. Pillow reads the interoperability index, tifffile does not."""
    exif = page.tags.valueof(_EXIF)
    if not isinstance(exif, dict) or exif.get("ColorSpace", 1) == 1:
        return None
    try:
        return colourspace.of_image(pil.opened(data, "TIFF"))
    except Exception:  # Pillow refuses files that tifffile reads.
        return None


def _metadata(page: Any) -> metadata.Metadata:
    tags = {tag.code: tag.value for tag in page.tags}
    return metadata.of_xmp(tags.get(_XMP)).filled(metadata.of_exif(tags))


def recipe(data: bytes) -> dict[str, Any] | None:
    """The recipe in the first page's ImageDescription, without decoding pixels."""
    with opened(data) as tiff:
        return receipts.parse(tiff.pages.first.description)


def _page(tiff: Any, name: str) -> Any:
    """The first page that is not a thumbnail, else the first. Raises InputError for camera raw files."""
    first = tiff.pages.first
    if not first.is_reduced:
        return first
    if _SUBIFDS in first.tags:
        raise InputError(f"'{name}' is a camera raw file: develop it first, and save it as TIFF or PNG")
    for index in range(1, 8):
        try:
            page = tiff.pages[index]
        except IndexError:
            break
        if not page.is_reduced:
            return page
    return first


def _photometric(page: Any) -> int:
    """PhotometricInterpretation; if it is missing, inferred from the number of samples, as in libtiff."""
    if _PHOTOMETRIC in page.tags:
        return int(page.photometric)
    return _RGB if page.samplesperpixel in (3, 4) else _MINISBLACK


def _check_supported(page: Any, photometric: int, name: str) -> None:
    samples = page.samplesperpixel
    if photometric not in _SPACES:
        raise InputError(
            f"'{name}' stores its colours in a way that is not supported (PhotometricInterpretation "
            f"{photometric}, as camera raw files do): export it as RGB"
        )
    colours = _SPACES[photometric][1]
    if page.imagedepth > 1:
        raise InputError(f"'{name}' is a volume of {page.imagedepth} layers: export one layer")
    if samples < colours or samples > (4 if photometric <= _MINISBLACK else _MOST_SAMPLES):
        raise InputError(
            f"'{name}' has {samples} channels: a picture has 1 to 4, or 5 if it is CMYK with alpha"
        )
    if photometric == _CMYK and page.tags.valueof(_INK_SET, 1) != 1:
        raise InputError(f"'{name}' is separated into inks other than CMYK: export it as RGB")
    if photometric != _YCBCR and page.compression not in _COMPRESSIONS:
        raise InputError(
            f"'{name}' is compressed in a way that is not supported (TIFF compression "
            f"{int(page.compression)}): export it with Deflate or LZW"
        )


def _converted_by_tifffile(page: Any) -> bool:
    """Whether tifffile converts YCbCr to RGB."""
    return page.compression == _JPEG and page.planarconfig == 1 and not page.extrasamples


def _check_segments(page: Any, length: int) -> None:
    """Raises ValueError if strips or tiles are missing, lie outside the file, or hold a larger picture.

    tifffile fills missing parts with zeros, and the decoders of JPEG, WebP and fax fill the end of a
    truncated part. Uncompressed files can claim more bytes than they have and still be complete; tifffile
    checks those.
    """
    across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
    rows = page.tilelength if page.is_tiled else page.rowsperstrip
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    expected = across * -(-page.imagelength // max(rows, 1)) * planes
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    cut = page.compression != _NONE and any(start + count > length for start, count in places)
    if len(places) < expected or cut:
        raise ValueError("parts of the picture are missing")
    if page.compression in (_JPEG, _WEBP):
        width = page.tilewidth if page.is_tiled else page.imagewidth
        for start, count in places:
            page.parent.filehandle.seek(start)
            kind = "JPEG" if page.compression == _JPEG else "WEBP"
            part = pil.opened(page.parent.filehandle.read(count), kind)
            if part.width > width or part.height > max(rows, 1):
                raise ValueError("a part is larger than the header says")


def _raster(page: Any, photometric: int, name: str) -> Raster:
    """The samples of a page; `name` is quoted already."""
    values = page.asarray().reshape(page.shaped)[..., 0, :, :, :]
    values = np.moveaxis(values[..., 0], 0, -1) if page.planarconfig == 2 else values[0]
    mode, colours = _SPACES[photometric]
    colour, extra = values[..., :colours], values[..., colours:]
    index = _alpha_index(page, photometric)
    alpha = to_unit(_scaled(extra[..., index], page.bitspersample, name), name) if index >= 0 else None
    if photometric == _PALETTE:
        colour = _palette(page)[colour[..., 0].astype(np.int64)]
    elif mode == "LAB":
        colour = _lab(colour, photometric)
    else:
        colour = _scaled(colour, page.bitspersample, name)
        if photometric == _MINISWHITE:
            colour = 255 - colour if colour.dtype == np.uint8 else 1 - colour
    if alpha is not None and _ASSOCIATED in page.extrasamples[index : index + 1]:
        colour = straight(to_unit(colour, name), alpha)
    return Raster(colour, mode, alpha, int(page.tags.valueof(_ORIENTATION, 1)))


def _alpha_index(page: Any, photometric: int) -> int:
    """The index of the extra sample that is alpha, or -1.

    RGB with four samples and no ExtraSamples counts as RGBA.
    """
    kinds = [int(kind) for kind in page.extrasamples]
    if not kinds and photometric == _RGB and page.samplesperpixel == 4:
        return 0
    return next((i for i, kind in enumerate(kinds) if kind in (_ASSOCIATED, _UNASSOCIATED)), -1)


def _scaled(values: npt.NDArray[Any], bits: Any, name: str) -> npt.NDArray[Any]:
    """Stored samples as uint8 if they have 1, 2, 4 or 8 bits, else as float32 0..1."""
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind != "u" or bits in (16, 32, 64):
        return to_unit(values, name)
    if bits == 8:
        return values
    if bits in (2, 4):
        return values * np.uint8(255 // (2**bits - 1))
    return (values / np.float64(2**bits - 1)).astype(np.float32)


def _palette(page: Any) -> npt.NDArray[Any]:
    """The palette (N, 3): uint8 if its 16-bit entries are bytes times 256 or 257, else float32 0..1."""
    table = np.asarray(page.colormap, np.uint16).T
    high, low = table >> 8, table & 255
    if not low.any() or np.array_equal(low, high):
        return high.astype(np.uint8)
    return to_unit(table, "the palette")


def _lab(colour: npt.NDArray[Any], photometric: int) -> npt.NDArray[Any]:
    """CIELAB: 8 bits as uint8 with a* and b* as signed bytes, 16 bits as float32 in CIELAB's own units."""
    if colour.dtype.itemsize > 2 or colour.dtype.kind == "f":
        raise ValueError("CIELAB of more than 16 bits")
    if colour.dtype.itemsize == 2:
        lightness = colour[..., :1].astype(np.float32) * np.float32(
            100 / (65535 if photometric == _CIELAB else 65280)
        )
        signed = colour[..., 1:].astype(np.uint16)
        hues = signed.view(np.int16) / 256 if photometric == _CIELAB else signed / 256 - 128
        return np.concatenate([lightness, hues.astype(np.float32)], axis=-1)
    eight: npt.NDArray[np.uint8] = colour.astype(np.uint8)
    if photometric == _ICCLAB:
        eight[..., 1:] ^= 128
    return eight


def _through_libtiff(data: bytes, page: Any) -> Raster:
    """YCbCr that tifffile does not convert, through libtiff's RGBA interface.

    libtiff applies orientations 1 to 4 (mirroring and half turns), and for 5 to 8 only the mirroring.
    """
    import imagecodecs

    values = imagecodecs.tiff_decode(data, page.index, asrgb=True)
    turn = int(page.tags.valueof(_ORIENTATION, 1))
    if turn in (5, 6, 7, 8):
        values = upright(values, turn - 4)
    else:
        turn = 1
    colour, alpha = values[..., :3], None
    if page.extrasamples:  # libtiff premultiplies the colours
        alpha = to_unit(values[..., 3], "alpha")
        colour = straight(to_unit(colour, "the picture"), alpha)
    return Raster(colour, "RGB", alpha, turn)
