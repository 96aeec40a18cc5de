from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atelier.core.errors import InputError, UsageError
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
    with pytest.raises(InputError, match="one size"):
        blend(content, result, half(4, 8))
