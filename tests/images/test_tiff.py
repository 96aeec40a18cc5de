"""TIFF against an independent reader (libvips, over libtiff), Pillow, and the arrays that were written."""

from __future__ import annotations

import io
import itertools
import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from atelier.core.errors import InputError
from atelier.images.decode import decode, decode_recipe

CASES = Path(__file__).parent / "cases"
TYPES = ("u1", "u2", "u4", "f2", "f4", "f8")
PACKINGS = [(None, False), ("packbits", False)] + [
    (name, predictor) for name in ("lzw", "zlib", "zstd", "lzma") for predictor in (False, True)
]
TILES = (None, (16, 16))
# What lays an upright picture down as tag 274 describes (TIFF 6.0: where the 0th row and column are).
LAID = {
    1: lambda v: v,
    2: np.fliplr,
    3: lambda v: np.rot90(v, 2),
    4: np.flipud,
    5: lambda v: v.swapaxes(0, 1),
    6: lambda v: np.rot90(v, 1),
    7: lambda v: np.rot90(v, 2).swapaxes(0, 1),
    8: lambda v: np.rot90(v, -1),
}


def random(dtype: str, shape: tuple[int, ...] = (19, 23, 3)) -> np.ndarray:
    draw = np.random.default_rng(0)
    if dtype[0] == "f":
        return draw.random(shape).astype(dtype)
    return draw.integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=dtype)


def unit(values: np.ndarray) -> np.ndarray:
    top = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    return values.astype(np.float64) / top


def written(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, metadata=None, **{"photometric": "rgb"} | options)
    return buffer.getvalue()


def laid(upright: np.ndarray, turn: int, planar: str) -> np.ndarray:
    values = LAID[turn](upright)
    return np.ascontiguousarray(values if planar == "contig" else values.transpose(2, 0, 1))


def check(
    dtype: str, packing: tuple[str | None, bool], planar: str, tile: Any, turn: int, order: str
) -> None:
    upright = random(dtype)
    compression, predictor = packing
    options = {"rowsperstrip": 5} if tile is None else {"tile": tile}
    data = written(
        laid(upright, turn, planar),
        planarconfig=planar,
        compression=compression,
        predictor=predictor,
        byteorder=order,
        bigtiff=turn % 2 == 0,
        extratags=[(274, 3, 1, turn, True)],
        **options,
    )
    np.testing.assert_allclose(decode(data, "a").pixels, unit(upright), rtol=0, atol=1e-7)
    vips_can = dtype in ("u1", "u2", "u4", "f4") and compression not in ("zstd", "lzma")
    if vips_can and not (tile and planar == "separate"):
        assert np.array_equal(pyvips.Image.new_from_buffer(data, "").autorot().numpy(), upright)


def sentence_of(use: Callable[[bytes, str], object], data: bytes) -> str:
    """The InputError that a file gives, empty where it is read; anything else escapes and fails."""
    try:
        use(data, "a")
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_depths_layouts_and_compressions_agree_with_libvips(
    dtype: str, packing: tuple[str | None, bool]
) -> None:
    forms = itertools.product(("contig", "separate"), TILES, "<>")
    for turn, (planar, tile, order) in enumerate(forms, start=1):
        check(dtype, packing, planar, tile, turn, order)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_every_combination_with_every_orientation(dtype: str, packing: tuple[str | None, bool]) -> None:
    for planar, tile, order, turn in itertools.product(("contig", "separate"), TILES, "<>", LAID):
        check(dtype, packing, planar, tile, turn, order)


@pytest.mark.parametrize("turn", LAID)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_every_orientation_of_packed_files(turn: int, dtype: str) -> None:
    check(dtype, ("lzw", True), "contig", None, turn, "<")
    check(dtype, ("zlib", True), "separate", (16, 16), turn, ">")


def test_a_compressed_16_bit_file_is_turned_once() -> None:
    made = decode((CASES / "tt_rgb16_o6lzw.tif").read_bytes(), "a")
    assert made.pixels.shape == (60, 40, 3)
    stored = pyvips.Image.new_from_file(str(CASES / "tt_rgb16_o6lzw.tif")).autorot().numpy()
    assert np.array_equal(np.rint(made.pixels * 65535), stored)


