"""Colour spaces without an ICC profile: EXIF, and PNG's cICP, gAMA and cHRM."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from atelier.images import Picture, profiles
from atelier.images.decode import decode

CASES = Path(__file__).parent / "cases"
STORED = (200, 60, 120)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(*chunks: bytes, colour: tuple[int, ...] = STORED, bits: int = 8) -> bytes:
    """A PNG of one colour, 2 x 2; the colour is given in 8 bits."""
    step = 1 if bits == 8 else 257
    row = b"\0" + b"".join(int(value * step).to_bytes(bits // 8, "big") for _ in range(2) for value in colour)
    kind = {1: 0, 3: 2}[len(colour)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, bits, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(row * 2)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels


def shown(data: bytes) -> np.ndarray:
    return decode(data, "a").pixels[0, 0] * 255


def encoded(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def decoded(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def to_709(xy: tuple[float, ...]) -> np.ndarray:
    """Linear RGB of some primaries (red, green, blue; white is D65) to that of BT.709."""

    def to_xyz(corners: tuple[float, ...]) -> np.ndarray:
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in np.reshape(corners, (3, 2))]).T
        white = np.array([0.3127 / 0.329, 1, (1 - 0.3127 - 0.329) / 0.329])
        return columns * np.linalg.solve(columns, white)

    return np.linalg.solve(to_xyz((0.64, 0.33, 0.3, 0.6, 0.15, 0.06)), to_xyz(xy))


P3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
BT2020 = (0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
ADOBE = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


def cicp(primaries: int, transfer: int, full: int = 1, matrix: int = 0) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, matrix, full]))


def gama(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chrm(*corners: float, white: tuple[float, float] = (0.3127, 0.329)) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in (*white, *corners))))


SRGB = chunk(b"sRGB", b"\0")
ICC_SWAP = chunk(
    b"iCCP",
    b"x\0\0"
    + zlib.compress(
        profiles.srgb_profile().replace(b"rXYZ", b"qXYZ").replace(b"gXYZ", b"rXYZ").replace(b"qXYZ", b"gXYZ")
    ),
)  # red and green exchanged
SWAPPED = (60, 200, 120)


def test_the_cases_have_the_right_values() -> None:
    pixels = np.rint(Picture.open(CASES / "r03.jpg").pixels * 255)
    for place, colour in ((8, (0, 201, 37)), (40, (255, 35, 23))):
        assert np.abs(pixels[8] - colour).max(axis=1).min() <= 1, place
    grey = Picture.open(CASES / "gama1.png").pixels * 255
    stored = np.asarray(Image.open(CASES / "gama1.png"))
    assert set(np.rint(grey[stored == 55]).ravel().tolist()) == {128}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
@pytest.mark.parametrize("space", [65535, 2])
def test_exif_names_adobe_rgb(kind: str, space: int) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    buffer = io.BytesIO()
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    Image.new("RGB", (16, 16), (90, 140, 60)).save(buffer, kind, exif=exif.tobytes(), **lossless)
    light = to_709(ADOBE) @ (np.array([90, 140, 60]) / 255) ** (563 / 256)
    np.testing.assert_allclose(shown(buffer.getvalue()), encoded(light), atol=3 if kind == "JPEG" else 1)


@pytest.mark.parametrize(("space", "index"), [(1, "R98"), (65535, "R98"), (65535, "THM")])
def test_exif_that_names_no_adobe_rgb_is_srgb(space: int, index: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    exif.get_ifd(0x8769)[0xA005] = {1: index}
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), STORED).save(buffer, "PNG", exif=exif.tobytes())
    assert np.rint(shown(buffer.getvalue())).tolist() == list(STORED)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("primaries", "xy"), [(1, (0.64, 0.33, 0.3, 0.6, 0.15, 0.06)), (9, BT2020), (12, P3)]
)
@pytest.mark.parametrize("transfer", [1, 4, 8, 13, 14, 15])
def test_cicp_of_sdr(primaries: int, xy: tuple[float, ...], transfer: int, bits: int) -> None:
    value = np.array(STORED) / 255
    alpha = 1.09929682680944
    light = {4: value**2.2, 8: value, 13: decoded(value)}.get(
        transfer, np.where(value < 0.0812, value / 4.5, ((value + alpha - 1) / alpha) ** (1 / 0.45))
    )
    got = shown(png(cicp(primaries, transfer), bits=bits))
    np.testing.assert_allclose(got, encoded(to_709(xy) @ light), atol=1.1 if bits == 8 else 0.2)


def test_cicp_of_hdr_has_reference_white_at_white() -> None:
    """ITU-R BT.2408: 203 cd/m2 is 58 % of PQ and 75 % of HLG; brighter light is clipped."""
    for transfer, white in ((16, 0.5807), (18, 0.75)):
        grey = round(white * 255)
        for value, expected in ((grey, 255), (255, 255), (0, 0)):
            got = shown(png(cicp(9, transfer), colour=(value,) * 3, bits=16))
            np.testing.assert_allclose(got, expected, atol=1.5)
    # 100 cd/m2 are 50.81 % of PQ: 100 / 203 of white.
    got = shown(png(cicp(9, 16), colour=(0.5081 * 255,) * 3, bits=16))
    np.testing.assert_allclose(got, encoded(np.full(3, 100 / 203)), atol=1)


@pytest.mark.parametrize("bits", [8, 16])
def test_cicp_of_narrow_range(bits: int) -> None:
    step = 1 if bits == 8 else 256 / 257
    for code, expected in ((16, 0), (235, 255), (126, 128.08)):
        got = shown(png(cicp(1, 13, full=0), colour=(code * step,) * 3, bits=bits))
        np.testing.assert_allclose(got, expected, atol=1.1)


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 0.6])
def test_gamma_without_chromaticities(gamma: float) -> None:
    got = shown(png(gama(gamma), bits=16))
    np.testing.assert_allclose(got, encoded((np.array(STORED) / 255) ** (1 / gamma)), atol=0.2)
    grey = shown(png(gama(gamma), colour=(90,), bits=16))
    np.testing.assert_allclose(grey, encoded(np.full(3, (90 / 255) ** (1 / gamma))), atol=0.2)


def test_chromaticities_with_and_without_gamma() -> None:
    value = np.array(STORED) / 255
    got = shown(png(chrm(*P3), gama(1 / 1.8), bits=16))
    np.testing.assert_allclose(got, encoded(to_709(P3) @ value**1.8), atol=0.2)
    got = shown(png(chrm(*P3), bits=16))
    np.testing.assert_allclose(got, encoded(to_709(P3) @ decoded(value)), atol=0.2)


def test_the_gamma_that_stands_for_srgb_changes_nothing() -> None:
    srgb = chrm(0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
    for chunks in ((gama(0.45455),), (srgb,), (gama(0.45455), srgb)):
        assert np.rint(shown(png(*chunks))).tolist() == list(STORED)


@pytest.mark.parametrize(
    "chunks",
    [
        (gama(0),),
        (chrm(0, 0, 0, 0, 0, 0, white=(0, 0)), gama(1)),
        (chrm(0.3, 0.3, 0.3, 0.3, 0.3, 0.3), gama(1)),
        (chrm(0.1, 0.1, 0.2, 0.1, 0.1, 0.2), gama(1)),
        (cicp(2, 13),),
        (cicp(1, 200),),
        (cicp(1, 8, matrix=1),),
        (chunk(b"cICP", b"\1"),),
    ],
)
def test_impossible_values_count_as_srgb(chunks: tuple[bytes, ...]) -> None:
    assert np.rint(shown(png(*chunks))).tolist() == list(STORED)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((cicp(1, 13), ICC_SWAP, gama(1)), STORED),
        ((ICC_SWAP, gama(1)), SWAPPED),
        ((SRGB, gama(1)), STORED),
        ((cicp(1, 8), SRGB), encoded(np.array(STORED) / 255)),
        ((cicp(2, 2), ICC_SWAP), SWAPPED),
    ],
    ids=[
        "cICP over iCCP",
        "iCCP over gAMA",
        "sRGB over gAMA",
        "cICP over sRGB",
        "iCCP where cICP says nothing",
    ],
)
def test_the_precedence_of_png(chunks: tuple[bytes, ...], expected: tuple[int, ...]) -> None:
    np.testing.assert_allclose(shown(png(*chunks)), expected, atol=1.1)


def test_an_opened_pil_image_has_its_gamma() -> None:
    opened = Image.open(io.BytesIO(png(gama(1.0))))
    np.testing.assert_allclose(
        Picture.of(opened).pixels[0, 0] * 255, encoded(np.array(STORED) / 255), atol=1.1
    )


def test_text_chunks_are_no_colour() -> None:
    info = PngInfo()
    info.add_text("gamma", "1.0")
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), STORED).save(buffer, "PNG", pnginfo=info)
    assert np.rint(shown(buffer.getvalue())).tolist() == list(STORED)


@pytest.mark.parametrize(("index", "expected"), [("R03", (0, 201, 37)), ("R98", (0, 200, 60))])
def test_tiff_says_adobe_rgb_by_exif_too(tmp_path: Path, index: str, expected: tuple[int, int, int]) -> None:
    tags = ImageFileDirectory_v2()
    tags[0x8769] = {0xA001: 65535, 0xA005: {1: index}}
    Image.new("RGB", (4, 4), (0, 200, 60)).save(tmp_path / "a.tif", tiffinfo=tags)
    np.testing.assert_allclose(Picture.open(tmp_path / "a.tif").pixels[0, 0] * 255, expected, atol=1)
    stored = Picture.of(tmp_path / "a.tif", data=True).pixels[0, 0] * 255
    np.testing.assert_allclose(stored, (0, 200, 60), atol=1e-4)
