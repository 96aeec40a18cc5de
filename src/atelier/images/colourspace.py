"""ICC profiles for colour spaces that files declare without an ICC profile.

- EXIF: ColorSpace 65535 with the interoperability index R03, or ColorSpace 2, is Adobe RGB (1998)
  (DCF 2.0, "optional colour space").
- PNG: cICP wins over iCCP, iCCP over sRGB, and sRGB over gAMA and cHRM (PNG third edition, 4.3).
  EXIF comes last.

cICP covers the RGB code points of ITU-T H.273. HDR is reduced to SDR: the reference white of ITU-R BT.2408,
203 cd/m2, becomes white, and brighter light is clipped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Curve = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
_Primaries = tuple[float, ...]  # x and y of white, red, green and blue

_D65, _C, _DCI = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
_BT709: _Primaries = (*_D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_ADOBE_RGB: _Primaries = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
# ColourPrimaries of H.273, table 2.
_PRIMARIES: dict[int, _Primaries] = {
    1: _BT709,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    11: (*_DCI, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*_D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
_SRGB_TRANSFER = 13
#: The gAMA that stands for the sRGB curve (PNG third edition, 11.3.2.5), and chromaticities of sRGB.
_SRGB_GAMMA, _SAME = 1 / 2.2, 1e-3
_WHITE_NITS = 203.0
_ENTRIES = 4096
_EXIF, _INTEROP, _COLOR_SPACE, _INDEX = 0x8769, 0xA005, 0xA001, 1


def of_image(image: Image.Image) -> bytes | None:
    """The profile of an opened image: embedded, or from PNG chunks or EXIF; None for sRGB."""
    try:
        exif = image.getexif()
    except Exception:  # Pillow raises many things over broken EXIF, and none matters to the pixels.
        exif = Image.Exif()
    return _of_info(image.info) or (None if "srgb" in image.info else _of_exif(exif))


def of_png(image: Image.Image, data: bytes) -> bytes | None:
    """The profile of an opened PNG file, with its cICP chunk, which Pillow ignores; None for sRGB."""
    coded = _of_cicp(data)
    return of_image(image) if coded is None else coded or None


def of_info(info: dict[Any, Any]) -> bytes | None:
    """The profile in the `info` of pillow-heif: embedded, or from EXIF; None for sRGB."""
    exif = Image.Exif()
    try:
        exif.load(info.get("exif") or b"")
    except Exception:  # Pillow raises many things over broken EXIF, and none matters to the pixels.
        return _of_info(info)
    return _of_info(info) or _of_exif(exif)


def _of_info(info: dict[Any, Any]) -> bytes | None:
    if profile := info.get("icc_profile"):
        return bytes(profile)
    if "srgb" in info or not ("gamma" in info or "chromaticity" in info):
        return None
    return _of_gamma(info.get("gamma"), info.get("chromaticity"))


def _of_gamma(gamma: Any, chromaticity: Any) -> bytes | None:
    """gAMA alone means the primaries of sRGB, cHRM alone its curve. Impossible values are ignored."""
    primaries = _BT709 if chromaticity is None else tuple(float(value) for value in chromaticity)
    if not _is_gamut(primaries):
        return None
    curve: Curve = _srgb
    if isinstance(gamma, float) and 0.05 <= gamma <= 20 and abs(gamma - _SRGB_GAMMA) > _SAME:
        power = 1 / gamma
        curve = lambda value: value**power  # noqa: E731
    elif np.allclose(primaries, _BT709, atol=_SAME):
        return None
    return _profile(primaries, curve)


def _is_gamut(primaries: Sequence[float]) -> bool:
    """Whether the primaries span a triangle that holds the white point."""
    if len(primaries) != 8 or min(primaries[1::2]) <= 0 or max(primaries) > 1 or min(primaries) < 0:
        return False
    white, *corners = (np.array(primaries[i : i + 2]) for i in range(0, 8, 2))
    edges = [np.subtract(corners[(i + 1) % 3], corners[i]) for i in range(3)]
    sides = [e[0] * (white - c)[1] - e[1] * (white - c)[0] for e, c in zip(edges, corners, strict=True)]
    return bool(min(sides) > 1e-6 or max(sides) < -1e-6)


def _of_exif(exif: Image.Exif) -> bytes | None:
    try:
        space = exif.get_ifd(_EXIF).get(_COLOR_SPACE)
        index = exif.get_ifd(_INTEROP).get(_INDEX) if space == 65535 else None
    except Exception:  # as above
        return None
    text = index.decode("latin-1") if isinstance(index, bytes) else str(index)
    return adobe_rgb() if space == 2 or text.startswith("R03") else None


@lru_cache(maxsize=1)
def adobe_rgb() -> bytes:
    """Adobe RGB (1998): its gamma is 2 + 51/256."""
    return _profile(_ADOBE_RGB, lambda value: value ** (2 + 51 / 256))


def _of_cicp(data: bytes) -> bytes | None:
    """The profile that the cICP chunk declares: empty for sRGB, None without a usable chunk."""
    chunk = next((body for kind, body in _before_pixels(data) if kind == b"cICP"), b"")
    if len(chunk) != 4:
        return None
    primaries, transfer, matrix, full = chunk
    if matrix != 0 or primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        return None
    if (primaries, transfer, full) == (1, _SRGB_TRANSFER, 1):
        return b""
    return _coded(primaries, transfer, bool(full), data[24])


@lru_cache(maxsize=16)
def _coded(primaries: int, transfer: int, full: bool, bits: int) -> bytes:
    curve = _TRANSFERS[transfer]
    if full:
        return _profile(_PRIMARIES[primaries], curve)
    step = 2.0 ** max(bits - 8, 0)  # limited range: codes 16 to 235 at 8 bits
    top = 2 ** max(bits, 8) - 1
    return _profile(_PRIMARIES[primaries], lambda value: curve(((value * top / step - 16) / 219).clip(0, 1)))


def _before_pixels(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            return
        yield kind, data[place + 8 : place + 8 + length]
        place += 12 + length


def _profile(primaries: _Primaries, curve: Curve) -> bytes:
    import imagecodecs

    light = curve(np.linspace(0, 1, _ENTRIES)).clip(0, 1)
    made: bytes = imagecodecs.cms_profile(
        "rgb",
        whitepoint=list(primaries[:2]),
        primaries=list(primaries[2:]),
        transferfunction=np.rint(light * 65535).astype(np.uint16),
    )
    return made


# Curves from code value to linear light, 0..1 (H.273, table 3).


def _srgb(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _bt709(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    alpha, beta = 1.09929682680944, 0.018053968510807
    return np.where(value < 4.5 * beta, value / 4.5, ((value + alpha - 1) / alpha) ** (1 / 0.45))


def _pq(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """SMPTE ST 2084; 1 is reference white."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = value ** (1 / m2)
    return np.asarray(10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) / _WHITE_NITS)


def _hlg(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ARIB STD-B67 on a display of 1000 cd/m2, whose system gamma of 1.2 acts on each channel."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
    return np.asarray(1000 * scene**1.2 / _WHITE_NITS)


_TRANSFERS: dict[int, Curve] = {
    1: _bt709,
    4: lambda value: value**2.2,
    5: lambda value: value**2.8,
    6: _bt709,
    8: lambda value: value,
    _SRGB_TRANSFER: _srgb,
    14: _bt709,
    15: _bt709,
    16: _pq,
    18: _hlg,
}