def test_cmyk_with_alpha_is_a_picture_with_alpha() -> None:
    stored = tifffile.imread(CASES / "cmyka.tif").astype(np.float64) / 255
    made = decode((CASES / "cmyka.tif").read_bytes(), "a")
    expected = (1 - stored[..., :3]) * (1 - stored[..., 3:4])
    np.testing.assert_allclose(made.pixels, expected, atol=1.01 / 255)
    assert made.alpha is not None
    np.testing.assert_allclose(made.alpha, stored[..., 4], atol=1e-6)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_inks_at_every_depth(dtype: str, planar: str) -> None:
    inks = random(dtype, (5, 6, 4))
    stored = inks if planar == "contig" else inks.transpose(2, 0, 1)
    data = written(np.ascontiguousarray(stored), photometric="separated", planarconfig=planar)
    share = unit(inks)
    expected = (1 - share[..., :3]) * (1 - share[..., 3:])
    np.testing.assert_allclose(decode(data, "a").pixels, expected, atol=1e-6 if dtype != "u1" else 1.01 / 255)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_grey_with_and_without_alpha(dtype: str, white_is_zero: bool) -> None:
    values = random(dtype, (4, 5, 2))
    photometric = "miniswhite" if white_is_zero else "minisblack"
    grey = 1 - unit(values[..., 0]) if white_is_zero else unit(values[..., 0])
    plain = decode(written(values[..., 0], photometric=photometric), "a")
    both = decode(
        written(values, photometric=photometric, extrasamples=["unassalpha"], planarconfig="contig"), "a"
    )
    for made in (plain, both):
        np.testing.assert_allclose(made.pixels, grey[..., None].repeat(3, axis=2), atol=1e-6)
    assert plain.alpha is None
    assert both.alpha is not None
    np.testing.assert_allclose(both.alpha, unit(values[..., 1]), atol=1e-6)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_alpha_multiplied_in_is_divided_out(dtype: str, planar: str) -> None:
    colour, alpha = np.array([0.8, 0.4, 0.2]), np.array([1.0, 0.6, 0.0])
    share = np.concatenate([alpha[:, None] * colour, alpha[:, None]], axis=1)[None]
    top = 1 if dtype == "f4" else np.iinfo(dtype).max
    stored = (share if dtype == "f4" else np.rint(share * top)).astype(dtype)
    if planar == "separate":
        stored = np.ascontiguousarray(stored.transpose(2, 0, 1))
    made = decode(written(stored, extrasamples=["assocalpha"], planarconfig=planar, compression="lzw"), "a")
    assert made.alpha is not None
    np.testing.assert_allclose(made.alpha[0], alpha, atol=1e-6)
    np.testing.assert_allclose(made.pixels[0, :2], [colour, colour], atol=2 / top if top > 1 else 1e-6)
    assert made.pixels[0, 2].tolist() == [0, 0, 0]


def test_extra_samples_that_are_not_alpha_are_left_out() -> None:
    values = random("u1", (4, 5, 5))
    unknown = decode(written(values[..., :4], extrasamples=["unspecified"]), "a")
    second = decode(written(values, extrasamples=["unspecified", "unassalpha"], planarconfig="contig"), "a")
    assert unknown.alpha is None
    assert second.alpha is not None
    assert np.array_equal(np.rint(second.alpha * 255), values[..., 4])
    assert np.array_equal(np.rint(second.pixels * 255), values[..., :3])


def test_rgb_of_four_samples_without_the_tag_has_alpha_as_in_pillow() -> None:
    values = random("u1", (4, 5, 4))
    data = bytearray(written(values, extrasamples=["unassalpha"]))
    place = data.index(struct.pack("<HHI", 338, 3, 1))
    data[place : place + 2] = struct.pack("<H", 65000)  # ExtraSamples becomes a private tag
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGBA"
    made = decode(bytes(data), "a")
    assert made.alpha is not None
    assert np.array_equal(np.rint(made.alpha * 255), values[..., 3])


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_few_bits_agree_with_libvips(bits: int, white_is_zero: bool) -> None:
    ramp = np.linspace(0, 255, 2**bits).round().astype(np.uint8)
    grey = ramp[np.random.default_rng(0).integers(0, 2**bits, (9, 13))]
    data = (
        pyvips.Image.new_from_array(grey)
        .cast("uchar")
        .copy(interpretation="b-w")
        .tiffsave_buffer(bitdepth=bits, miniswhite=white_is_zero, compression="deflate", predictor="none")
    )
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.pages.first.bitspersample == bits
        assert file.pages.first.photometric == (0 if white_is_zero else 1)
    # libvips negates miniswhite files whether it wrote them so or not; the tag says what is stored.
    stored = pyvips.Image.new_from_buffer(data, "").numpy()
    assert np.array_equal(np.rint(decode(data, "a").pixels[..., 0] * 255), stored)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_samples_are_scaled_by_their_own_maximum(bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (6, 8, 3)).astype(np.uint16)
    data = written(values, bitspersample=bits)
    np.testing.assert_allclose(decode(data, "a").pixels, values / (2**bits - 1), atol=1e-7)


