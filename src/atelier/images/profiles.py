"""Colour profiles: embedded ICC to sRGB.

8-bit pictures go through LittleCMS (Pillow's ImageCms). That knows only 8 bits, so deep pictures
with a matrix/TRC profile (Adobe RGB, Display P3, ProPhoto, grey: nearly all of them) are converted
here in float, after ICC.1:2022 annex F.3, and only those with look-up tables lose depth.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Floats = npt.NDArray[np.float32]

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An sRGB profile to tag files with."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # LittleCMS writes the time of day into the header; the same picture shall give the same file.
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


def image_to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB image from one without alpha. A profile that is broken or of another space is ignored."""
    converted = _with_littlecms(image, profile) if profile else None
    if converted is not None:
        return converted
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        rgb = ImageCms.profileToProfile(image, lab, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return rgb if rgb is not None else image.convert("RGB")
    return image.convert("RGB")


def _with_littlecms(image: Image.Image, profile: bytes) -> Image.Image | None:
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = _MODES.get(source.profile.xcolor_space.strip(), "")
        if mode not in ("RGB", "L", "CMYK") or (image.mode == "CMYK") != (mode == "CMYK"):
            return None
        if mode == "L" and image.mode not in ("L", "1"):
            return None
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
        if mode == "RGB" and _is_identity(transform):
            return image.convert("RGB")
        return transform.apply(image.convert(mode))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether no colour of a 9 x 9 x 9 grid moves by more than rounding: an sRGB profile by any name."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    moved = np.asarray(transform.apply(Image.fromarray(grid))).astype(int)
    return bool(np.abs(moved - grid).max() <= 1)


def array_to_srgb(pixels: Floats, profile: bytes | None) -> Floats:
    """Deep pixels (H, W, 3) 0..1 in a profile's space, in sRGB 0..1. A broken profile is ignored."""
    if not profile or profile == srgb_profile():
        return pixels
    try:
        curves, matrix = _matrix_profile(profile)
    except (KeyError, struct.error, ValueError, IndexError, ZeroDivisionError):
        return _by_eight_bits(pixels, profile)
    out = np.empty_like(pixels)
    to_linear_srgb = (np.linalg.inv(_srgb_matrix()) @ matrix).T
    for row, line in enumerate(pixels):  # By rows: the float64 working copies stay small.
        with np.errstate(all="ignore"):  # a hostile curve may overflow; see below
            linear = np.stack(
                [curve(line[:, i].astype(np.float64)) for i, curve in enumerate(curves)], axis=-1
            )
            out[row] = _encode_srgb(linear @ to_linear_srgb)
    # An sRGB profile by any name differs by rounding only, and then the pixels stay to the bit.
    moved = np.isfinite(out).all() and np.abs(out - pixels).max() >= 0.5 / 255
    return out if moved else pixels


def _by_eight_bits(pixels: Floats, profile: bytes) -> Floats:
    eight = Image.fromarray(np.rint(pixels * 255).astype(np.uint8))
    converted = _with_littlecms(eight, profile)
    return pixels if converted is None else np.asarray(converted).astype(np.float32) / np.float32(255)


def _encode_srgb(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IEC 61966-2-1, clipped to 0..1."""
    light = linear.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


class _Curve:
    """A tone curve of ICC.1:2022 10.6 (`curv`) or 10.18 (`para`): code value to linear light."""

    def __init__(self, tag: bytes) -> None:
        self.table: npt.NDArray[np.float64] | None = None
        if tag[:4] == b"curv":
            (count,) = struct.unpack_from(">I", tag, 8)
            values = np.frombuffer(tag, ">u2", count, 12).astype(np.float64)
            self.parameters = [values[0] / 256 if count == 1 else 1.0, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0]
            self.table = values / 65535 if count > 1 else None
        elif tag[:4] == b"para":
            self.parameters = self._parameters(tag)
        else:
            raise ValueError("a curve of an unknown type")

    @staticmethod
    def _parameters(tag: bytes) -> list[float]:
        """g, a, b, c, d, e, f of the general form: (a x + b)^g + e where x >= d, else c x + f."""
        (kind,) = struct.unpack_from(">H", tag, 8)
        count = (1, 3, 4, 5, 7)[kind]
        g, a, b, c, d, e, f = [n / 65536 for n in struct.unpack_from(f">{count}i", tag, 12)] + [0.0] * (
            7 - count
        )
        if kind == 0:
            return [g, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0]
        if kind == 1:
            return [g, a, b, 0.0, -b / a, 0.0, 0.0]
        if kind == 2:
            return [g, a, b, 0.0, -b / a, c, c]
        return [g, a, b, c, d, e, f]

    def __call__(self, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.table is not None:
            return np.interp(value, np.linspace(0, 1, len(self.table)), self.table)
        g, a, b, c, d, e, f = self.parameters
        curved = np.maximum(a * value + b, 0) ** g + e
        return np.where(value >= d, curved, c * value + f)


def _matrix_profile(profile: bytes) -> tuple[list[_Curve], npt.NDArray[np.float64]]:
    """Three curves and the matrix from linear RGB to XYZ (D50). Raises KeyError where it has none."""
    tags = _tags(profile)
    if b"A2B0" in tags:
        raise KeyError("A2B0")
    if profile[16:20] == b"GRAY":
        # The three channels are equal, so neutral light is light times white: any primaries serve.
        return [_Curve(tags[b"kTRC"])] * 3, _srgb_matrix()
    columns = [struct.unpack_from(">3i", tags[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    curves = [_Curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return curves, np.array(columns, dtype=np.float64).T / 65536


@lru_cache(maxsize=1)
def _srgb_matrix() -> npt.NDArray[np.float64]:
    return _matrix_profile(srgb_profile())[1]


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > 200:
        raise ValueError("more tags than any profile has")
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count))
    return {name: profile[start : start + length] for name, start, length in entries}
