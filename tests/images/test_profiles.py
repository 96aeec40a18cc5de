from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from atelier.images import profiles
from atelier.images.decode import decode

GRID = np.stack(np.meshgrid(*[np.linspace(0, 255, 8).round().astype(np.uint8)] * 3), axis=-1).reshape(
    16, 32, 3
)


def replaced(tags: dict[bytes, bytes]) -> bytes:
    """The sRGB profile with other contents in some tags, which are appended."""
    data = bytearray(profiles.srgb_profile())
    (count,) = struct.unpack_from(">I", data, 128)
    for i in range(count):
        place = 132 + 12 * i
        content = tags.get(bytes(data[place : place + 4]))
        if content is not None:
            struct.pack_into(">II", data, place + 4, len(data), len(content))
            data += content + bytes(-len(content) % 4)
    struct.pack_into(">I", data, 0, len(data))
    return bytes(data)


def curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def table(gamma: float) -> bytes:
    values = (np.linspace(0, 1, 1024) ** gamma * 65535).round().astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + values.tobytes()


def parametric(kind: int, *parameters: float) -> bytes:
    fixed = [round(p * 65536) for p in parameters]
    return b"para" + bytes(4) + struct.pack(f">HH{len(fixed)}i", kind, 0, *fixed)


def all_curves(content: bytes) -> dict[bytes, bytes]:
    return dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), content)


def swapped() -> bytes:
    tags = profiles._tags(profiles.srgb_profile())
    return replaced({b"rXYZ": tags[b"gXYZ"], b"gXYZ": tags[b"rXYZ"]})


CASES = {
    "swapped": swapped(),
    "gamma": replaced(all_curves(curve(1.8))),
    "table": replaced(all_curves(table(1.8))),
    "power": replaced(all_curves(parametric(0, 2.2))),
    "offset": replaced(all_curves(parametric(3, 2.222, 0.9099, 0.0901, 0.2222, 0.081))),
    "long": replaced(all_curves(parametric(4, 2.4, 0.9479, 0.0521, 0.0774, 0.04045, 0.0, 0.0))),
}


def ink_profile() -> bytes:
    """A CMYK profile whose paper is white, whose black is black, and whose every other ink is mid grey."""
    ramp = bytes(range(256))
    corners = b"".join(
        bytes([255 if not any(inks) else 0 if inks[3] else 128, 128, 128]) for inks in np.ndindex(2, 2, 2, 2)
    )
    matrix = struct.pack(">9i", *(np.eye(3).ravel() * 65536).astype(int).tolist())
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + corners + ramp * 3
    white = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(lut))
    head = struct.pack(
        ">I4sI4s4s4s12s4s28s", 144 + len(lut), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"", b"acsp", b""
    )
    return (head + white).ljust(128, b"\0") + tags + lut


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_inks_go_through_their_profile(kind: str) -> None:
    for inks, grey in (((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 0, 0, 0), 119)):
        buffer = io.BytesIO()
        options = {"quality": 100} if kind == "JPEG" else {}
        Image.new("CMYK", (8, 8), inks).save(buffer, kind, icc_profile=ink_profile(), **options)
        # L* of 50 is 119 in sRGB; without the profile cyan ink would be (0, 255, 255).
        np.testing.assert_allclose(decode(buffer.getvalue(), "a").pixels[4, 4] * 255, grey, atol=3)


@pytest.mark.parametrize(
    "content", [parametric(1, 2.0, 0.0, 1.0), parametric(0, -90.0), b"curv", b"para" + bytes(8)]
)
def test_hostile_curves_give_finite_pixels(content: bytes) -> None:
    deep = np.random.default_rng(0).random((3, 3, 3)).astype(np.float32)
    assert np.isfinite(profiles.array_to_srgb(deep, replaced(all_curves(content)))).all()


@pytest.mark.parametrize("name", CASES)
def test_float_conversion_agrees_with_littlecms(name: str) -> None:
    expected = np.asarray(profiles.image_to_srgb(Image.fromarray(GRID), CASES[name])).astype(float)
    got = profiles.array_to_srgb((GRID / 255).astype(np.float32), CASES[name]) * 255
    assert np.abs(got - expected).max() < 1.5


def test_a_profile_with_red_and_green_exchanged_exchanges_them() -> None:
    deep = np.random.default_rng(0).random((5, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(profiles.array_to_srgb(deep, swapped()), deep[..., [1, 0, 2]], atol=1e-4)
    eight = np.asarray(profiles.image_to_srgb(Image.fromarray(GRID), swapped())).astype(int)
    assert np.abs(eight - GRID[..., [1, 0, 2]]).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_embedded_profiles_are_applied(kind: str) -> None:
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    Image.new("RGB", (8, 8), (200, 40, 90)).save(buffer, kind, icc_profile=swapped(), **options)
    pixel = decode(buffer.getvalue(), "a").pixels[4, 4] * 255
    np.testing.assert_allclose(pixel, [40, 200, 90], atol=3)


def test_alpha_passes_a_profile_untouched() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (200, 40, 90, 77)).save(buffer, "PNG", icc_profile=swapped())
    made = decode(buffer.getvalue(), "a")
    assert made.alpha is not None
    np.testing.assert_allclose(made.alpha * 255, 77, atol=1e-4)
    np.testing.assert_allclose(made.pixels[0, 0] * 255, [40, 200, 90], atol=1.5)


def test_srgb_by_any_name_changes_nothing() -> None:
    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = np.random.default_rng(0).random((5, 6, 3)).astype(np.float32)
    for profile in (theirs, profiles.srgb_profile()):
        assert np.array_equal(np.asarray(profiles.image_to_srgb(Image.fromarray(GRID), profile)), GRID)
        assert np.array_equal(profiles.array_to_srgb(deep, profile), deep)


@pytest.mark.parametrize("profile", [b"", b"junk", profiles.srgb_profile()[:200], bytes(600)])
def test_broken_profiles_are_ignored(profile: bytes) -> None:
    assert np.array_equal(np.asarray(profiles.image_to_srgb(Image.fromarray(GRID), profile)), GRID)
    deep = np.full((2, 2, 3), 0.3, np.float32)
    assert np.array_equal(profiles.array_to_srgb(deep, profile), deep)


def test_a_colour_profile_on_grey_and_inks_does_no_harm() -> None:
    for mode in ("L", "CMYK"):
        image = Image.new(mode, (2, 2))
        assert profiles.image_to_srgb(image, swapped()).mode == "RGB"