@pytest.mark.parametrize("packing", ["group3", "group4", "tiff_ccitt"])
def test_fax_compressions_agree_with_pillow(packing: str) -> None:
    page = Image.fromarray(random("u1", (20, 33)) > 128)
    buffer = io.BytesIO()
    page.save(buffer, "TIFF", compression=packing)
    made = decode(buffer.getvalue(), "a").pixels[..., 0]
    assert np.array_equal(made == 1, np.asarray(page))


@pytest.mark.parametrize("scale", [256, 257])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_palettes_of_both_scales(scale: int, compression: str | None) -> None:
    table = np.zeros((3, 256), np.uint16)
    table[:, :3] = [[255, 0, 17], [0, 200, 17], [0, 0, 18]]
    index = np.array([[0, 1, 2]], np.uint8)
    data = written(index, photometric="palette", colormap=table * scale, compression=compression)
    expected = [[[255, 0, 0], [0, 200, 0], [17, 17, 18]]]
    assert np.rint(decode(data, "a").pixels * 255).tolist() == expected


def test_a_palette_of_16_bit_colours_keeps_them() -> None:
    table = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    made = decode(written(np.arange(256, dtype=np.uint8)[None], photometric="palette", colormap=table), "a")
    assert np.array_equal(np.rint(made.pixels[0] * 65535), table.T)


@pytest.mark.parametrize("tile", [False, True])
@pytest.mark.parametrize("space", ["rgb", "b-w", "cmyk"])
def test_jpeg_inside_agrees_with_libvips(tile: bool, space: str) -> None:
    bands = {"rgb": 3, "b-w": 1, "cmyk": 4}[space]
    smooth = np.indices((48, 64)).sum(axis=0)[..., None] * np.arange(1, bands + 1) // bands * 2
    image = pyvips.Image.new_from_array(smooth.astype(np.uint8)).copy(interpretation=space)
    data = image.tiffsave_buffer(compression="jpeg", Q=90, tile=tile, tile_width=32, tile_height=32)
    stored = pyvips.Image.new_from_buffer(data, "").numpy().reshape(48, 64, bands) / 255
    expected = (1 - stored[..., :3]) * (1 - stored[..., 3:]) if space == "cmyk" else stored
    assert np.abs(decode(data, "a").pixels - expected).max() <= 2.01 / 255


def test_webp_inside_agrees_with_libvips() -> None:
    values = random("u1", (40, 50, 3))
    image = pyvips.Image.new_from_array(values).copy(interpretation="srgb")
    try:
        data = image.tiffsave_buffer(compression="webp", lossless=True)
    except pyvips.Error:
        data = written(values, compression="webp", compressionargs={"level": -1})
    assert np.array_equal(np.rint(decode(data, "a").pixels * 255), values)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2), (2, 1)])
