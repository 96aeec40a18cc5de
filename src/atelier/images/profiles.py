"""ICC colour management with LittleCMS: converts samples from the colour space of a profile to sRGB.

8-bit RGB samples with a matrix profile go through Pillow's ImageCms, which is fast and exact to within one
level. Everything else goes through imagecodecs' LittleCMS in float32: deep samples, which ImageCms does not
support, and grey, inks, CIELAB and look-up tables, for which its 8-bit shortcuts are off by up to 20 levels
in dark colours. The rendering intent is relative colorimetric without black point compensation.

A profile that is broken, or whose colour space does not match the samples, is ignored, and the samples count
as sRGB.
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
#: Differences that count as rounding in the test whether a profile is a variant of sRGB: one 8-bit level if
#: LittleCMS computes with 8 bits, else half a level, which covers all published variants of sRGB.
_ROUNDING_8, _ROUNDING_DEEP = 1 / 255, 0.5 / 255


@lru_cache(maxsize=1)
def srgb_profile() -> bytes:
    """An sRGB profile to tag files with."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # LittleCMS writes the current time into the header, but the same picture must give the same file.
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


def to_srgb(colour: npt.NDArray[Any], mode: Mode, profile: bytes | None) -> Floats:
    """Converts samples (H, W, C) in the space of `profile` to sRGB (H, W, 3), float32 0..1.

    See `Raster` for `colour` and `mode`. Without a profile, RGB and grey count as sRGB, CMYK as plain
    subtractive inks, and LAB as CIELAB (D50).
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
    """Converts 8-bit samples; RGB and grey use an RGB matrix profile, if any, everything else uses none."""
    height, width = colour.shape[:2]
    image = Image.frombuffer(mode, (width, height), np.ascontiguousarray(colour), "raw", mode, 0, 1)
    usable = profile and mode in ("L", "RGB") and _space(profile, mode) == "RGB"
    converted = _eight_bits(image, profile) if profile and usable else None
    return to_unit(np.asarray(image.convert("RGB") if converted is None else converted), "the picture")


def _lab_units(colour: npt.NDArray[np.uint8]) -> Floats:
    """CIELAB in its own units from bytes, with a* and b* as signed bytes."""
    lightness = colour[..., :1].astype(np.float32) / np.float32(2.55)
    return np.concatenate([lightness, colour[..., 1:].view(np.int8).astype(np.float32)], axis=2)


def _space(profile: bytes, mode: Mode) -> Mode | None:
    """The mode that `profile` requires for samples of `mode`; None if it does not apply to them.

    Grey samples use an RGB profile as three equal channels.
    """
    space = _SPACES.get(profile[16:20])
    if profile[12:16] not in _CLASSES or profile[36:40] != b"acsp":
        return None
    if space == "RGB" and mode in ("L", "RGB"):
        return space
    return space if space == mode else None


def _is_matrix(profile: bytes) -> bool:
    """Whether an RGB profile has only curves and a matrix, and no device-to-PCS look-up tables."""
    count = int.from_bytes(profile[128:132], "big")
    names = {profile[132 + 12 * i : 136 + 12 * i] for i in range(min(count, 200))}
    return not names & {b"A2B0", b"A2B1", b"D2B0", b"D2B1"}


def _eight_bits(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Converts RGB or grey through an RGB profile; None if the profile is broken."""
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
    """Whether the transform changes no colour of a grid by more than rounding, as for any sRGB profile."""
    moved = np.asarray(transform.apply(Image.fromarray(_grid()))).astype(int)
    return bool(np.abs(moved - _grid()).max() <= _ROUNDING_8 * 255)


def _deep(colour: Floats, space: Mode, profile: bytes) -> Floats | None:
    """Converts float samples through a profile of `space`; None if the profile is broken."""
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


# LittleCMS's name for the samples and the scale of its floats: percent for inks, L*a*b* units for CIELAB.
_LAYOUTS: dict[Mode, tuple[str, float]] = {
    "L": ("gray", 1),
    "RGB": ("rgb", 1),
    "CMYK": ("cmyk", 100),
    "LAB": ("lab", 1),
}


def _transformed(colour: Floats, mode: Mode, profile: bytes) -> Floats:
    """Converts float samples (H, W, C) through a profile to sRGB 0..1. Raises imagecodecs.CmsError."""
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
