"""Colour transfers: each matches its statistics, equal colours stay equal, and flat pictures work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.exposure import match_histograms as skimage_match
from torch import Tensor

from atelier.colour import transfer as ways

LINEAR = {"coral": ways.coral, "pca": ways.principal_axes, "monge-kantorovich": ways.monge_kantorovich}
ALL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **LINEAR,
    "reinhard": ways.reinhard,
    "histogram": ways.match_histograms,
    "sliced": lambda a, b: ways.sliced(a, b, iterations=6, seed=1),
}


def picture(seed: int, height: int = 20, width: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(1, 3, height, width, generator=generator, dtype=torch.float64)
    mix = torch.rand(3, 3, generator=generator, dtype=torch.float64) * 0.5
    return torch.einsum("ij,bjhw->bihw", mix, base)


def moments(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    flat = image[0].flatten(1).numpy()
    return flat.mean(axis=1), np.cov(flat, bias=True)


@pytest.mark.parametrize("way", LINEAR.values(), ids=LINEAR)
def test_mean_and_covariance_match_exactly(way: Callable[[Tensor, Tensor], Tensor]) -> None:
    moved = way(picture(0), picture(1, 9, 31))
    for got, expected in zip(moments(moved), moments(picture(1, 9, 31)), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_monge_kantorovich_moves_colours_least() -> None:
    far = {
        name: float((way(picture(2), picture(3)) - picture(2)).square().mean())
        for name, way in LINEAR.items()
    }
    assert far["monge-kantorovich"] < min(far["coral"], far["pca"])


def test_reinhard_matches_each_channel() -> None:
    moved = ways.reinhard(picture(4), picture(5))
    np.testing.assert_allclose(moved.mean((2, 3)), picture(5).mean((2, 3)), atol=1e-12)
    np.testing.assert_allclose(moved.std((2, 3)), picture(5).std((2, 3)), rtol=1e-3)


def test_opponent_colours_agree_with_ruderman_and_round_trip() -> None:
    rgb = picture(6) + 0.05
    opponent = ways.to_opponent(rgb)
    torch.testing.assert_close(ways.from_opponent(opponent), rgb, atol=1e-9, rtol=0)
    # Equations 4 to 6 of the paper for one colour, worked out by hand.
    lms = np.log10(
        np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
        @ rgb[0, :, 0, 0].numpy()
    )
    by_hand = [lms.sum() / 3**0.5, (lms[0] + lms[1] - 2 * lms[2]) / 6**0.5, (lms[0] - lms[1]) / 2**0.5]
    np.testing.assert_allclose(opponent[0, :, 0, 0].numpy(), by_hand, atol=1e-9)


def test_histograms_match_those_of_skimage() -> None:
    image, reference = picture(7), picture(8, 24, 20)
    got = ways.match_histograms(image, reference)[0].permute(1, 2, 0).numpy()
    expected = skimage_match(
        image[0].permute(1, 2, 0).numpy(), reference[0].permute(1, 2, 0).numpy(), channel_axis=2
    )
    assert np.abs(got - expected).max() < 0.02
    for channel in range(3):
        np.testing.assert_allclose(
            np.sort(got[..., channel], axis=None),
            np.sort(reference[0, channel].numpy(), axis=None),
            atol=1e-9,
        )


def test_histogram_ties_take_the_middle_quantile() -> None:
    ramp = torch.linspace(0, 1, 101, dtype=torch.float64).view(1, 1, 1, 101).expand(1, 3, 1, 101)
    flat = torch.full((1, 3, 4, 4), 0.9, dtype=torch.float64)
    assert torch.allclose(ways.match_histograms(flat, ramp), torch.full_like(flat, 0.5), atol=1e-12)
    halves = torch.tensor([0.2, 0.2, 0.7, 0.7], dtype=torch.float64).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    got = ways.match_histograms(halves, ramp)[0, 0, 0]
    assert got.tolist() == pytest.approx([0.2475, 0.2475, 0.7525, 0.7525])  # ranks 1/4 and 3/4 of 101 samples


def distance(image: Tensor, reference: Tensor) -> float:
    """Sliced Wasserstein distance along many axes that the method does not use."""
    axes = torch.nn.functional.normalize(
        torch.randn(200, 3, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    )
    one, other = ((axes @ each[0].flatten(1)).sort(dim=1).values for each in (image, reference))
    return float((one - other).abs().mean())


def test_sliced_transport_converges_to_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 60, 60, generator=generator, dtype=torch.float64)
    # Two separate clusters, which no linear map can produce.
    side = torch.rand(1, 1, 60, 60, generator=generator) < 0.4
    reference = torch.where(side, 0.15 + 0.1 * picture(9, 60, 60), 0.8 - 0.2 * picture(10, 60, 60))
    start = distance(image, reference)
    after = [
        distance(ways.sliced(image, reference, iterations=count, seed=3), reference) for count in (1, 5, 30)
    ]
    assert start > after[0] > after[1] > after[2]
    assert after[2] < 0.03 * start
    assert after[2] < 0.3 * distance(ways.monge_kantorovich(image, reference), reference)


@pytest.mark.parametrize("way", ALL.values(), ids=ALL)
def test_equal_colours_stay_equal_and_the_dtype_is_kept(way: Callable[[Tensor, Tensor], Tensor]) -> None:
    image = picture(11).float()
    image[..., 5:9] = image[..., 5:6]
    moved = way(image, picture(12).float())
    assert moved.dtype == torch.float32
    assert moved.shape == image.shape
    assert (moved[..., 5:9] == moved[..., 5:6]).all()


@pytest.mark.parametrize("way", ALL.values(), ids=ALL)
def test_transfer_to_itself_changes_nothing(way: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.testing.assert_close(way(picture(13), picture(13)), picture(13), atol=1e-3, rtol=0)


@pytest.mark.parametrize("way", ALL.values(), ids=ALL)
@pytest.mark.parametrize("shape", [(1, 1), (6, 7)])
def test_a_flat_picture_takes_the_mean_colour(
    way: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, int]
) -> None:
    moved = way(torch.full((1, 3, *shape), 0.4), picture(14).float())
    assert moved.isfinite().all()
    assert (moved.mean((2, 3)) - picture(14).mean((2, 3))).abs().max() < 0.1
    assert way(picture(14).float(), torch.full((1, 3, 2, 2), 0.4)).sub(0.4).abs().max() < 1e-3


def test_regularising_removes_grain_and_keeps_edges() -> None:
    generator = torch.Generator().manual_seed(4)
    image = torch.full((1, 3, 40, 40), 0.3)
    image[..., 20:] = 0.7
    grain = 0.1 * torch.randn(1, 3, 40, 40, generator=generator)
    moved = 1.2 * image + grain
    smooth = ways.regularised(moved, image, radius=6, strength=1.0)
    assert (smooth - 1.2 * image).abs().mean() < 0.25 * grain.abs().mean()
    assert smooth[..., 24].mean() - smooth[..., 15].mean() > 0.4
    assert ways.regularised(moved, image, radius=6, strength=0) is moved