def test_ycbcr_without_jpeg(subsampling: tuple[int, int]) -> None:
    # One colour, so that subsampling does not matter: JFIF's conversion (ITU-R BT.601, full range).
    luma, blue, red = 120, 100, 150
    horizontal, vertical = subsampling
    block = bytes([luma] * (horizontal * vertical) + [blue, red])
    data = ycbcr(8, 8, block * (64 // (horizontal * vertical)), subsampling)
    expected = [luma + 1.402 * 22, luma + 0.344136 * 28 - 0.714136 * 22, luma - 1.772 * 28]
    made = decode(data, "a").pixels * 255
    np.testing.assert_allclose(made, np.broadcast_to(expected, (8, 8, 3)), atol=1.01)


def test_ycbcr_in_separate_jpeg_planes_is_refused_and_not_taken_for_rgb() -> None:
    planes = random("u1", (3, 16, 16))
    data = bytearray(written(planes, planarconfig="separate", compression="jpeg"))
    struct.pack_into("<H", data, data.index(struct.pack("<HHI", 262, 3, 1)) + 8, 6)
    with pytest.raises(InputError, match="of an unsupported kind"):
        decode(bytes(data), "a")


@pytest.mark.parametrize("turn", LAID)
def test_every_orientation_of_ycbcr(turn: int) -> None:
    luma = random("u1", (6, 9))
    flat = np.ascontiguousarray(LAID[turn](luma))
    samples = np.stack([flat, np.full_like(flat, 128), np.full_like(flat, 128)], axis=-1).tobytes()
    data = ycbcr(flat.shape[1], flat.shape[0], samples, (1, 1), turn)
    np.testing.assert_allclose(decode(data, "a").pixels[..., 0] * 255, luma, atol=0.01)


def test_an_uncompressed_strip_may_claim_more_bytes_than_the_file_has() -> None:
    values = random("u1")
    data = bytearray(written(values))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages.first.tags[279].valueoffset
    struct.pack_into("<I", data, place, values.nbytes + 4096)
    assert np.array_equal(np.rint(decode(bytes(data), "a").pixels * 255), values)


def ycbcr(width: int, height: int, samples: bytes, subsampling: tuple[int, int], turn: int = 1) -> bytes:
    """An uncompressed YCbCr TIFF of one strip, with full-range ReferenceBlackWhite."""
    entries = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [8, 8, 8]),
        (259, 3, [1]),
        (262, 3, [6]),
        (273, 4, [0]),  # filled in below
        (274, 3, [turn]),
        (277, 3, [3]),
        (278, 4, [height]),
        (279, 4, [len(samples)]),
        (530, 3, list(subsampling)),
        (532, 5, [0, 255, 128, 255, 128, 255]),
    ]
    tail_place = 8 + 2 + 12 * len(entries) + 4
    tail, fields = b"", b""
    for tag, kind, values in entries:
        packed = b"".join(
            struct.pack("<II", v, 1) if kind == 5 else struct.pack("<H" if kind == 3 else "<I", v)
            for v in values
        )
        if tag == 273:
            packed = b"strp"
        if len(packed) > 4:
            tail, packed = tail + packed, struct.pack("<I", tail_place + len(tail))
        fields += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    place = struct.pack("<I", tail_place + len(tail))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + fields.replace(b"strp", place) + bytes(4)
    return head + tail + samples


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("photometric", ["cielab", "icclab"])
def test_lab(dtype: str, photometric: str) -> None:
    # L* 53.585, a* 0, b* 0 is sRGB (128, 128, 128); L* 54.29, a* 80.8, b* 69.9 is red, from D50 (Lindbloom).
    for lightness, a, b, expected in ((53.585, 0, 0, (128, 128, 128)), (54.29, 80.8, 69.9, (255, 0, 0))):
        if photometric == "cielab":
            top, shift = (255, 1) if dtype == "u1" else (65535, 256)
            values = [lightness / 100 * top, a * shift, b * shift]
        else:
            top, shift = (255, 1) if dtype == "u1" else (65280, 256)
            values = [lightness / 100 * top, (a + 128) * shift, (b + 128) * shift]
        stored = np.rint(values).astype(np.int64).astype(dtype)
        data = written(np.tile(stored, (4, 4, 1)), photometric=photometric)
        np.testing.assert_allclose(decode(data, "a").pixels[1, 1] * 255, expected, atol=6)


def test_lab_hues_just_below_zero_do_not_wrap() -> None:
    stored = np.array([40000, 65536 - 60, 65536 - 60], np.uint16)  # a* and b* of -0.23, which round to 0
    data = written(np.tile(stored, (4, 4, 1)), photometric="cielab")
    pixel = decode(data, "a").pixels[0, 0] * 255
    assert np.ptp(pixel) <= 2


