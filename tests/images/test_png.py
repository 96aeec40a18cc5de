from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atelier.core.errors import InputError
from atelier.images.decode import decode, decode_recipe
from atelier.images.pil import from_pil

CASES = Path(__file__).parent / "cases"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(values: np.ndarray, bits: int, colour: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of unfiltered rows after PNG 7.2; `values` (H, W, C), `before` and `after` are chunks."""
    height, width = values.shape[:2]
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        places = np.arange(bits - 1, -1, -1)
        rows = [np.packbits((row.ravel()[:, None] >> places) & 1).tobytes() for row in values]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + data + after + chunk(b"IEND", b"")


def sample(bits: int, channels: int) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 2**bits, (5, 7, channels)).astype(np.uint32)


@pytest.mark.parametrize(("name", "bits", "key"), [("g16t.png", 16, 1000), ("g2t.png", 2, 1)])
def test_the_transparent_grey_of_a_file(name: str, bits: int, key: int) -> None:
    made = decode((CASES / name).read_bytes(), "a")
    stored = np.rint(made.pixels[..., 0] * (2**bits - 1))
    assert made.alpha is not None
    assert np.array_equal(made.alpha == 0, stored == key)
    assert (made.alpha == 0).any()
    assert set(np.unique(made.alpha)) == {0, 1}


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_transparent_grey_at_every_depth(bits: int, lazy: bool) -> None:
    values = sample(bits, 1)
    key = int(values[2, 3, 0])
    data = png(values, bits, GREY, chunk(b"tRNS", struct.pack(">H", key)))
    made = from_pil(Image.open(io.BytesIO(data))) if lazy else decode(data, "a")
    np.testing.assert_allclose(made.pixels[..., 0], values[..., 0] / (2**bits - 1), atol=1e-7)
    assert made.alpha is not None
    assert np.array_equal(made.alpha, values[..., 0] != key)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour(bits: int) -> None:
    values = sample(bits, 3)
    values[0, :2] = values[2, 3]
    values[0, 0, 2] ^= 1  # differs in the lowest bit only
    key = values[2, 3]
    made = decode(png(values, bits, RGB, chunk(b"tRNS", struct.pack(">3H", *key.tolist()))), "a")
    np.testing.assert_allclose(made.pixels, values / (2**bits - 1), atol=1e-7)
    assert made.alpha is not None
    assert np.array_equal(made.alpha, (values != key).any(axis=2))
    assert (made.alpha == 0).sum() == 2


def test_a_transparent_colour_of_16_bits_in_a_pil_image() -> None:
    values = np.array([[[1000, 2000, 3000], [50000, 2000, 3000]]], np.uint32)
    data = png(values, 16, RGB, chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000)))
    made = from_pil(Image.open(io.BytesIO(data)))
    assert made.alpha is not None
    assert made.alpha.tolist() == [[0, 1]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_at_every_depth(bits: int, transparent: bool) -> None:
    values = sample(bits, 1)
    table = np.random.default_rng(1).integers(0, 256, (2**bits, 3)).astype(np.uint8)
    veil = np.arange(2**bits).astype(np.uint8) * 7
    chunks = chunk(b"PLTE", table.tobytes()) + (chunk(b"tRNS", veil.tobytes()) if transparent else b"")
    made = decode(png(values, bits, PALETTE, chunks), "a")
    assert np.array_equal(np.rint(made.pixels * 255), table[values[..., 0]])
    assert (made.alpha is not None) == transparent
    if made.alpha is not None:
        assert np.array_equal(np.rint(made.alpha * 255), veil[values[..., 0]])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour", [GREY, RGB, GREY_ALPHA, RGBA])
def test_colour_types_agree_with_what_was_written(bits: int, colour: int) -> None:
    channels = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}[colour]
    values = sample(bits, channels)
    made = decode(png(values, bits, colour), "a")
    share = values / (2**bits - 1)
    hues = share[..., :1].repeat(3, axis=2) if channels < 3 else share[..., :3]
    np.testing.assert_allclose(made.pixels, hues, atol=1e-7)
    assert (made.alpha is not None) == (channels in (2, 4))
    if made.alpha is not None:
        np.testing.assert_allclose(made.alpha, share[..., -1], atol=1e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_interlaced_files_of_libvips(dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (21, 34, 4), dtype=dtype)
    image = pyvips.Image.new_from_array(values)
    image = image.copy(interpretation="srgb" if dtype == np.uint8 else "rgb16")
    made = decode(image.pngsave_buffer(interlace=True), "a")
    top = np.iinfo(dtype).max
    assert np.array_equal(np.rint(made.pixels * top), values[..., :3])
    assert made.alpha is not None
    assert np.array_equal(np.rint(made.alpha * top), values[..., 3])


def test_exif_behind_the_pixels_counts() -> None:
    exif = Image.Exif()
    exif[274] = 6
    exif[270] = 'atelier-recipe:{"seed":7}'
    block = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    values = sample(8, 3)
    for data in (png(values, 8, RGB, after=block), png(values, 8, RGB, before=block)):
        made = decode(data, "a")
        assert np.array_equal(np.rint(made.pixels * 255), np.rot90(values, -1))
        assert made.recipe == decode_recipe(data, "a") == {"seed": 7}


def test_a_broken_profile_is_ignored() -> None:
    values = sample(8, 3)
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(b"junk" * 40))
    made = decode(png(values, 8, RGB, profile), "a")
    assert np.array_equal(np.rint(made.pixels * 255), values)


def test_a_wrong_checksum_is_damage() -> None:
    data = bytearray(png(sample(8, 3), 8, RGB))
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(InputError, match="PNG file is damaged"):
        decode(bytes(data), "a")


@pytest.mark.parametrize(("bits", "colour"), [(2, GREY), (8, RGB), (16, GREY), (16, RGB), (16, RGBA)])
def test_cut_files_are_refused_unless_all_pixels_are_there(bits: int, colour: int) -> None:
    data = png(sample(bits, {GREY: 1, RGB: 3, RGBA: 4}[colour]), bits, colour)
    whole = decode(data, "a").pixels
    # The end chunk takes 12 bytes; before it come two checksums of 4, of the chunk and of zlib.
    for cut in range(len(data)):
        if cut < len(data) - 20:
            with pytest.raises(InputError) as caught:
                decode(data[:cut], "a")
            assert "\n" not in str(caught.value)
        elif cut >= len(data) - 12:
            assert np.array_equal(decode(data[:cut], "a").pixels, whole)


def test_damaged_files_leave_the_count_of_references_alone() -> None:
    # imagecodecs releases None once too often where libpng fails, which ends the process at last.
    data = bytearray(png(sample(16, 3), 16, RGB))
    data[data.index(b"IDAT") + 20] ^= 1
    before = sys.getrefcount(None)
    for _ in range(1500):
        with pytest.raises(InputError):
            decode(bytes(data), "a")
    assert sys.getrefcount(None) > before - 750


@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
@settings(max_examples=150, deadline=None)
def test_flipped_bytes_give_a_picture_or_one_sentence(where: list[tuple[float, int]], deep: bool) -> None:
    bits = 16 if deep else 8
    data = bytearray(png(sample(bits, 3), bits, RGB, chunk(b"tRNS", bytes(6))))
    for place, value in where:
        data[int(place * len(data))] = value
    try:
        decode(bytes(data), "a")
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most damage is refused, and some is harmless
