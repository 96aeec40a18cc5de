"""The MRF energy and its matching against slow float64 versions."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atelier.losses.patches import Patches, PatchLoss, nearest_patches

Floats = npt.NDArray[np.float64]


def features(seed: int, height: int = 7, width: int = 6, channels: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, channels, height, width, generator=generator, dtype=torch.float64) - 0.3


def slow_patches(values: Tensor, size: int, stride: int) -> list[Floats]:
    """Every patch as a vector, row by row; the last ones reach the end."""
    array = values[0].numpy()
    _, height, width = array.shape

    def starts(side: int) -> list[int]:
        return sorted({*range(0, side - size + 1, stride), side - size})

    return [
        array[:, row : row + size, column : column + size].ravel()
        for row in starts(height)
        for column in starts(width)
    ]


def correlation(x: Floats, y: Floats) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def slow_energy(picture: Tensor, styles: list[Tensor], size: int, stride: int) -> float:
    keys = [patch for style in styles for patch in slow_patches(style, size, stride)]
    energies = []
    for patch in slow_patches(picture, size, stride):
        match = max(keys, key=lambda key: correlation(patch, key))
        energies.append(np.mean((patch - match) ** 2))
    return float(np.mean(energies))


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (2, 3), (1, 1)])
def test_energy_matches_its_definition(size: int, stride: int) -> None:
    picture, styles = features(0), [features(1, 6, 8), features(2, 5, 5)]
    expected = slow_energy(picture, styles, size, stride)
    assert PatchLoss(styles, size=size, stride=stride)(picture).item() == pytest.approx(expected, rel=1e-10)


def test_relative_loss_is_scale_invariant() -> None:
    picture, style = features(0), features(1)
    mean = style.square().mean().item()
    expected = slow_energy(picture, [style], 3, 1) / mean
    for factor in (1, 100):
        found = PatchLoss([factor * style], relative=True)(factor * picture).item()
        assert found == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    sides=st.tuples(*[st.integers(3, 9)] * 4),
    size=st.integers(1, 3),
    stride=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_block_size_does_not_change_matches(
    sides: tuple[int, int, int, int], size: int, stride: int, seed: int
) -> None:
    queries = Patches.of([features(seed, *sides[:2])], [None], size, stride)
    keys = Patches.of([features(seed + 50, *sides[2:]), features(3, 4, 4)], [None, None], size, stride)
    whole = nearest_patches(queries, keys, torch.float64)
    assert torch.equal(whole, nearest_patches(queries, keys, torch.float64, block=3))
    q, k = (patches.block(0, len(patches), torch.float64).numpy() for patches in (queries, keys))
    exact = [max(range(len(k)), key=lambda j, x=x: correlation(x, k[j])) for x in q]  # type: ignore[misc]
    assert whole.tolist() == exact


def test_matches_are_independent_of_patch_norm() -> None:
    picture, style = features(0), features(1)
    one, other = PatchLoss([style]), PatchLoss([style])
    one.match(picture)
    other.match(5 * picture)
    assert one.matched is not None
    assert other.matched is not None
    assert torch.allclose(one.matched.mean, other.matched.mean)


def test_style_patches_have_zero_loss() -> None:
    style = features(1, 9, 8)
    assert PatchLoss([style])(style).item() == pytest.approx(0, abs=1e-15)
    # A cut of it is made of its patches too; turned upside down it is not.
    assert PatchLoss([style])(style[..., 2:7, 1:6]).item() == pytest.approx(0, abs=1e-15)
    assert PatchLoss([style])(style.flip(2)).item() > 0.01


def test_a_copy_adds_its_patches() -> None:
    style = features(1, 9, 8)
    assert PatchLoss([style, style.flip(2)])(style.flip(2)).item() == pytest.approx(0, abs=1e-15)


def test_masked_patches_are_never_matched() -> None:
    style, mask = features(1, 9, 8), torch.ones(1, 1, 9, 8)
    mask[..., 4:] = 0
    inside, whole = PatchLoss([style], masks=[mask]), PatchLoss([style[..., :4]])
    picture = features(0)
    assert len(inside.patches) == len(whole.patches) == 7 * 2
    assert inside(picture).item() == pytest.approx(whole(picture).item(), rel=1e-12)


def test_gradient_at_fixed_matches() -> None:
    loss = PatchLoss([features(1)], every=10**9)
    assert torch.autograd.gradcheck(loss, (features(0, 5, 4).requires_grad_(),))


def test_matches_are_renewed_at_the_interval() -> None:
    loss, other = PatchLoss([features(1)], every=2), features(5)
    found = [loss(values).item() for values in (features(0), other, other)]
    assert found[2] == pytest.approx(PatchLoss([features(1)])(other).item())
    assert found[1] != found[2]


def test_descent_converges_to_style_patches() -> None:
    style, values = features(1, 8, 8).float(), features(0, 8, 8).float().requires_grad_()
    loss = PatchLoss([style], every=5)
    optimiser = torch.optim.Adam([values], lr=0.03)
    energies = []
    for _ in range(60):
        optimiser.zero_grad()
        energy = loss(values)
        energy.backward()
        optimiser.step()
        energies.append(energy.item())
    assert energies[-1] < 0.3 * energies[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2)])
def test_maps_smaller_than_a_patch(shape: tuple[int, int]) -> None:
    small = features(0, *shape).requires_grad_()
    for target in (features(1), features(1, *shape)):
        loss = PatchLoss([target])(small)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, small)[0].isfinite().all()


def test_bfloat16_is_close_to_float32() -> None:
    picture, style = features(0, 12, 12, 16).float(), features(1, 12, 12, 16).float()
    half = PatchLoss([style.bfloat16()])(picture.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(PatchLoss([style])(picture).item(), rel=0.02)
    searched = PatchLoss([style], dtype=torch.bfloat16)(picture)
    assert searched.item() == pytest.approx(PatchLoss([style])(picture).item(), rel=0.02)


def test_flat_and_empty_features_are_finite() -> None:
    for style, picture in itertools.product(
        (torch.zeros(1, 4, 6, 6), torch.full((1, 4, 6, 6), 0.7)), repeat=2
    ):
        moved = picture.clone().requires_grad_()
        loss = PatchLoss([style], relative=True)(moved)
        assert loss.isfinite()
        assert torch.autograd.grad(loss, moved)[0].isfinite().all()
