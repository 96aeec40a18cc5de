from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from atelier.core.errors import InputError, UsageError
from atelier.images import colourspace
from atelier.images.picture import Picture
from atelier.images.regions import blend, feather, read_mask


def half(height: int = 8, width: int = 8) -> np.ndarray:
    mask = np.zeros((height, width), np.float32)
    mask[:, width // 2 :] = 1
    return mask


def test_white_is_where() -> None:
    mask = read_mask(half(), (8, 8))
    assert mask.dtype == np.float32
    assert np.array_equal(mask, half())
    assert np.array_equal(read_mask(half() > 0, (8, 8)), half())


def test_from_a_file_at_another_size(tmp_path: Path) -> None:
    Image.fromarray((half(40, 60) * 255).astype(np.uint8)).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", (10, 20))
    assert mask.shape == (10, 20)
    assert mask[:, :8].max() < 0.02
    assert mask[:, 12:].min() > 0.98
    assert 0 <= mask.min() <= mask.max() <= 1


@pytest.mark.parametrize("paint", [0.0, 0.3, 1.0])
def test_a_shape_on_an_empty_layer_counts_by_its_alpha(paint: float) -> None:
    assert np.array_equal(read_mask(Picture(np.full((8, 8, 3), paint), half()), (8, 8)), half())


def test_shades_on_a_layer_count_by_grey_and_alpha() -> None:
    shades = np.linspace(0, 1, 8)[None, :, None] * np.ones((8, 8, 3))
    mask = read_mask(Picture(shades, half()), (8, 8))
    np.testing.assert_allclose(mask[0], np.linspace(0, 1, 8) * half()[0], atol=1e-6)


@pytest.mark.parametrize(
    "source",
    [np.zeros((8, 8)), Picture(np.ones((8, 8, 3)), np.zeros((8, 8)))],
    ids=["black", "transparent"],
)
def test_a_mask_without_white_is_refused(source: object) -> None:
    with pytest.raises(InputError, match="nothing would be styled"):
        read_mask(source, (8, 8))


def stored(path: Path, values: np.ndarray, *chunks: bytes) -> Path:
    """A grey PNG of 8 or 16 bits with more chunks before its pixels."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    data = buffer.getvalue()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return path


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


LINEAR = imagecodecs.cms_profile("gray", gamma=1.0)
NAMED = {
    "linear profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(LINEAR)),
    "Adobe RGB": chunk(b"iCCP", b"x\0\0" + zlib.compress(colourspace.adobe_rgb())),
    "gAMA": chunk(b"gAMA", struct.pack(">I", 100_000)),
    "cICP": chunk(b"cICP", bytes([9, 16, 0, 1])),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_mask_is_numbers_whatever_colour_space_its_file_names(tmp_path: Path, name: str, bits: int) -> None:
    kind = np.uint8 if bits == 8 else np.uint16
    values = np.linspace(0, 2**bits - 1, 64).round().astype(kind).reshape(8, 8)
    path = stored(tmp_path / "m.png", values, NAMED[name])
    np.testing.assert_allclose(read_mask(path, (8, 8)) * (2**bits - 1), values, atol=1e-2)
    # As a photo the same file is managed, so the chunk is really there.
    assert np.abs(Picture.open(path).pixels[..., 0] - values / (2**bits - 1)).max() > 0.02
    with Image.open(path) as opened:
        np.testing.assert_allclose(read_mask(opened, (8, 8)) * (2**bits - 1), values, atol=1e-2)


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_masks_of_other_formats_are_numbers_too(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    Image.new("L", (8, 8), 100).save(path, icc_profile=LINEAR)
    np.testing.assert_allclose(read_mask(path, (8, 8)) * 255, 100, atol=0.1)


def test_exif_does_not_change_a_mask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2  # Adobe RGB
    Image.new("RGB", (8, 8), (100, 100, 100)).save(tmp_path / "m.png", exif=exif.tobytes())
    np.testing.assert_allclose(read_mask(tmp_path / "m.png", (8, 8)) * 255, 100, atol=0.1)


@pytest.mark.parametrize("alpha", [255, 128])
def test_grey_with_alpha_from_a_file(tmp_path: Path, alpha: int) -> None:
    values = np.zeros((4, 4, 2), np.uint8)
    values[..., 1] = alpha
    values[:, 2:, 0] = 200
    Image.fromarray(values, "LA").save(tmp_path / "m.png")
    expected = values[..., 0] / 255 * alpha / 255
    np.testing.assert_allclose(read_mask(tmp_path / "m.png", (4, 4)), expected, atol=1e-6)


def test_feather_is_a_symmetric_fade_that_keeps_range_and_flat_parts() -> None:
    hard = half(5, 40)
    soft = feather(hard, 4)
    np.testing.assert_allclose(soft + soft[:, ::-1], 1, atol=1e-5)
    assert (np.diff(soft[0]) >= -1e-7).all()
    assert soft[0, 0] < 1e-6
    # 2 pixels of standard deviation, 4 pixels off the edge: Phi(-2) = 0.0228
    assert soft[0, 15:17].mean() == pytest.approx(0.0228, abs=0.006)
    assert np.array_equal(feather(hard, 0), hard)
    np.testing.assert_allclose(feather(np.ones((4, 4), np.float32), 9), 1, atol=1e-6)
    with pytest.raises(UsageError):
        feather(hard, -1)


def test_blend() -> None:
    content, result = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    mixed = blend(content, result, half())
    assert torch.equal(mixed[..., :4], content[..., :4])
    assert torch.equal(mixed[..., 4:], result[..., 4:])
    torch.testing.assert_close(
        blend(content, result, torch.full((8, 8), 0.25)), 0.75 * content + 0.25 * result
    )
    with pytest.raises(InputError, match="the same size"):
        blend(content, result, half(4, 8))
