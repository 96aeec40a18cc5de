"""Profiles of every class, connection space and depth, against closed forms."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from atelier.images import profiles
from atelier.images.decode import decode

GRID = np.stack(np.meshgrid(*[np.linspace(0, 255, 8).round().astype(np.uint8)] * 3), axis=-1).reshape(
    16, 32, 3
)
Curve = Callable[[np.ndarray], np.ndarray]


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light to sRGB, IEC 61966-2-1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def luminance(lightness: np.ndarray) -> np.ndarray:
    """CIE L* 0..1 to Y 0..1."""
    return np.where(lightness > 0.08, ((lightness * 100 + 16) / 116) ** 3, lightness * 100 / 903.2963)


def tags_of(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count))
    return {name: profile[start : start + length] for name, start, length in entries}


SRGB_TAGS = tags_of(profiles.srgb_profile())
COLUMNS = (
    np.array([struct.unpack_from(">3i", SRGB_TAGS[name], 8) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]).T
    / 65536
)


def made(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of version 2.4 out of its class, colour space, connection space and tags."""
    tags = {b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    start = 132 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = start + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, kind, space, connection, b"acsp")
    return head.ljust(68, b"\0") + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D).ljust(60, b"\0") + table + body


def curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def table(gamma: float) -> bytes:
    values = (np.linspace(0, 1, 1024) ** gamma * 65535).round().astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", 1024) + values.tobytes()


def parametric(kind: int, *parameters: float) -> bytes:
    fixed = [round(p * 65536) for p in parameters]
    return b"para" + bytes(4) + struct.pack(f">HH{len(fixed)}i", kind, 0, *fixed)


def matrix_profile(kind: bytes, content: bytes, order: tuple[int, int, int] = (0, 1, 2)) -> bytes:
    """RGB with one curve for all channels and the primaries of sRGB, in another order."""
    names = [(b"rXYZ", b"gXYZ", b"bXYZ")[i] for i in order]
    columns = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), (SRGB_TAGS[name] for name in names), strict=True))
    return made(kind, b"RGB ", b"XYZ ", columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), content))


def lut_profile(kind: bytes, space: bytes, connection: bytes, corner: Curve) -> bytes:
    """A table of two points an axis behind curves of gamma 2; `corner` gives its 16-bit entries."""
    inputs = {b"RGB ": 3, b"CMYK": 4, b"GRAY": 1}[space]
    ramp = (np.linspace(0, 1, 4096) ** 2 * 65535).round().astype(">u2").tobytes()
    matrix = struct.pack(">9i", *(np.eye(3, dtype=int).ravel() * 65536).tolist())
    corners = np.array([corner(np.array(place)) for place in np.ndindex(*[2] * inputs)])
    points = np.rint(corners).clip(0, 65535).astype(">u2").tobytes()
    line = np.array([0, 65535], ">u2").tobytes()
    lut = b"mft2" + bytes(4) + bytes([inputs, 3, 2, 0]) + matrix + struct.pack(">HH", 4096, 2)
    return made(kind, space, connection, {b"A2B0": lut + ramp * inputs + points + line * 3})


def swapped() -> bytes:
    return matrix_profile(b"mntr", SRGB_TAGS[b"rTRC"], (1, 0, 2))


def bt709(value: np.ndarray) -> np.ndarray:
    return np.where(value < 0.081, value * 0.2222, (value * 0.9099 + 0.0901) ** 2.222)


CURVES: dict[str, tuple[bytes, Curve]] = {
    "gamma": (curve(1.8), lambda value: value ** (461 / 256)),
    "table": (table(1.8), lambda value: value**1.8),
    "power": (parametric(0, 2.2), lambda value: value**2.2),
    "offset": (parametric(3, 2.222, 0.9099, 0.0901, 0.2222, 0.081), bt709),
    "linear": (curve(1.0), lambda value: value),
}
CLASSES = [b"scnr", b"mntr", b"prtr", b"spac"]
DEPTHS = {8: 0.8, 16: 0.12}  # the levels of 8 bits by which a colour may be off


