from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from atelier.core.errors import InputError
from atelier.images.decode import decode
from atelier.images.encode import _chunk
from atelier.images.pil import from_pil

UPRIGHT = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
# What must be done to an upright picture to lay it down as EXIF orientation n describes (TIFF 6.0, tag 274:
# where the 0th row and the 0th column are).
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


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(turn: int) -> Image.Exif:
    block = Image.Exif()
    block[274] = turn
    return block


@pytest.mark.parametrize("turn", LAID)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_gives_the_upright_picture(turn: int, kind: str) -> None:
    laid = Image.fromarray(np.ascontiguousarray(LAID[turn](UPRIGHT)))
    options = {"lossless": True} if kind == "WEBP" else {}
    made = decode(saved(laid, kind, exif=exif(turn), **options), "a")
    assert np.array_equal(np.rint(made.pixels * 255), UPRIGHT)


@pytest.mark.parametrize("turn", LAID)
def test_every_orientation_of_jpeg_agrees_with_pillow(turn: int) -> None:
    data = saved(Image.fromarray(np.ascontiguousarray(LAID[turn](UPRIGHT))), "JPEG", exif=exif(turn))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(np.rint(decode(data, "a").pixels * 255), expected)


@pytest.mark.parametrize("turn", LAID)
def test_every_orientation_of_deep_files(turn: int) -> None:
    deep = UPRIGHT.astype(np.uint16) * 257 + 1
    laid = np.ascontiguousarray(LAID[turn](deep))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, laid, photometric="rgb", extratags=[(274, 3, 1, turn, True)], metadata=None)
    for data in (buffer.getvalue(), deep_png(laid, turn)):
        assert np.array_equal(np.rint(decode(data, "a").pixels * 65535), deep)


def deep_png(values: np.ndarray, turn: int = 1) -> bytes:
    data = cv2.imencode(".png", values[..., ::-1] if values.ndim == 3 else values)[1].tobytes()
    return data[:33] + _chunk(b"eXIf", exif(turn).tobytes().removeprefix(b"Exif\0\0")) + data[33:]


def test_a_broken_orientation_counts_as_none() -> None:
    for turn in (0, 9, 40_000):
        made = decode(saved(Image.fromarray(UPRIGHT), "PNG", exif=exif(turn)), "a")
        assert np.array_equal(np.rint(made.pixels * 255), UPRIGHT)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_modes_agree_with_pillow(kind: str, mode: str) -> None:
    image = Image.fromarray(UPRIGHT).convert(mode)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(image.convert("RGB") if kind == "WEBP" else image, kind, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    made = decode(data, "a")
    assert np.array_equal(np.rint(made.pixels * 255), expected)
    assert made.alpha is None


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_kept(mode: str, kind: str) -> None:
    values = np.array([[[10, 20, 30, 255], [40, 50, 60, 128]]], np.uint8)
    image = Image.fromarray(values).convert(mode)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    made = decode(saved(image, kind, **options), "a")
    assert made.alpha is not None
    np.testing.assert_allclose(made.alpha * 255, [[255, 128]], atol=1e-4)
    expected = values[..., :3] if mode == "RGBA" else np.asarray(image)[..., :1].repeat(3, axis=2)
    np.testing.assert_allclose(made.pixels * 255, expected, atol=1e-4)


def test_a_palette_with_a_transparent_entry() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        made = decode(saved(image, kind, transparency=1), "a")
        assert made.alpha is not None
        assert made.alpha.tolist() == [[1, 0]]
        assert made.pixels[0, 0].tolist() == [1, 0, 0]


def test_rgb_with_a_transparent_colour() -> None:
    made = decode(saved(Image.fromarray(UPRIGHT), "PNG", transparency=tuple(map(int, UPRIGHT[0, 0]))), "a")
    assert made.alpha is not None
    assert (made.alpha == 0).sum() == 1


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        made = decode(saved(frames[0], kind, save_all=True, append_images=frames[1:]), "a")
        np.testing.assert_allclose(made.pixels[0, 0], [1, 0, 0], atol=0.02)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile(kind: str) -> None:
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    made = decode(saved(inks, kind, **({"quality": 100} if kind == "JPEG" else {})), "a")
    np.testing.assert_allclose(made.pixels.mean(axis=(0, 1)), [1, 0, 0], atol=0.02)


def test_lab_tiff() -> None:
    made = decode(saved(Image.new("LAB", (4, 4), (128, 128, 128)), "TIFF"), "a")
    np.testing.assert_allclose(made.pixels * 255, 119, atol=3)


def test_grey_of_16_bits() -> None:
    deep = np.array([[0, 1, 257, 65535]], np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, deep, photometric="minisblack", metadata=None)
    inverted = io.BytesIO()
    tifffile.imwrite(inverted, 65535 - deep, photometric="miniswhite", metadata=None)
    for data in (deep_png(deep), buffer.getvalue(), inverted.getvalue(), saved(Image.fromarray(deep), "PNG")):
        assert np.rint(decode(data, "a").pixels[..., 1] * 65535).tolist() == deep.tolist()
    assert np.rint(from_pil(Image.fromarray(deep)).pixels[..., 0] * 65535).tolist() == deep.tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_float_tiff(dtype: type, planar: str) -> None:
    values = np.linspace(0, 1, 60).reshape(4, 5, 3).astype(dtype)
    laid = values if planar == "contig" else values.transpose(2, 0, 1)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, laid, photometric="rgb", planarconfig=planar, metadata=None)
    np.testing.assert_allclose(decode(buffer.getvalue(), "a").pixels, values, atol=1e-7)


