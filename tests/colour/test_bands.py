"""Detail statistics: second moments of pyramid bands, and the maps that lend them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atelier import maths
from atelier.colour import bands, covariances, lend_bands


def noise(height: int, width: int, seed: int = 0, *, deviation: float = 0.05) -> Tensor:
    """A grey picture with normal noise of about the same deviation in each of four octaves."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.full((1, 3, height, width), 0.5)
    for octave in range(4):
        sides = (max(2, height >> octave), max(2, width >> octave))
        coarse = torch.randn((1, 3, *sides), generator=generator)
        picture += deviation / 2 * F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return picture


def correlated(height: int, width: int, seed: int = 1) -> Tensor:
    """Noise that is mostly along one colour direction."""
    mixing = torch.tensor([[1.0, 0, 0], [0.8, 0.3, 0], [0.5, 0, 0.2]])
    return 0.5 + torch.einsum("ij,bjhw->bihw", mixing, noise(height, width, seed) - 0.5)


def test_a_picture_gets_the_covariances_of_the_styles_bands() -> None:
    picture, style = noise(160, 128), correlated(128, 160)
    found = covariances(lend_bands(picture, [covariances(style)], [1.0]))
    before, wanted = covariances(picture), covariances(style)
    for level in range(bands.LEVELS):
        # Bands of a pyramid overlap in frequency, so a single pass comes near.
        scale = wanted[level].abs().max()
        assert (found[level] - wanted[level]).abs().max() < 0.2 * scale
        assert (before[level] - wanted[level]).abs().max() > 0.4 * scale


def test_each_round_comes_nearer_to_the_styles_bands() -> None:
    """A picture whose coarse detail is too strong for the style's."""
    picture = noise(160, 128, deviation=0.2)
    soft = F.interpolate(F.avg_pool2d(picture, 8), picture.shape[-2:], mode="bilinear")
    wanted = covariances(picture - 0.6 * (soft - 0.5))
    far = []
    for rounds in (1, 2, 4, 6):
        found = covariances(lend_bands(picture, [wanted], [1.0], rounds=rounds))
        pairs = list(zip(found, wanted, strict=True))[: bands.LEVELS]
        far.append(sum(float((one - other).norm() / other.norm()) for one, other in pairs))
    assert all(after < 0.6 * before for before, after in itertools.pairwise(far))


def test_its_own_detail_changes_nothing() -> None:
    picture = noise(96, 80, deviation=0.1).clamp(0, 1)
    made = lend_bands(picture, [covariances(picture)], [1.0])
    assert (made - picture).abs().max() < 0.015  # noise is assumed in the picture


def test_a_flat_style_removes_all_detail_and_keeps_the_tones() -> None:
    picture = noise(128, 128, deviation=0.02)
    picture[..., :64] -= 0.3
    made = lend_bands(picture, [covariances(torch.full((1, 3, 40, 40), 0.7))], [1.0])
    assert made[..., 32:96, 8:16].std() < 0.005
    # The flat style's own tone is not lent, and large shapes are corrected by little.
    assert 0.2 < float(made[..., :32].mean()) < 0.26


def test_detail_is_amplified_less_than_four_times() -> None:
    picture, style = noise(128, 128, deviation=0.01), noise(128, 128, 1, deviation=0.3)
    before, after = (
        covariances(one)[0].trace() for one in (picture, lend_bands(picture, [covariances(style)], [1.0]))
    )
    assert (after / before).sqrt() == pytest.approx(3.6, rel=0.05)


def test_hidden_pixels_of_a_style_do_not_count() -> None:
    picture, style = noise(96, 96), correlated(96, 96)
    seen = torch.ones((1, 1, 96, 96))
    seen[..., 48:] = 0
    part = covariances(style[..., :48])
    hidden = style.clone()
    hidden[..., 64:] = noise(96, 32, 5, deviation=0.5)
    masked = covariances(hidden, seen)
    for one, other in zip(part[:2], masked[:2], strict=True):
        torch.testing.assert_close(one, other, atol=0.1 * float(one.abs().max()), rtol=0)
    assert lend_bands(picture, [covariances(style, torch.zeros_like(seen))], [1.0]).isfinite().all()


