"""Metrics by hand-made numbers, at the ends of their scales, and moving the right way between them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from math import sqrt

import pytest
import torch
from torch import Tensor

from atelier.core.errors import InputError
from atelier.features import TINY, VGG
from atelier.images.resize import resize
from atelier.metrics import (
    METRICS,
    GramDistance,
    LightSimilarity,
    Metric,
    MomentDistance,
    Networks,
    StructureSimilarity,
)


def picture(seed: int, height: int = 120, width: int = 160) -> Tensor:
    small = torch.rand((1, 3, 9, 12), generator=torch.Generator().manual_seed(seed))
    return resize(small, (height, width))


def row(*pixels: Sequence[float]) -> Tensor:
    """A picture of one row, (1, 3, 1, W), of these colours."""
    return torch.tensor(pixels).T[None, :, None]


def pixels(image: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
    """An encoder whose features are the pixels themselves, at every tap but the tap "white"."""
    return {tap: torch.ones_like(image) if tap == "white" else image for tap in taps}


RED, GREEN, BLACK = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def encoder() -> VGG:
    return VGG(TINY, padding="replicate")


@pytest.fixture(scope="module")
def every() -> dict[str, Metric]:
    """The metrics of pairs whose features come with atelier."""
    networks = Networks()
    chosen = {one.name: one for one in METRICS.values() if not one.of_sets}
    ours = {name: one for name, one in chosen.items() if not set(one.weights) - {"encoder.atelier"}}
    return {name: one.make(networks) for name, one in ours.items() if name not in ("blotch", "ms_ssim")}


def test_all_are_called_alike_and_have_a_good_end(every: dict[str, Metric]) -> None:
    same, other, style = picture(0, 64, 80), picture(1, 64, 80), picture(2, 60, 60)
    assert len(every) > 13
    for name, metric in every.items():
        assert list(inspect.signature(metric).parameters) == ["result", "content", "style"]
        higher = METRICS[name].better == "higher"
        if METRICS[name].about == "content":
            perfect, worse, again = metric(same, same, style), metric(other, same, style), style
            assert metric(other, same, again + 1) == worse, "the style does not count for content"
        else:
            perfect, worse = metric(style, other, style), metric(same, other, style)
            if name == "leakage":
                perfect, worse = metric(other, other, style), metric(resize(style, (64, 80)), other, style)
            else:
                assert metric(same, style, style) == worse, "the content does not count for style"
        ends = {"psnr": float("inf"), "psnr_luma": float("inf")}
        assert perfect == pytest.approx(ends.get(name, 1 if higher else 0), abs=2e-4), name
        assert (worse < perfect) == higher, name


def test_published_names_have_published_features() -> None:
    """The same formula on the bundled encoder has another name."""
    published = {"fid", "fid_infinity", "kid", "cfsd", "clip_image", "clip_text"}
    published |= {"lpips_alex", "lpips_vgg", "lpips_squeeze", "artfid", "artfid_512"}
    assert published <= set(METRICS)
    assert not [name for name in published if "encoder.atelier" in METRICS[name].weights]


# style


def test_gram_matrices_by_hand() -> None:
    # Half red and half green: the matrix is diag(1/2, 1/2, 0). All red: diag(1, 0, 0), of length 1.
    result, style = row(RED, GREEN), row(RED, RED)
    expected = sqrt(0.5**2 + 0.5**2)
    assert GramDistance(pixels, ["a"])(result, result, style) == pytest.approx(expected, rel=1e-6)
    # Where the features are all the same, the distance is 0; the taps' mean is half.
    assert GramDistance(pixels, ["a", "white"])(result, result, style) == pytest.approx(expected / 2)
    # The style's own length is the unit: here sqrt(1/2).
    assert GramDistance(pixels, ["a"])(style, style, result) == pytest.approx(1, rel=1e-6)


def test_moments_by_hand() -> None:
    # Means 1/2, 1/2, 0 and deviations 1/2, 1/2, 0 against means 1, 0, 0 and no deviation.
    result, style = row(RED, GREEN), row(RED, RED)
    expected = sqrt(4 * 0.5**2)
    # The deviation has 1e-5 added to its variance: 0 becomes 0.003.
    assert MomentDistance(pixels, ["a"])(result, result, style) == pytest.approx(expected, abs=0.005)
    assert MomentDistance(pixels, ["a", "white"])(result, result, style) == pytest.approx(0.5, abs=0.003)


def test_a_mirror_image_has_the_same_statistics() -> None:
    one, style = picture(0), picture(0).flip(-1)
    for metric in (GramDistance(pixels, ["a"]), MomentDistance(pixels, ["a"])):
        assert metric(one, one, style) == pytest.approx(0, abs=1e-6)
    assert StructureSimilarity(pixels)(style[..., ::4, ::4], one[..., ::4, ::4], style) < 0.6


def test_a_mixture_is_nearer(encoder: VGG) -> None:
    content, style = picture(0), picture(1) * 0.5
    for metric in (GramDistance(encoder), MomentDistance(encoder)):
        mixed = metric(torch.lerp(content, style, 0.8), content, style)
        assert mixed < 0.7 * metric(content, content, style)


# light


def test_the_light_of_flat_pictures_has_a_closed_form() -> None:
    """Without variance SSIM is (2ab + c) / (aa + bb + c), c = 0.01^2; sRGB 0.5 has lightness 53.389."""
    flat = {value: torch.full((1, 3, 40, 60), value) for value in (0.0, 0.5, 1.0)}
    light, c = LightSimilarity(), 0.01**2
    half = 0.53389
    found = light(flat[1.0], flat[0.5], flat[0.0])
    assert found == pytest.approx((2 * half + c) / (1 + half**2 + c), abs=1e-4)
    assert light(flat[1.0], flat[0.0], flat[0.0]) == pytest.approx(c / (1 + c), abs=1e-6)


def test_the_light_of_a_fine_pattern_is_that_of_its_mean() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(80), indexing="ij")
    board = ((x + y) % 2).float().expand(1, 3, -1, -1)
    assert LightSimilarity()(board, 1 - board, board) > 0.99
    shape = ((x // 16 + y // 16) % 2).float().expand(1, 3, -1, -1)
    assert LightSimilarity()(shape, 1 - shape, shape) < -0.5


def test_too_small_for_light_is_one_sentence() -> None:
    assert LightSimilarity()(picture(0, 28, 28), picture(0, 28, 28), picture(0)) == pytest.approx(1)
    with pytest.raises(InputError, match="A picture of 40x27 px is too small to compare its light: 28 px"):
        LightSimilarity()(picture(0), picture(0, 27, 40), picture(0))


# structure


def test_structure_by_hand() -> None:
    structure, style = StructureSimilarity(pixels), row(BLACK)
    content = row(RED, RED, GREEN, GREEN)
    # The same layout in other colours; layouts that have nothing to do with each other; nothing at all.
    assert structure(row(BLACK, BLACK, RED, RED), content, style) == pytest.approx(1, abs=1e-6)
    assert structure(row(RED, GREEN, RED, GREEN), content, style) == pytest.approx(0, abs=1e-6)
    assert structure(row(RED, RED, RED, RED), content, style) == pytest.approx(0, abs=1e-6)
    # s = (1, 1, -1, -1) and t = (1, 1, 1, -1): the tables ss' and tt' - 1/4 have lengths 4 and sqrt(15), and
    # their product is (s.t)^2 = 4.
    assert structure(row(RED, RED, RED, GREEN), content, style) == pytest.approx(1 / sqrt(15), abs=1e-6)


def test_structure_does_not_see_contrast_but_sees_a_flip(encoder: VGG) -> None:
    one, structure = picture(0), StructureSimilarity(encoder)
    assert structure(0.5 * one + 0.2, one, one) > 0.7
    assert structure(one.flip(-1), one, one) < 0.3