def samples(bits: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours (40, 25, C) as a raster holds them, and as float64 0..1."""
    numbers = np.random.default_rng(channels).integers(0, 256, (40, 25, channels), dtype=np.uint8)
    numbers[0] = np.arange(25)[:, None]  # the darks, where shortcuts fail
    values = numbers / 255
    return (numbers, values) if bits == 8 else (values.astype(np.float32), values)


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("kind", CLASSES)
def test_matrix_profiles(kind: bytes, name: str, bits: int) -> None:
    content, light = CURVES[name]
    stored, values = samples(bits, 3)
    got = profiles.to_srgb(stored, "RGB", matrix_profile(kind, content)) * 255
    assert np.abs(got - encoded(light(values)) * 255).max() < DEPTHS[bits]


def xyz_code(xyz: np.ndarray) -> np.ndarray:
    return xyz * 32768


def lab_code(lightness: float) -> np.ndarray:
    return np.array([lightness * 0xFF00, 0x8000, 0x8000])


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("kind", CLASSES)
def test_tables_of_rgb_to_xyz(kind: bytes, bits: int) -> None:
    stored, values = samples(bits, 3)
    profile = lut_profile(kind, b"RGB ", b"XYZ ", lambda place: xyz_code(COLUMNS @ place))
    got = profiles.to_srgb(stored, "RGB", profile) * 255
    assert np.abs(got - encoded(values**2) * 255).max() < 0.5


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("kind", CLASSES)
def test_tables_of_rgb_to_lab(kind: bytes, bits: int) -> None:
    stored, values = samples(bits, 3)
    profile = lut_profile(kind, b"RGB ", b"Lab ", lambda place: lab_code(place[1]))
    got = profiles.to_srgb(stored, "RGB", profile) * 255
    expected = encoded(luminance(values[..., 1:2] ** 2)) * 255
    assert np.abs(got - expected).max() < 0.5


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("connection", [b"XYZ ", b"Lab "])
@pytest.mark.parametrize("kind", CLASSES)
def test_tables_of_inks(kind: bytes, connection: bytes, bits: int) -> None:
    """Light falls with the square of black ink, and the other inks are water."""
    stored, values = samples(bits, 4)
    white = np.array([0.9642, 1, 0.8249])

    def corner(place: np.ndarray) -> np.ndarray:
        bright = 1.0 - place[3]
        return xyz_code(white * bright) if connection == b"XYZ " else lab_code(bright)

    got = profiles.to_srgb(stored, "CMYK", lut_profile(kind, b"CMYK", connection, corner)) * 255
    left = 1 - values[..., 3:] ** 2
    expected = encoded(left if connection == b"XYZ " else luminance(left)) * 255
    assert np.abs(got - expected).max() < 0.6


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("connection", [b"XYZ ", b"Lab "])
@pytest.mark.parametrize("kind", CLASSES)
def test_grey_curves(kind: bytes, connection: bytes, bits: int) -> None:
    stored, values = samples(bits, 1)
    profile = made(kind, b"GRAY", connection, {b"kTRC": table(2.2)})
    got = profiles.to_srgb(stored, "L", profile) * 255
    light = values**2.2
    expected = encoded(light if connection == b"XYZ " else luminance(light)) * 255
    assert got.shape == (40, 25, 3)
    assert np.abs(got - expected).max() < 0.3


def test_lab_of_any_depth_is_cielab() -> None:
    # L* 53.585 is sRGB 128; (54.29, 80.8, 69.9) is sRGB red, from D50 (Lindbloom).
    colours = np.array([[[53.585, 0, 0], [54.29, 80.8, 69.9]]], np.float32)
    expected = [[128, 128, 128], [255, 0, 0]]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for one in (None, profile):
        deep = profiles.to_srgb(colours, "LAB", one)[0] * 255
        np.testing.assert_allclose(deep, expected, atol=1.5)
    stored = np.array([[[137, 0, 0], [138, 81, 70]]], np.uint8)
    np.testing.assert_allclose(profiles.to_srgb(stored, "LAB", None)[0] * 255, expected, atol=3)


def test_16_bits_keep_their_depth_through_a_table() -> None:
    profile = lut_profile(b"scnr", b"RGB ", b"XYZ ", lambda place: xyz_code(COLUMNS @ place))
    values = np.arange(30_000, 30_256, dtype=np.uint16).reshape(16, 16, 1).repeat(3, axis=2)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="rgb", iccprofile=profile)
    got = decode(buffer.getvalue(), "a").pixels
    assert len(np.unique(got[..., 1])) > 128  # the one level of 8 bits that these numbers span
    assert np.abs(got - encoded((values / 65535) ** 2)).max() < 0.5 / 255


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_inks_go_through_their_profile(kind: str) -> None:
    profile = lut_profile(b"prtr", b"CMYK", b"Lab ", lambda place: lab_code(1.0 - place[3]))
    # Cyan ink is water here; without the profile it would be (0, 255, 255).
    for inks, grey in (((0, 0, 0, 0), 255), ((0, 0, 0, 255), 0), ((255, 0, 0, 0), 255)):
        buffer = io.BytesIO()
        options = {"quality": 100} if kind == "JPEG" else {}
        Image.new("CMYK", (8, 8), inks).save(buffer, kind, icc_profile=profile, **options)
        np.testing.assert_allclose(decode(buffer.getvalue(), "a").pixels[4, 4] * 255, grey, atol=3)


def test_a_profile_with_red_and_green_exchanged_exchanges_them() -> None:
    deep = np.random.default_rng(0).random((5, 6, 3)).astype(np.float32)
    np.testing.assert_allclose(profiles.to_srgb(deep, "RGB", swapped()), deep[..., [1, 0, 2]], atol=5e-4)
    eight = profiles.to_srgb(GRID, "RGB", swapped()) * 255
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
    made_of = decode(buffer.getvalue(), "a")
    assert made_of.alpha is not None
    np.testing.assert_allclose(made_of.alpha * 255, 77, atol=1e-4)
    np.testing.assert_allclose(made_of.pixels[0, 0] * 255, [40, 200, 90], atol=1.5)


def test_srgb_by_any_name_changes_nothing() -> None:
    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = np.random.default_rng(0).random((5, 6, 3)).astype(np.float32)
    for profile in (theirs, profiles.srgb_profile()):
        assert np.array_equal(np.rint(profiles.to_srgb(GRID, "RGB", profile) * 255), GRID)
        assert np.array_equal(profiles.to_srgb(deep, "RGB", profile), deep)


WRONG = {
    "empty": b"",
    "junk": b"junk",
    "cut": profiles.srgb_profile()[:200],
    "zeros": bytes(600),
    "no tags": made(b"mntr", b"RGB ", b"XYZ ", {}),
    "inks": lut_profile(b"prtr", b"CMYK", b"Lab ", lambda place: lab_code(1.0 - place[3])),
    "grey": made(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve(2.2)}),
    "abstract": matrix_profile(b"abst", curve(1.0)),
    "link": matrix_profile(b"link", curve(1.0)),
    "no curve": matrix_profile(b"mntr", b"curv"),
    "cut curve": matrix_profile(b"mntr", b"para" + bytes(8)),
}


@pytest.mark.parametrize("name", WRONG)
def test_broken_profiles_and_those_of_another_space_count_as_srgb(name: str) -> None:
    assert np.array_equal(np.rint(profiles.to_srgb(GRID, "RGB", WRONG[name]) * 255), GRID)
    deep = np.full((2, 2, 3), 0.3, np.float32)
    assert np.array_equal(profiles.to_srgb(deep, "RGB", WRONG[name]), deep)


def test_a_colour_profile_on_inks_is_ignored() -> None:
    inks = np.array([[[255, 0, 0, 0]]], np.uint8)
    assert profiles.to_srgb(inks, "CMYK", swapped()).tolist() == [[[0, 1, 1]]]


@pytest.mark.parametrize(
    "content", [parametric(1, 2.0, 0.0, 1.0), parametric(0, -90.0), parametric(0, 900.0)]
)
def test_hostile_curves_give_finite_pixels(content: bytes) -> None:
    deep = np.random.default_rng(0).random((3, 3, 3)).astype(np.float32)
    got = profiles.to_srgb(deep, "RGB", matrix_profile(b"mntr", content))
    assert np.isfinite(got).all()
    assert 0 <= got.min() <= got.max() <= 1


@given(
    which=st.sampled_from([swapped(), WRONG["inks"], WRONG["grey"]]),
    where=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_flipped_bytes_of_a_profile_never_escape(which: bytes, where: list[tuple[float, int]]) -> None:
    data = bytearray(which)
    for place, value in where:
        data[int(place * min(len(data), 600))] = value
    for stored, mode in ((GRID, "RGB"), (np.full((3, 3, 4), 0.4, np.float32), "CMYK")):
        got = profiles.to_srgb(stored, mode, bytes(data))
        assert np.isfinite(got).all()
