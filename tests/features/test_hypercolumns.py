"""Hypercolumns: by hand on a small picture, projected without being built, and equal in tiles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.features import TINY, VGG, Hypercolumns


@pytest.fixture(scope="module")
def columns() -> Hypercolumns:
    return Hypercolumns(VGG(TINY, padding="replicate"))


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


def test_default_taps_are_all_relus_of_four_stages(columns: Hypercolumns) -> None:
    assert columns.taps[0] == "relu1_1"
    assert columns.taps[-1] == "relu4_3"
    assert columns.channels == sum(columns.widths) == 2 * 8 + 2 * 8 + 3 * 16 + 3 * 16


def test_each_tap_by_hand(columns: Hypercolumns) -> None:
    image = picture(32, 48)
    found = columns.encoder(image, columns.taps)
    joined = columns(image, torch.arange(1.0, 11.0))
    assert joined.shape == (1, columns.channels, 8, 12)
    first = found["relu1_1"].view(8, 8, 4, 12, 4).mean((2, 4))
    assert torch.allclose(joined[0, :8], first, atol=1e-6)
    assert torch.equal(joined[:, 32:48], found["relu3_1"] / 5)
    deep = joined[0, -16:] * 10
    # Bilinear at half-pixel centres: a quarter and three quarters of neighbours.
    rows = found["relu4_3"][0]
    expected = 0.75 * (0.75 * rows[:, 1, 2] + 0.25 * rows[:, 1, 3]) + 0.25 * (
        0.75 * rows[:, 2, 2] + 0.25 * rows[:, 2, 3]
    )
    assert torch.allclose(deep[:, 3, 5], expected, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_projection_matches_the_hypercolumns_at_any_size(height: int, width: int) -> None:
    columns = Hypercolumns(VGG(TINY, padding="replicate"))
    image = picture(height, width)
    joined = columns(image)
    assert joined.shape == (1, columns.channels, -(-height // 4), -(-width // 4))
    weight = torch.randn((5, columns.channels), generator=torch.Generator().manual_seed(1))
    projected = columns.project(columns.encoder(image, columns.taps), weight)
    expected = torch.einsum("pd,bdhw->bphw", weight, joined)
    assert torch.allclose(projected, expected, atol=1e-3 * float(expected.abs().max()))


def test_tiles_match_the_whole_picture(columns: Hypercolumns) -> None:
    image = picture(208, 240, 3)
    whole = columns(image)
    tile = columns(image[..., 48:208, 64:240])
    inside = tile[..., 16:, 16:]  # 64 px are more than the encoder's view to one side
    assert torch.allclose(inside, whole[..., 28:, 32:], atol=1e-4)


def test_norms_are_mean_lengths(columns: Hypercolumns) -> None:
    found = columns.encoder(picture(16, 16), columns.taps)
    norms = columns.norms(found)
    assert norms.shape == (10,)
    by_hand = found["relu2_1"][0].flatten(1).T.norm(dim=1).mean()
    assert float(norms[2]) == pytest.approx(float(by_hand), rel=1e-5)


@pytest.mark.parametrize("shape", [(32, 48), (37, 21), (1, 1)])
def test_a_full_sample_is_all_hypercolumns(columns: Hypercolumns, shape: tuple[int, int]) -> None:
    found, scale = columns.encoder(picture(*shape), columns.taps), torch.arange(1.0, 11.0)
    joined = columns.join(found, scale)[0].flatten(1).T
    rows = columns.sample(found, scale, 10_000)
    assert rows.shape == joined.shape
    # What lies beyond a band is not seen when the deepest taps are enlarged.
    assert torch.allclose(rows[:, :80], joined[:, :80], atol=1e-5)
    assert torch.allclose(rows, joined, atol=0.3 * float(joined[:, 80:].abs().max()))


def test_a_sample_is_spread_over_the_picture(columns: Hypercolumns) -> None:
    image = picture(160, 64)
    image[..., 80:, :] = 0
    found = columns.encoder(image, columns.taps)
    rows = columns.sample(found, torch.ones(10), 128)
    assert len(rows) == 4 * 2 * 16
    assert (rows.std(1) > 0.9 * rows.std(1).max()).sum() < 70
    assert torch.allclose(rows[-1], columns.join(found)[0, :, -1, -1], atol=1e-5)