def test_signed_and_complex_samples_are_refused_in_a_sentence() -> None:
    for values in (np.full((4, 4, 3), -3, np.int16), np.ones((4, 4, 3), np.complex64)):
        with pytest.raises(InputError) as caught:
            decode(written(values), "a.tif")
        assert "'a.tif'" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_camera_raw_files_are_not_taken_for_their_thumbnail() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(random("u1"), photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        file.write(random("u2", (19, 23)), photometric="cfa", metadata=None)
    with pytest.raises(InputError, match="camera raw file: develop it"):
        decode(buffer.getvalue(), "a")
    with pytest.raises(InputError, match="export it as RGB"):
        decode(written(random("u2", (19, 23)), photometric="cfa"), "a")


def test_the_first_full_page_is_read_where_a_thumbnail_comes_first() -> None:
    buffer = io.BytesIO()
    full = random("u1", (40, 50, 3))
    with tifffile.TiffWriter(buffer) as file:
        file.write(full[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
        file.write(full, photometric="rgb", metadata=None)
    assert np.array_equal(np.rint(decode(buffer.getvalue(), "a").pixels * 255), full)


def test_rare_compressions_and_volumes_get_a_sentence() -> None:
    packed = written(random("u1", (20, 20, 3)), compression="jpegxl")
    with pytest.raises(InputError, match=r"TIFF compression 50002\): export it with Deflate"):
        decode(packed, "a")
    volume = written(random("u1", (16, 16, 16)), photometric="minisblack", volumetric=True, tile=(16, 16, 16))
    with pytest.raises(InputError, match="volume of 16 layers"):
        decode(volume, "a")


def test_a_file_without_photometric_tag_is_black_at_zero() -> None:
    values = random("u1", (4, 5))
    data = bytearray(written(values, photometric="minisblack"))
    place = data.index(struct.pack("<HHI", 262, 3, 1))
    data[place : place + 2] = struct.pack("<H", 65000)
    assert np.array_equal(np.rint(decode(bytes(data), "a").pixels[..., 0] * 255), values)


def test_the_limit_is_checked_before_strips_tiles_and_jpegs_are_decoded() -> None:
    large = io.BytesIO()
    Image.new("L", (3000, 3000)).save(large, "JPEG")
    whole = written(np.zeros((16, 16), np.uint8), photometric="minisblack", compression="jpeg", tile=(16, 16))
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        offsets, counts = file.pages.first.tags[324], file.pages.first.tags[325]
    data = bytearray(whole) + large.getvalue()
    struct.pack_into("<I", data, offsets.valueoffset, len(whole))
    struct.pack_into("<I", data, counts.valueoffset, len(large.getvalue()))
    with pytest.raises(InputError, match="larger than the header says"):
        decode(bytes(data), "a")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits", "jpeg", "webp", "lzma"])
@pytest.mark.parametrize("order", ["head", "tail"])
def test_cut_files_are_refused_and_nothing_is_printed(
    compression: str | None, order: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = written(random("u1", (64, 48, 3)), compression=compression, rowsperstrip=16)
    if order == "head":  # directory first and pixels last, as Pillow and libvips write
        image = Image.fromarray(random("u1", (64, 48, 3)))
        buffer = io.BytesIO()
        image.save(buffer, "TIFF")
        data = buffer.getvalue()
    for cut in range(0, len(data) - 1, max(len(data) // 97, 1)):
        with pytest.raises(InputError) as caught:
            decode(data[:cut], "a")
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_log_handlers_do_not_pile_up() -> None:
    data = written(random("u1"))
    decode(data, "a")
    before = len(logging.getLogger("tifffile").handlers)
    decode(data, "a")
    assert len(logging.getLogger("tifffile").handlers) == before


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits", "jpeg", "webp", "lzma"])
def test_flipped_bits_give_a_picture_or_one_sentence(compression: str | None, dtype: str) -> None:
    if compression in ("jpeg", "webp") and dtype != "u1":
        pytest.skip("JPEG and WebP hold 8 bits")
    options = {"predictor": True} if compression in ("lzw", "zlib", "zstd") else {}
    data = written(random(dtype), compression=compression, rowsperstrip=7, **options)
    draw = np.random.default_rng(5)
    for _ in range(60):
        damaged = bytearray(data)
        for place in draw.integers(0, len(data), draw.integers(1, 6)):
            damaged[place] ^= 1 << int(draw.integers(0, 8))
        # Half of them near the directory, which is small beside the pixels.
        place = int(data.index(struct.pack("<HH", 256, 4)) + draw.integers(0, 180))
        damaged[min(place, len(data) - 1)] ^= 1 << int(draw.integers(0, 8))
        for use in (decode, decode_recipe):
            assert "\n" not in sentence_of(use, bytes(damaged))
