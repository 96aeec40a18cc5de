"""Metrics at the ends of their scales, and moving the right way between them."""

from __future__ import annotations

import pytest
import torch
from skimage.metrics import structural_similarity

from atelier.colour import rgb_to_lab
from atelier.features import TINY, VGG
from atelier.images.resize import resize
from atelier.metrics.content import light_similarity, structure_similarity
from atelier.metrics.style import style_distance


def picture(seed: int, height: int = 120, width: int = 160) -> torch.Tensor:
    small = torch.rand((1, 3, 9, 12), generator=torch.Generator().manual_seed(seed))
    return resize(small, (height, width))


@pytest.fixture(scope="module")
def encoder() -> VGG:
    return VGG(TINY, padding="replicate")


def test_no_distance_to_oneself_nor_to_a_mirror_image_of_the_gram(encoder: VGG) -> None:
    assert style_distance(picture(0), picture(0), encoder) == pytest.approx((0, 0), abs=1e-6)


def test_the_distance_of_the_first_tap_by_hand(encoder: VGG) -> None:
    one, other = (encoder(picture(seed), ["relu1_1"])["relu1_1"][0].double().flatten(1) for seed in (0, 1))
    first, second = (x @ x.T / x.shape[1] for x in (one, other))
    expected = float((first - second).norm() / second.norm())
    assert style_distance(picture(0), picture(1), encoder, ["relu1_1"])[1] == pytest.approx(
        expected, rel=1e-4
    )


def test_a_mixture_is_nearer(encoder: VGG) -> None:
    content, style = picture(0), picture(1) * 0.5
    far = style_distance(content, style, encoder)
    near = style_distance(torch.lerp(content, style, 0.8), style, encoder)
    assert all(a < 0.7 * b for a, b in zip(near, far, strict=True))


def test_light_is_ssim_of_lightness_at_a_quarter() -> None:
    one, other = picture(0), picture(1)
    small = [rgb_to_lab(resize(x, (30, 40)))[0, 0].numpy() / 100 for x in (one, other)]
    expected = structural_similarity(*small, data_range=1.0)
    assert light_similarity(one, other) == pytest.approx(expected, abs=1e-4)
    assert light_similarity(one, one) == pytest.approx(1)
    assert light_similarity(1 - one, one) < 0


def test_structure_does_not_see_contrast_but_sees_a_flip(encoder: VGG) -> None:
    one = picture(0)
    assert structure_similarity(one, one, encoder) == pytest.approx(1, abs=1e-5)
    assert structure_similarity(0.5 * one + 0.2, one, encoder) > 0.7
    assert structure_similarity(one.flip(-1), one, encoder) < 0.6
    assert structure_similarity(torch.full_like(one, 0.5), one, encoder) == pytest.approx(0, abs=0.6)