def test_each_region_has_the_detail_of_its_style() -> None:
    picture = noise(128, 192)
    left = torch.zeros((1, 128, 192))
    left[..., :96] = 1
    shares = torch.stack([left, 1 - left])
    flat, rough = torch.full((1, 3, 64, 64), 0.5), noise(96, 96, 2, deviation=0.1)
    made = lend_bands(picture, [covariances(flat), covariances(rough)], shares)
    assert made[..., 16:112, 16:64].std() < 0.01
    for level in range(3):
        found, wanted = (covariances(one)[level].trace() for one in (made[..., 104:], rough))
        assert float(found / wanted) == pytest.approx(1.0, rel=0.3)


def test_weights_mix_the_maps_of_the_styles() -> None:
    picture = noise(64, 64)
    styles = [covariances(correlated(64, 64)), covariances(noise(64, 64, 3, deviation=0.1))]
    alone = [lend_bands(picture, [one], [1.0], rounds=1) for one in styles]
    mixed = lend_bands(picture, styles, [0.25, 0.75], rounds=1)
    torch.testing.assert_close(mixed, 0.25 * alone[0] + 0.75 * alone[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(333, 290), (256, 417)])
def test_strips_are_the_whole_in_place_too(monkeypatch: pytest.MonkeyPatch, height: int, width: int) -> None:
    picture, style, guide = (
        noise(height, width),
        [covariances(correlated(100, 90))],
        (half_flat(height, width), 0.5),
    )
    whole = lend_bands(picture, style, [1.0], guide=guide)
    monkeypatch.setattr(bands, "_STRIP", 64 * width)
    torch.testing.assert_close(lend_bands(picture, style, [1.0], guide=guide), whole, atol=2e-5, rtol=0)
    lend_bands(picture, style, [1.0], guide=guide, out=picture)
    torch.testing.assert_close(picture, whole, atol=2e-5, rtol=0)


def half_flat(height: int, width: int) -> Tensor:
    """A photo with detail on the right alone."""
    photo = noise(height, width, 8)
    photo[..., : width // 2] = 0.5
    return photo


def test_detail_recedes_where_the_photo_is_flat_and_the_rest_has_the_styles_contrast() -> None:
    picture, wanted = noise(128, 192), covariances(noise(128, 192, 4, deviation=0.08))
    photo = half_flat(128, 192)
    ratios = []
    for share in (0.0, 0.3, 1.0):
        made = lend_bands(picture, [wanted], [1.0], guide=(photo, share))
        ratios.append(float(made[..., :80].std() / made[..., 112:].std()))
        for found, asked in zip(covariances(made)[: bands.LEVELS], wanted, strict=False):
            assert float(found.trace() / asked.trace()) == pytest.approx(1.0, rel=0.15)
    assert ratios[0] == pytest.approx(1.0, abs=0.1)
    # Relative detail is 0 there in the photo and 1 in the picture, to which 0.15 are added: its 0.3rd power.
    assert ratios[1] == pytest.approx((0.15 / 1.15) ** 0.3, abs=0.08)
    assert ratios[2] < 0.6 * ratios[1]


def test_a_share_of_0_and_the_picture_as_its_own_guide_change_nothing() -> None:
    picture, wanted = noise(96, 80), [covariances(correlated(96, 80))]
    plain = lend_bands(picture, wanted, [1.0])
    torch.testing.assert_close(lend_bands(picture, wanted, [1.0], guide=(half_flat(96, 80), 0.0)), plain)
    torch.testing.assert_close(lend_bands(picture, wanted, [1.0], guide=(picture, 1.0)), plain)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 9))
def test_any_shape(height: int, width: int, seed: int) -> None:
    picture = noise(height, width, seed)
    assert lend_bands(picture, [covariances(correlated(5, 3))], [1.0]).shape == picture.shape
    merged = maths.merge(bands.split_bands(picture))[..., :height, :width]
    np.testing.assert_allclose(merged, picture, atol=1e-5)