@pytest.mark.parametrize(
    ("value", "sentence"), [(np.nan, "not finite"), (np.inf, "not finite"), (255.0, "floats must be 0..1")]
)
def test_float_tiff_of_other_scales(value: float, sentence: str) -> None:
    values = np.full((3, 3, 3), 0.5, np.float32)
    values[1, 1, 1] = value
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="rgb", metadata=None)
    with pytest.raises(InputError, match=sentence):
        decode(buffer.getvalue(), "a")


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_deep_tiff_with_alpha(kind: str) -> None:
    alpha = np.array([[1.0, 0.5]])
    colour = np.array([[[0.25, 0.5, 0.75], [1.0, 0.5, 0.25]]])
    stored = colour if kind == "unassalpha" else colour * alpha[..., None]
    values = np.concatenate([stored, alpha[..., None]], axis=2).astype(np.float32)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="rgb", extrasamples=[kind], metadata=None)
    made = decode(buffer.getvalue(), "a")
    np.testing.assert_allclose(made.pixels, colour, atol=1e-6)
    assert made.alpha is not None
    np.testing.assert_allclose(made.alpha, alpha)


def test_deep_tiff_packed_by_lzw() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    data = cv2.imencode(".tif", deep[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    assert np.array_equal(np.rint(decode(data, "a").pixels * 65535), deep)


@pytest.mark.parametrize("packing", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_packed_tiff(packing: str) -> None:
    made = decode(saved(Image.fromarray(UPRIGHT), "TIFF", compression=packing), "a")
    assert np.array_equal(np.rint(made.pixels * 255), UPRIGHT)


def test_tiff_of_many_channels_and_of_huge_tiles() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((4, 4, 7), np.uint16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match="7 channels"):
        decode(buffer.getvalue(), "a")
    tiled = io.BytesIO()
    tifffile.imwrite(tiled, np.zeros((4, 4, 3), np.uint16), photometric="rgb", tile=(64, 64))
    with pytest.raises(InputError, match="a tile of 'a'"):
        decode(tiled.getvalue(), "a", max_pixels=1000)


def test_libraries_print_nothing(tmp_path: Path) -> None:
    # In a process of its own: pytest catches log records before they reach stderr.
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((4, 4, 3), np.uint16), photometric="rgb")
    (tmp_path / "cut.tif").write_bytes(buffer.getvalue()[:60])
    profile = _chunk(b"iCCP", b"name\0\0" + zlib.compress(b"junk" * 40))
    data = saved(Image.fromarray(UPRIGHT), "PNG")
    (tmp_path / "profile.png").write_bytes(data[:33] + profile + data[33:])
    code = """
import sys
from atelier.images import Picture
from atelier.core.errors import InputError
for path in sys.argv[1:]:
    try:
        print(Picture.open(path).size)
    except InputError as error:
        print("refused")
"""
    paths = [str(tmp_path / name) for name in ("cut.tif", "profile.png")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, check=False, text=True)
    assert (done.stdout, done.stderr) == ("refused\n(6, 4)\n", "")
