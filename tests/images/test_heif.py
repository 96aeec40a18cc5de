from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from atelier.core.errors import InputError, ResourceError
from atelier.images.decode import decode, decode_recipe

ROWS, COLUMNS = np.mgrid[0:32, 0:48]
VALUES = np.stack([ROWS * 7, COLUMNS * 5, ROWS + COLUMNS, 255 - ROWS * 4], axis=-1).astype(np.uint8)


def heic(image: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    file = pillow_heif.from_pillow(image) if isinstance(image, Image.Image) else image
    file.save(buffer, quality=-1, chroma=444, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_heic_is_read_with_its_alpha(mode: str) -> None:
    image = Image.fromarray(VALUES).convert(mode)
    made = decode(heic(image), "a")
    expected = image.convert("RGBA")
    assert np.abs(made.pixels * 255 - np.asarray(expected)[..., :3]).mean() < 2
    assert (made.alpha is not None) == mode.endswith("A")
    if made.alpha is not None:
        assert np.abs(made.alpha * 255 - VALUES[..., 3]).mean() < 2


def test_10_bits_are_kept() -> None:
    ramp = np.arange(0, 1024, dtype=np.uint16).reshape(16, 64)
    stored = (ramp << 6)[..., None].repeat(3, axis=2)
    made = decode(heic(pillow_heif.from_bytes("RGB;16", (64, 16), stored.tobytes())), "a")
    assert np.abs(made.pixels[..., 0] * 1023 - ramp).max() <= 1.01
    assert made.pixels.max() == 1
    assert len(np.unique(made.pixels[..., 0])) > 900


@pytest.mark.parametrize("turn", range(1, 9))
def test_heic_is_turned_once(turn: int) -> None:
    exif = Image.Exif()
    exif[274] = turn
    exif[270] = 'atelier-recipe:{"seed":7}'
    data = heic(Image.fromarray(VALUES[..., :3]), exif=exif.tobytes())
    laid = Image.fromarray(VALUES[..., :3])
    laid.getexif()[274] = turn
    from PIL import ImageOps

    made = decode(data, "a")
    expected = np.asarray(ImageOps.exif_transpose(laid))
    assert made.pixels.shape == expected.shape
    assert np.abs(made.pixels * 255 - expected).mean() < 2
    assert made.recipe == decode_recipe(data, "a") == {"seed": 7}


def test_without_the_package_the_sentence_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(Image.fromarray(VALUES[..., :3]))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for use in (decode, decode_recipe):
        with pytest.raises(ResourceError, match=r"pip install 'atelier\[heif\]'"):
            use(data, "a")


def test_the_limit_is_checked_before_decoding() -> None:
    with pytest.raises(InputError, match="limit"):
        decode(heic(Image.fromarray(VALUES[..., :3])), "a", max_pixels=100)


def test_cut_files_are_refused() -> None:
    data = heic(Image.fromarray(VALUES[..., :3]))
    for cut in range(16, len(data) - 1, 37):
        with pytest.raises(InputError) as caught:
            decode(data[:cut], "a")
        assert "\n" not in str(caught.value)


def test_other_files_of_that_container_are_no_pictures() -> None:
    with pytest.raises(InputError, match="is not a picture"):
        decode(b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + bytes(40), "a")
