"""Total variation on images whose variation can be counted by hand."""

from __future__ import annotations

import math

import pytest
import torch

from atelier.core.errors import UsageError
from atelier.losses.smoothness import LatticeLoss, NeighbourNorm, Norm, TotalVariation

NORMS: list[Norm] = ["absolute", "isotropic", "squared"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [(4, 5), (1, 5), (1, 1)])
def test_a_constant_image_has_zero_loss_and_gradient(norm: Norm, size: tuple[int, int]) -> None:
    image = torch.full((1, 3, *size), 0.3, requires_grad=True)
    loss = TotalVariation(norm)(image)
    loss.backward()
    assert loss.item() == 0
    assert image.grad is not None
    assert torch.equal(image.grad, torch.zeros_like(image))


@pytest.mark.parametrize(("norm", "expected"), [("absolute", 7.0), ("isotropic", 5.0), ("squared", 25.0)])
def test_norms_of_a_3_4_slope(norm: Norm, expected: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    image = (3 * columns + 4 * rows)[None, None]
    inside = TotalVariation(norm)(image).item() * 40 * 50
    last = {"absolute": (3.0, 4.0), "isotropic": (3.0, 4.0), "squared": (9.0, 16.0)}[norm]
    assert inside == pytest.approx(39 * 49 * expected + 49 * last[0] + 39 * last[1], rel=1e-5)


def test_a_one_pixel_image_has_zero_loss() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2, 2] = 1
    assert TotalVariation("absolute")(image).item() * 25 == pytest.approx(4)
    assert TotalVariation("squared")(image).item() * 25 == pytest.approx(4)
    assert TotalVariation("isotropic")(image).item() * 25 == pytest.approx(2 + math.sqrt(2))


@pytest.mark.parametrize("norm", NORMS)
def test_gradient_and_half_precision(norm: Norm) -> None:
    image = torch.rand(1, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(TotalVariation(norm), (image.requires_grad_(),))
    half = TotalVariation(norm)(image.detach().bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(TotalVariation(norm)(image).item(), rel=0.02)


def test_an_unknown_norm_is_an_error() -> None:
    with pytest.raises(UsageError, match="no norm 'square': did you mean 'squared'"):
        TotalVariation("square")  # type: ignore[arg-type]


def test_lattice_loss_detects_a_grid_but_not_texture() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(80), indexing="ij")
    flat, slope = torch.full((96, 80), 0.5), (rows + 2 * columns) / 400
    grid = 0.02 * ((rows % 4 == 0) | (columns % 4 == 1)).float()
    noise = 0.02 * torch.randn((96, 80), generator=generator)

    def of(image: torch.Tensor) -> float:
        return LatticeLoss()(image[None, None]).item()

    assert of(flat) < 2e-5
    assert of(slope) < 5e-4  # the blur's border
    assert of(flat + grid) == pytest.approx(0.02 * (7 / 16 * 9 / 16) ** 0.5, rel=0.1)
    assert of(flat + noise) == pytest.approx(0.02 / 8, rel=0.1)  # the mean of 64 places
    assert of(slope + noise + grid) > 0.9 * of(flat + grid)


def test_lattice_loss_gradient_and_small_images() -> None:
    image = torch.rand((1, 2, 9, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(LatticeLoss(cells=2), (image.requires_grad_(),))
    assert LatticeLoss()(torch.rand(1, 3, 5, 4)).isfinite()


def test_norms_of_neighbours_by_hand() -> None:
    """Right, lower, lower left and lower right neighbours; over channels and pictures together."""
    image = torch.arange(2 * 3 * 4 * 5, dtype=torch.float64).view(2, 3, 4, 5) ** 1.5
    pairs = {(0, 1): 0.0, (1, 0): 0.0, (1, -1): 0.0, (1, 1): 0.0}
    for down, right in pairs:
        for y in range(4 - down):
            for x in range(max(0, -right), 5 - max(0, right)):
                pairs[down, right] += float(
                    (image[..., y + down, x + right] - image[..., y, x]).square().sum()
                )
    expected = sum(value**0.5 for value in pairs.values())
    assert NeighbourNorm()(image).item() == pytest.approx(expected)


def test_norms_of_a_flat_picture_have_a_gradient() -> None:
    flat = torch.full((1, 3, 6, 6), 0.5, requires_grad=True)
    loss = NeighbourNorm()(flat)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(flat.grad, torch.zeros_like(flat))
