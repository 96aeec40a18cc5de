"""Corner-aligned hypercolumns: taps by hand, rotated pictures, and block-wise centring."""

from __future__ import annotations

import pytest
import torch

from atelier.features import TINY, VGG
from atelier.features.corner_columns import CornerColumns, neighbours, rows


@pytest.fixture(scope="module")
def columns() -> CornerColumns:
    return CornerColumns(VGG(TINY))


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


def test_each_tap_by_hand(columns: CornerColumns) -> None:
    image = picture(21, 30)
    found = columns.encoder(image, columns.taps)
    joined = columns(image)
    assert joined.shape == (1, 128, 5, 7)
    first = found["relu1_1"][0] / 8
    assert torch.allclose(joined[0, :8, 0, 0], first[:, 0, 0])
    assert torch.allclose(joined[0, :8, -1, -1], first[:, -1, -1])
    # Rows of 5 over 21 lie at 0, 5, 10, ...; columns of 7 over 30 at 0, 29 / 6, ...
    left, right = first[:, 5, 4], first[:, 5, 5]
    assert torch.allclose(joined[0, :8, 1, 1], left + (29 / 6 - 4) * (right - left), atol=1e-6)


def test_rotated_maps_are_stacked_below(columns: CornerColumns) -> None:
    image = picture(16, 24)
    joined = columns(image, rotated=True)
    assert joined.shape == (1, 128, 16, 6)
    assert torch.equal(joined[:, :, :4], columns(image))
    quarter, half, last = (columns(torch.rot90(image, turn, (2, 3))) for turn in (3, 2, 1))
    assert torch.allclose(joined[:, :, 4:8], quarter.mT, atol=1e-6)
    assert torch.allclose(joined[:, :, 8:12], half, atol=1e-6)
    assert torch.allclose(joined[:, :, 12:], last.mT, atol=1e-6)
    maps = columns.maps(image, rotated=True)
    assert [tuple(one.shape[2:]) for one in maps[:3]] == [(64, 24), (64, 24), (32, 12)]


def test_a_one_pixel_picture(columns: CornerColumns) -> None:
    assert columns(picture(1, 2)).shape == (1, 128, 1, 1)


def test_neighbours_are_nearest_after_centring_each_block() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, style = (torch.randn((count, 6), generator=generator) + 1 for count in (30, 40))
    index, distance = neighbours(queries, style, block=12)
    keys = style - style.mean(0)
    for start in (0, 12, 24):
        part = queries[start : start + 12]
        part = part - part.mean(0)
        table = 1 - torch.cosine_similarity(part[:, None], keys[None], dim=2)
        assert torch.equal(index[start : start + 12], table.argmin(1))
        assert torch.allclose(distance[start : start + 12], table.amin(1), atol=1e-6)
    assert not torch.equal(index, neighbours(queries, style)[0])


def test_rows_are_in_row_major_order() -> None:
    assert rows(torch.arange(12.0).view(1, 2, 2, 3)).tolist() == [[i, i + 6] for i in range(6)]
