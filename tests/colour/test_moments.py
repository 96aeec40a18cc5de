from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import color
from torch import Tensor

from atelier.colour.cielab import lab_to_rgb, luminance, rgb_to_lab
from atelier.colour.moments import keep_colour, lend_colours, match_moments
from atelier.core.errors import InputError


def picture(seed: int, height: int = 12, width: int = 15) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    flat = image[0].flatten(1).double().numpy()
    return flat.mean(axis=1), np.cov(flat, bias=True)


def last(image: Tensor) -> np.ndarray:
    return image[0].permute(1, 2, 0).numpy()


def test_lab_agrees_with_skimage() -> None:
    image = torch.cat(
        [picture(0), torch.zeros(1, 3, 1, 15), torch.ones(1, 3, 1, 15), picture(1) * 0.03], dim=2
    )
    np.testing.assert_allclose(last(rgb_to_lab(image)), color.rgb2lab(last(image)), atol=1e-3)


def test_lab_to_rgb_agrees_with_skimage() -> None:
    lab = color.rgb2lab(last(picture(2)))
    got = lab_to_rgb(torch.from_numpy(lab).permute(2, 0, 1)[None])
    np.testing.assert_allclose(last(got), color.lab2rgb(lab), atol=1e-3)


def test_luminance_is_y_of_xyz() -> None:
    image = picture(3)
    np.testing.assert_allclose(luminance(image)[0, 0].numpy(), color.rgb2xyz(last(image))[..., 1], atol=1e-6)


def test_lab_round_trip() -> None:
    image = picture(4)
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(image)), image, atol=1e-6, rtol=0)
    single = image.float()
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(single)), single, atol=1e-4, rtol=0)


def test_colours_beyond_srgb_are_clipped() -> None:
    lab = torch.tensor([50.0, 120.0, -120.0]).view(1, 3, 1, 1)
    rgb = lab_to_rgb(lab)
    assert rgb.min() >= 0
    assert rgb.max() <= 1


def test_gradients_are_right_and_finite_at_black() -> None:
    inner = (picture(5, 2, 2) * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(rgb_to_lab, inner)
    assert torch.autograd.gradcheck(lambda x: lab_to_rgb(rgb_to_lab(x)), inner)
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    lab_to_rgb(rgb_to_lab(black)).sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_mean_and_covariance_match(seed: int, other: int) -> None:
    reference = picture(other, 9, 20) ** 2 * 0.7
    moved = match_moments(picture(seed), reference)
    for got, expected in zip(moments(moved), moments(reference), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_matching_in_float32_keeps_the_type() -> None:
    moved = match_moments(picture(0).float(), picture(1).float())
    assert moved.dtype == torch.float32
    for got, expected in zip(moments(moved), moments(picture(1)), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_matching_a_picture_to_itself_changes_nothing() -> None:
    image = picture(6)
    torch.testing.assert_close(match_moments(image, image), image, atol=1e-8, rtol=0)


def test_the_map_is_symmetric_positive_so_it_moves_colours_least() -> None:
    image, reference = picture(7), picture(8) ** 3
    flat = image[0].flatten(1).numpy()
    moved = match_moments(image, reference)[0].flatten(1).numpy()
    centred = (flat.T - flat.mean(axis=1), moved.T - moved.mean(axis=1))
    matrix = np.linalg.lstsq(*centred, rcond=None)[0]
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-8)
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_flat_and_grey_pictures_stay_finite() -> None:
    flat, grey = torch.full((1, 3, 8, 8), 0.3), picture(9)[:, :1].expand(-1, 3, -1, -1)
    reference = picture(10)
    for image in (flat, grey):
        moved = match_moments(image, reference)
        assert moved.isfinite().all()
        np.testing.assert_allclose(moments(moved)[0], moments(reference)[0], atol=1e-5)
        assert moved.abs().max() < 3
    assert match_moments(reference, flat.double()).std(dim=(2, 3)).max() < 1e-6
    to_grey = match_moments(reference, grey)
    np.testing.assert_allclose(moments(to_grey)[1], moments(grey)[1], atol=1e-5)


def test_one_reference_applies_to_a_whole_batch() -> None:
    batch = torch.cat([picture(0), picture(1)])
    moved = match_moments(batch, picture(2))
    torch.testing.assert_close(moved[1:], match_moments(picture(1), picture(2)))


def test_where_restricts_the_moments_to_a_region() -> None:
    image, reference = picture(3, 700, 5), picture(4)
    part = torch.zeros(1, 1, 700, 5)
    part[..., 100:650, :] = 1
    moved = match_moments(image, reference, where=part)[..., 100:650, :]
    torch.testing.assert_close(moved, match_moments(image[..., 100:650, :], reference))


def test_colours_are_lent_by_share_and_strength() -> None:
    # Low contrast around the middle, so that nothing is clipped to 0..1.
    one, other, image = (picture(seed) * 0.2 + 0.4 for seed in (1, 2, 3))
    match = partial(match_moments, noise=0.02)
    lent = lend_colours(image, [one, other], [0.25, 0.75])
    expected = 0.25 * match(image, one) + 0.75 * match(image, other)
    torch.testing.assert_close(lent, expected)
    torch.testing.assert_close(lend_colours(image, [one], [1.0], 0.5), (image + match(image, one)) / 2)
    assert torch.equal(lend_colours(image, [one], [1.0], 0.0), image)
    itself = image.clone()
    assert lend_colours(itself, [one, other], [0.25, 0.75], out=itself) is itself
    assert torch.equal(itself, lent)
    shares = torch.zeros(2, 1, *image.shape[-2:])
    shares[0, :, :3] = 1
    parts = lend_colours(image, [one, other], shares)
    torch.testing.assert_close(parts[..., :3, :], match(image[..., :3, :], one))
    assert torch.equal(parts[..., 3:, :], image[..., 3:, :])


def test_noise_is_not_stretched() -> None:
    noisy = 0.5 + 0.002 * (picture(5) - 0.5)
    assert match_moments(noisy, picture(6)).std() > 0.2
    assert lend_colours(noisy, [picture(6)], [1.0]).std(dim=(2, 3)).max() < 0.02


def test_keep_colour_combines_lightness_of_result_and_chroma_of_content() -> None:
    # Muted colours, so that no combination is out of gamut and clipped.
    result, content = picture(0) * 0.05 + 0.5, picture(1) * 0.05 + 0.45
    kept = rgb_to_lab(keep_colour(result, content))
    torch.testing.assert_close(kept[:, :1], rgb_to_lab(result)[:, :1], atol=1e-3, rtol=0)
    torch.testing.assert_close(kept[:, 1:], rgb_to_lab(content)[:, 1:], atol=1e-3, rtol=0)


def test_keep_colour_with_itself_with_grey_and_with_another_size() -> None:
    image = picture(3)
    torch.testing.assert_close(keep_colour(image, image), image, atol=1e-6, rtol=0)
    grey = keep_colour(image, torch.full_like(image, 0.5))
    assert (grey.amax(dim=1) - grey.amin(dim=1)).max() < 1e-3
    with pytest.raises(InputError, match="of the same size"):
        keep_colour(image, image[..., 1:])
