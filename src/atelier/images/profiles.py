"""ICC colour management: samples in a profile's colour space to sRGB. LittleCMS does the work.

RGB samples of 8 bits with a matrix profile go through Pillow's ImageCms, which is fast and within a level of
exact. Everything else goes through imagecodecs' LittleCMS in float32: deep samples, which ImageCms does not
know, and grey, inks, CIELAB and look-up tables, where its 8-bit shortcuts are off by up to 20 levels in dark
colours. The rendering intent is relative colorimetric without black point compensation.

A profile that is broken, or whose colour space is not that of the samples, is ignored: the samples then
count as sRGB.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from atelier.images.arrays import Floats, as_rgb, to_unit

Mode = Literal["L", "RGB", "CMYK", "LAB"]

_SPACES: dict[bytes, Mode] = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
# Abstract, device link and named colour profiles do not describe the colours of a picture.
_CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
#: Pixels that are converted at a time, so that working copies stay small.
_STRIP = 2**20
#: Differences that count as rounding when asking whether a profile is sRGB by another name: one level of 8
#: bits where LittleCMS computes with 8 bits, else half a level, which spans all published variants of sRGB.
_ROUNDING_8, _ROUNDING_DEEP = 1 / 255, 0.5 / 255


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An sRGB profile to tag files with."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # LittleCMS writes the time of day into the header; the same picture must give the same file.
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


def to_srgb(colour: npt.NDArray[Any], mode: Mode, profile: bytes | None) -> Floats:
    """sRGB (H, W, 3) float32 0..1 of samples (H, W, C) in the space of `profile`; see `Raster` for `colour`.

    Without a profile RGB and grey count as sRGB, CMYK as plain subtractive inks, and LAB as CIELAB (D50).
    """
    space = _space(profile, mode) if profile else None
    if colour.dtype == np.uint8:
        if mode != "LAB" and (profile is None or space is None or (space == "RGB" and _is_matrix(profile))):
            return _through_pillow(colour, mode, profile)
        if space == "L":
            greys = np.arange(256, dtype=np.uint8)[None, :, None]
            table = to_srgb(_floats(greys, mode), mode, profile)[0]
            return np.asarray(table[colour[..., 0]])
        colour = _floats(colour, mode)
    made = None if profile is None or space is None else _deep(colour, space, profile)
    return _unmanaged(colour, mode) if made is None else made


def _floats(colour: npt.NDArray[np.uint8], mode: Mode) -> Floats:
    return _lab_units(colour) if mode == "LAB" else to_unit(colour, "the picture")


def _unmanaged(colour: Floats, mode: Mode) -> Floats:
    if mode == "LAB":
        return _transformed(colour, mode, _lab_profile())
    if mode == "CMYK":
        return np.asarray((1 - colour[..., :3]) * (1 - colour[..., 3:]), np.float32)
    return as_rgb(colour)


def _through_pillow(colour: npt.NDArray[np.uint8], mode: Mode, profile: bytes | None) -> Floats:
    """8-bit samples; RGB and grey through an RGB matrix profile, if any, and everything else without one."""
    height, width = colour.shape[:2]
    image = Image.frombuffer(mode, (width, height), np.ascontiguousarray(colour), "raw", mode, 0, 1)
    usable = profile and mode in ("L", "RGB") and _space(profile, mode) == "RGB"
    converted = _eight_bits(image, profile) if profile and usable else None
    return to_unit(np.asarray(image.convert("RGB") if converted is None else converted), "the picture")


def _lab_units(colour: npt.NDArray[np.uint8]) -> Floats:
    """CIELAB in its own units from bytes, where a* and b* are signed."""
    lightness = colour[..., :1].astype(np.float32) / np.float32(2.55)
    return np.concatenate([lightness, colour[..., 1:].view(np.int8).astype(np.float32)], axis=2)


def _space(profile: bytes, mode: Mode) -> Mode | None:
    """The mode that samples of `mode` must have for a profile, None where it does not apply to them.

    Grey samples go through an RGB profile as equal channels.
    """
    space = _SPACES.get(profile[16:20])
    if profile[12:16] not in _CLASSES or profile[36:40] != b"acsp":
        return None
    if space == "RGB" and mode in ("L", "RGB"):
        return space
    return space if space == mode else None


def _is_matrix(profile: bytes) -> bool:
    """Whether an RGB profile is curves and a matrix, and has no look-up tables from device to connection."""
    count = int.from_bytes(profile[128:132], "big")
    names = {profile[132 + 12 * i : 136 + 12 * i] for i in range(min(count, 200))}
    return not names & {b"A2B0", b"A2B1", b"D2B0", b"D2B1"}


def _eight_bits(image: Image.Image, profile: bytes) -> Image.Image | None:
    """RGB or grey through an RGB profile; None where it is broken."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB", _INTENT)
        rgb = image.convert("RGB")
        return rgb if _is_identity(transform) else transform.apply(rgb)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _grid() -> npt.NDArray[np.uint8]:
    """(27, 27, 3): 9 x 9 x 9 colours over the whole RGB cube."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether no colour of a grid moves by more than rounding: an sRGB profile by any name."""
    moved = np.asarray(transform.apply(Image.fromarray(_grid()))).astype(int)
    return bool(np.abs(moved - _grid()).max() <= _ROUNDING_8 * 255)


def _deep(colour: Floats, space: Mode, profile: bytes) -> Floats | None:
    """Float samples through a profile of `space`; None where it is broken."""
    import imagecodecs

    samples = as_rgb(colour) if space == "RGB" else colour
    try:
        if space == "RGB" and _is_deep_identity(profile):
            return samples
        made = _transformed(samples, space, profile)
    except imagecodecs.CmsError:
        return None
    return made if np.isfinite(made).all() else None


@lru_cache(maxsize=8)
def _is_deep_identity(profile: bytes) -> bool:
    grid = _grid().astype(np.float32) / np.float32(255)
    return bool(np.abs(_transformed(grid, "RGB", profile) - grid).max() < _ROUNDING_DEEP)


# LittleCMS's name of the samples, and its range for floats: inks are percentages, CIELAB is in its own units.
_LAYOUTS: dict[Mode, tuple[str, float]] = {
    "L": ("gray", 1),
    "RGB": ("rgb", 1),
    "CMYK": ("cmyk", 100),
    "LAB": ("lab", 1),
}


def _transformed(colour: Floats, mode: Mode, profile: bytes) -> Floats:
    """Float samples (H, W, C) in a profile's space as sRGB 0..1. Raises imagecodecs.CmsError."""
    import imagecodecs

    name, scale = _LAYOUTS[mode]
    height, width = colour.shape[:2]
    out = np.empty((height, width, 3), np.float32)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = np.ascontiguousarray(colour[top : top + rows], np.float32)
        strip = strip * np.float32(scale) if scale != 1 else strip
        out[top : top + rows] = imagecodecs.cms_transform(
            strip[..., 0] if mode == "L" else strip,
            profile,
            srgb_profile(),
            colorspace=name,
            outcolorspace="rgb",
            outdtype=np.float32,
            intent=int(_INTENT),
        )
    return out.clip(0, 1, out=out)


@lru_cache(maxsize=1)
def _lab_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
