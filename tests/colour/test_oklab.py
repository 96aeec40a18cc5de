"""Oklab round trips, moments of the style, and hues of the photo."""

from __future__ import annotations

import pytest
import torch

from atelier.colour.oklab import moved, oklab_to_rgb, photo_hues, rgb_to_oklab, smooth_chroma


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


def test_oklab_of_white_and_grey_and_the_round_trip() -> None:
    white = rgb_to_oklab(torch.ones(1, 3, 1, 1)).flatten()
    assert white.tolist() == pytest.approx([1, 0, 0], abs=1e-3)
    grey = rgb_to_oklab(torch.full((1, 3, 1, 1), 0.125)).flatten()
    assert grey.tolist() == pytest.approx([0.5, 0, 0], abs=1e-3)
    some = picture(8, 9)
    assert torch.allclose(oklab_to_rgb(rgb_to_oklab(some)), some, atol=5e-3)


def test_moved_values_have_the_targets_moments() -> None:
    values, target = 3 * picture(20, 30) - 1, picture(25, 15, 1) @ torch.rand(15, 15)
    found = moved(values, target)
    assert torch.allclose(found.mean((2, 3)), target.mean((2, 3)), atol=1e-5)
    spread, wanted = (torch.cov(one[0].flatten(1), correction=0) for one in (found, target))
    assert torch.allclose(spread, wanted, atol=1e-3 * float(wanted.max()))


def test_smoothing_stops_at_edges_of_the_lightness() -> None:
    lab = torch.zeros(1, 3, 6, 8)
    lab[:, :, :, 4:] = 1.0
    assert torch.allclose(smooth_chroma(lab), lab, atol=1e-3)
    lab[:, 0] = 0.5
    soft = smooth_chroma(lab)
    assert torch.equal(soft[:, 0], lab[:, 0])
    assert 0.1 < soft[0, 1, 3, 3] < 0.5
    assert (soft[:, 1:].diff(dim=3) > -1e-6).all()


def test_hues_come_from_the_photo_unless_the_style_is_grey() -> None:
    content, painted = 0.3 + 0.4 * picture(16, 16), picture(16, 16, 1)
    style = 0.3 + 0.4 * picture(12, 20, 2)
    found = photo_hues(content, style, painted)
    other = photo_hues(content, style, painted.flip(1))
    # The hues are those of the photo, whatever the colours of the painting.
    assert (rgb_to_oklab(found) - rgb_to_oklab(other))[:, 1:].abs().mean() < 0.02
    assert photo_hues(content, style, painted, own=True).ne(found).any()
    grey = style.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert rgb_to_oklab(photo_hues(content, grey, painted))[:, 1:].abs().max() < 0.02


def test_flat_pictures_stay_finite() -> None:
    flat = torch.full((1, 3, 5, 4), 0.5)
    for content, style, painted in ((flat, picture(4, 4), flat), (picture(5, 4), flat, flat), (flat,) * 3):
        assert photo_hues(content, style, painted).isfinite().all()
