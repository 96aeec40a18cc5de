"""The matting Laplacian against the matrix of Levin et al., built entry by entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atelier.maths.matting import MattingLaplacian


def picture(height: int, width: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.rand((batch, 3, height, width), generator=torch.Generator().manual_seed(seed))


def slow(guide: Tensor, eps: float = 1e-7) -> np.ndarray:
    """The matrix (H W, H W) of a guide (3, H, W): eq. 12, window by window and pair by pair."""
    colours = guide.double().permute(1, 2, 0).numpy()
    height, width = colours.shape[:2]
    matrix = np.zeros((height * width, height * width))
    for top in range(height - 2):
        for left in range(width - 2):
            places = [(top + y) * width + left + x for y in range(3) for x in range(3)]
            window = colours[top : top + 3, left : left + 3].reshape(9, 3)
            around = window - window.mean(0)
            inverse = np.linalg.inv(around.T @ around / 9 + eps / 9 * np.eye(3))
            for i, p in enumerate(places):
                for j, q in enumerate(places):
                    matrix[p, q] += (i == j) - (1 + around[i] @ inverse @ around[j]) / 9
    return matrix


GUIDES = {
    "random": picture(6, 7),
    "flat": torch.full((1, 3, 6, 7), 0.4),
    "grey": picture(6, 7)[:, :1].repeat(1, 3, 1, 1),
    "black and white": (picture(6, 7) > 0.5).float(),
    "one shade apart": 0.5 + (picture(6, 7) > 0.5).float() / 255,
}


@pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)
def test_the_laplacian_agrees_with_a_slow_reference(guide: Tensor) -> None:
    matrix, values = slow(guide[0]), picture(6, 7, seed=3)
    laplacian = MattingLaplacian(guide)
    flat = values[0].double().flatten(1).numpy()
    np.testing.assert_allclose(laplacian.times(values)[0].flatten(1).numpy(), flat @ matrix, atol=1e-6)
    np.testing.assert_allclose(laplacian.energy(values).item(), np.trace(flat @ matrix @ flat.T), atol=1e-6)


@given(height=st.integers(3, 9), width=st.integers(3, 9), seed=st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_linear_functions_of_the_guide_have_no_energy(height: int, width: int, seed: int) -> None:
    guide = picture(height, width, seed=seed)
    mixing = torch.randn((3, 3), generator=torch.Generator().manual_seed(seed))
    linear = torch.einsum("ij,bjhw->bihw", mixing, guide) + mixing[0].view(1, 3, 1, 1)
    laplacian = MattingLaplacian(guide)
    # Not exactly 0, because the ridge penalises steep slopes.
    assert 0 <= laplacian.energy(linear).item() < 1e-4
    assert laplacian.energy(picture(height, width, seed=seed + 1)).item() >= 0


def test_the_laplacian_is_symmetric_and_ignores_constants() -> None:
    laplacian = MattingLaplacian(picture(8, 9))
    one, two = (picture(8, 9, seed=seed).double() for seed in (1, 2))
    torch.testing.assert_close((laplacian.times(one) * two).sum(), (laplacian.times(two) * one).sum())
    assert laplacian.times(torch.full((1, 1, 8, 9), 5.0)).abs().max() < 1e-9


def test_each_guide_of_a_batch_has_its_own_laplacian() -> None:
    guides, values = picture(6, 6, batch=3), picture(6, 6, batch=3, seed=1)
    together = MattingLaplacian(guides).energy(values)
    apart = [MattingLaplacian(guides[i : i + 1]).energy(values[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 2)])
def test_pictures_smaller_than_a_window_have_no_energy(size: tuple[int, int]) -> None:
    laplacian = MattingLaplacian(picture(*size))
    assert laplacian.energy(picture(*size, seed=1)).item() == 0
    assert laplacian.times(picture(*size, seed=1)).shape == (1, 3, *size)
