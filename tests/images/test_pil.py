"""Files that Pillow decodes, and PIL images in every mode."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from atelier.core.errors import InputError, ResourceError
from atelier.images import Picture
from atelier.images.decode import decode, decode_recipe
from atelier.images.pil import from_pil

UPRIGHT = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int = 40, width: int = 56) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


JPEGS = {
    "baseline": saved(noise(), "JPEG", quality=75),
    "best": saved(noise(), "JPEG", quality=100, subsampling=0),
    "progressive": saved(noise(), "JPEG", progressive=True),
    "restarts": saved(noise(), "JPEG", restart_marker_blocks=3),
    "grey": saved(noise().convert("L"), "JPEG"),
    "inks": saved(noise().convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_a_picture(name: str, cut: int) -> None:
    whole, short = decode(JPEGS[name], "a"), decode(JPEGS[name][:-cut], "a")
    assert np.array_equal(short.pixels, whole.pixels)


def test_its_orientation_and_recipe_are_kept() -> None:
    exif = Image.Exif()
    exif[274] = 6
    exif[270] = 'atelier-recipe:{"seed":7}'
    data = saved(noise(), "JPEG", exif=exif)[:-2]
    made = decode(data, "a")
    assert made.pixels.shape == (56, 40, 3)
    assert made.recipe == decode_recipe(data, "a") == {"seed": 7}


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_lacks_more_is_refused(name: str) -> None:
    data = JPEGS[name]
    for cut in (4, 10, 50, 300, len(data) // 2):
        for tail in (b"", b"\xff"):
            with pytest.raises(InputError, match=r"JPEG file is damaged, cut short .*truncated"):
                decode(data[:-cut] + tail, "a")


@given(st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_flipped_bytes_give_a_picture_or_one_sentence(where: list[tuple[float, int]]) -> None:
    data = bytearray(JPEGS["progressive"])
    for place, value in where:
        data[int(place * len(data))] = value
    try:
        decode(bytes(data), "a")
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most damage is refused, and some is harmless


# --- PIL images that callers pass


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("load", [False, True])
def test_an_opened_image_is_turned_once(turn: int, kind: str, load: bool) -> None:
    exif = Image.Exif()
    exif[274] = turn
    data = saved(noise(), kind, exif=exif)
    image = Image.open(io.BytesIO(data))
    if load:
        image.load()
    made = from_pil(image)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(np.rint(made.pixels * 255), np.asarray(expected))


def test_a_16_bit_tiff_given_lazily_is_turned_once() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (5, 8), dtype=np.uint16)
    exif = Image.Exif()
    exif[274] = 6
    data = saved(Image.fromarray(np.ascontiguousarray(np.rot90(deep))), "TIFF", exif=exif)
    made = from_pil(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.rint(made.pixels[..., 0] * 65535), deep)


@pytest.mark.parametrize("mode", ["RGB", "RGBX", "YCbCr", "HSV", "CMYK"])
def test_colour_modes_agree_with_pillow(mode: str) -> None:
    image = Image.fromarray(UPRIGHT).convert(mode)
    made = from_pil(image)
    assert np.array_equal(np.rint(made.pixels * 255), np.asarray(image.convert("RGB")))
    assert made.alpha is None


def test_lab_is_cie_lab_under_d50() -> None:
    # L* 53.585 and no chroma are sRGB (128, 128, 128).
    made = from_pil(Image.new("LAB", (3, 2), (round(53.585 * 2.55), 128, 128)))
    np.testing.assert_allclose(made.pixels * 255, 128, atol=2)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_modes(mode: str) -> None:
    image = Image.fromarray(UPRIGHT[..., 0] * np.uint8(3)).convert(mode)
    assert np.array_equal(np.rint(from_pil(image).pixels[..., 2] * 255), np.asarray(image.convert("L")))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_16_bit_modes_keep_their_depth_orientation_and_key(mode: str) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (4, 6)).astype(">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (6, 4), deep.tobytes())
    image.info["transparency"] = int(deep[1, 2])
    image.getexif()[274] = 3
    made = from_pil(image)
    assert np.array_equal(np.rint(made.pixels[..., 1] * 65535), deep[::-1, ::-1])
    assert made.alpha is not None
    assert np.argwhere(made.alpha == 0).tolist() == [[2, 3]]


@pytest.mark.parametrize(("values", "top"), [([0, 128, 255], 255), ([0, 256, 65535], 65535)])
def test_mode_i_is_8_or_16_bits(values: list[int], top: int) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    assert image.mode == "I"
    np.testing.assert_allclose(from_pil(image).pixels[0, :, 0], np.array(values) / top, atol=1e-7)


def test_mode_i_outside_16_bits_is_refused() -> None:
    for value in (-1, 65536):
        with pytest.raises(InputError, match="convert it to"):
            from_pil(Image.fromarray(np.array([[0, value]], np.int32)))


def test_mode_f_is_0_to_1() -> None:
    made = from_pil(Image.fromarray(np.array([[0, 0.25, 1]], np.float32)))
    assert made.pixels[0, :, 0].tolist() == [0, 0.25, 1]
    with pytest.raises(InputError, match=r"floats must be 0\.\.1"):
        from_pil(Image.fromarray(np.array([[0, 200]], np.float32)))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "La", "RGBa"])
def test_modes_with_alpha(mode: str) -> None:
    base = np.array([[[40, 40, 40, 255], [200, 200, 200, 128], [90, 90, 90, 0]]], np.uint8)
    straight = Image.fromarray(base)
    steps = {"La": ["LA", "La"], "PA": ["PA"]}.get(mode, [mode])
    image = straight.convert("RGB").quantize() if mode == "PA" else straight
    for step in steps:
        image = image.convert(step)
    if mode == "PA":
        image.putalpha(straight.getchannel("A"))
    assert image.mode == mode
    made = from_pil(image)
    assert made.alpha is not None
    np.testing.assert_allclose(made.alpha[0] * 255, [255, 128, 0], atol=1e-4)
    np.testing.assert_allclose(
        made.pixels[0, :2, 0] * 255, [40, 200], atol=2 if mode in ("La", "RGBa") else 0.01
    )


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128])])
def test_palettes_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for x in range(3):
        image.putpixel((x, 0), x)
    image.info["transparency"] = transparency
    made = from_pil(image)
    assert made.alpha is not None
    third = 255 if transparency == 1 else 128
    np.testing.assert_allclose(made.alpha[0] * 255, [255, 0, third], atol=1e-4)
    assert made.pixels[0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(("mode", "key"), [("1", 1), ("L", 7), ("RGB", (7, 8, 9))])
def test_transparent_keys(mode: str, key: Any) -> None:
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), key)
    image.info["transparency"] = key
    made = from_pil(image)
    assert made.alpha is not None
    assert made.alpha.tolist() == [[1, 0]]


def grey_profile(gamma: float) -> bytes:
    """A grey ICC profile with a power curve: header, and the tags kTRC and wtpt (ICC.1:2022 7.2, 10.6)."""
    import struct

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    tags = struct.pack(">I4sII4sII", 2, b"kTRC", 156, 14, b"wtpt", 172, 20)
    size = 192
    head = struct.pack(
        ">I4sI4s4s4s12s4s28s", size, b"", 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"", b"acsp", b""
    )
    head += struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return (head.ljust(128, b"\0") + tags + curve + white).ljust(size, b"\0")


@pytest.mark.parametrize("mode", ["L", "I;16", "F"])
def test_profiles_of_grey_modes_are_applied(mode: str) -> None:
    share = 0.5
    value = {"L": 128, "I;16": 32768, "F": share}[mode]
    image = Image.new(mode, (2, 2), value)
    image.info["icc_profile"] = grey_profile(1.0)
    # Linear light of one half is 0.7354 in sRGB (IEC 61966-2-1).
    np.testing.assert_allclose(from_pil(image).pixels, 0.7354, atol=0.004)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX"])
def test_profiles_of_colour_modes_are_applied(mode: str) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(srgb)
    for i in range(int.from_bytes(srgb[128:132], "big")):
        place = 132 + 12 * i
        name = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(srgb[place : place + 4])
        if name:
            swapped[place : place + 4] = name
    image = Image.new("RGB", (2, 2), (200, 40, 90)).convert(mode)
    image.info["icc_profile"] = bytes(swapped)
    np.testing.assert_allclose(from_pil(image).pixels[0, 0] * 255, [40, 200, 90], atol=2)


def test_images_that_cannot_be_loaded_get_a_sentence() -> None:
    data = saved(noise(), "PNG")
    with pytest.raises(InputError, match="cannot be loaded"):
        Picture.of(Image.open(io.BytesIO(data[: len(data) // 2])))
    closed = Image.new("RGB", (2, 2))
    closed.close()
    with pytest.raises(InputError, match="cannot be loaded"):
        Picture.of(closed)


def test_the_callers_image_is_left_as_it_was() -> None:
    image = Image.fromarray(UPRIGHT)
    image.info["transparency"] = (0, 3, 6)
    before = (image.mode, image.size, dict(image.info), image.tobytes())
    from_pil(image)
    assert (image.mode, image.size, dict(image.info), image.tobytes()) == before


@pytest.mark.parametrize("alpha", [False, True])
def test_avif(alpha: bool) -> None:
    rows, columns = np.mgrid[0:32, 0:48]
    values = np.stack([rows * 7, columns * 5, rows + columns, 255 - rows * 4], axis=-1).astype(np.uint8)
    image = Image.fromarray(values if alpha else values[..., :3])
    exif = Image.Exif()
    exif[270] = 'atelier-recipe:{"seed":7}'
    data = saved(image, "AVIF", quality=100, exif=exif)
    made = decode(data, "a")
    assert np.abs(made.pixels * 255 - values[..., :3]).mean() < 2
    assert (made.alpha is not None) == alpha
    if made.alpha is not None:
        assert np.abs(made.alpha * 255 - values[..., 3]).mean() < 2
    assert made.recipe == decode_recipe(data, "a") == {"seed": 7}
    with pytest.raises(InputError, match="limit"):
        decode(data, "a", max_pixels=100)


def test_avif_without_support_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(noise(), "AVIF")
    monkeypatch.setattr("PIL.features.check", lambda _: False)
    with pytest.raises(ResourceError, match="pip install --upgrade pillow"):
        decode(data, "a")
