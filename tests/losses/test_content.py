"""The content losses against NumPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.losses.content import ContentLoss, EdgeLoss


def features(seed: int, *, channels: int = 3) -> Tensor:
    return torch.randn(1, channels, 5, 4, generator=torch.Generator().manual_seed(seed))


def test_mean_squared_difference() -> None:
    a, b = features(0), features(1)
    expected = np.mean((a.double().numpy() - b.double().numpy()) ** 2)
    assert ContentLoss(a)(b).item() == pytest.approx(expected, rel=1e-5)
    assert ContentLoss(a)(a).item() == 0


def test_relative_loss_is_one_for_zero_features_and_scale_invariant() -> None:
    a, b = features(0), features(1)
    loss = ContentLoss(a, relative=True)
    assert loss(torch.zeros_like(a)).item() == pytest.approx(1)
    assert ContentLoss(1000 * a, relative=True)(1000 * b).item() == pytest.approx(loss(b).item(), rel=1e-5)
    assert ContentLoss(torch.zeros_like(a), relative=True)(torch.zeros_like(a)).item() == 0


def test_half_precision_is_compared_in_float32() -> None:
    a, b = features(0), features(1)
    half = ContentLoss(a.bfloat16())(b.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(ContentLoss(a)(b).item(), rel=0.01)


def test_the_target_is_a_constant() -> None:
    source = features(0).requires_grad_()
    moved = features(1).requires_grad_()
    ContentLoss(source)(moved).backward()
    assert source.grad is None
    assert torch.autograd.gradcheck(
        ContentLoss(features(2).double()), (moved.detach().double().requires_grad_(),)
    )


def test_a_different_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 5, 4\).*\(1, 3, 5, 4\)"):
        ContentLoss(features(0))(features(0, channels=2))


def ramp(angle: float, *, length: float = 0.01) -> Tensor:
    """A grey picture (1, 3, 32, 32) that rises by `length` a pixel in a direction, in degrees."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    turned = math.cos(math.radians(angle)) * x + math.sin(math.radians(angle)) * y
    return (0.5 + length * (turned - turned.mean())).expand(1, 3, 32, 32)


@pytest.mark.parametrize("angle", [0, 30, 60, 90, 150])
def test_edges_are_as_far_apart_as_one_less_the_cosine(angle: float) -> None:
    found = EdgeLoss(ramp(20))(ramp(20 + angle)).item()
    assert found == pytest.approx(1 - abs(math.cos(math.radians(angle))), abs=2e-3)


def test_the_negative_and_any_contrast_keep_the_edges() -> None:
    photo = torch.rand(2, 3, 24, 28, generator=torch.Generator().manual_seed(1))
    loss = EdgeLoss(photo)
    for picture in (photo, 1 - photo, 0.4 + 0.2 * photo):
        assert loss(picture).item() < 2e-3
    assert loss(torch.full_like(photo, 0.5)).item() == pytest.approx(1, abs=1e-3)
    assert loss(photo.flip(0)).item() > 0.2


def test_strong_edges_of_the_photo_count_more() -> None:
    photo = torch.cat([ramp(0, length=0.02), ramp(0, length=0.002)], 2)
    upper, lower = photo.clone(), photo.clone()
    upper[..., :32, :], lower[..., 32:, :] = ramp(90), ramp(90)
    assert EdgeLoss(photo)(upper).item() > 5 * EdgeLoss(photo)(lower).item()


def test_the_gradient_of_the_edge_loss_is_right() -> None:
    generator = torch.Generator().manual_seed(3)
    photo, picture = (torch.rand(1, 3, 9, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(EdgeLoss(photo), (picture.requires_grad_(),))
    assert EdgeLoss(torch.zeros(1, 3, 16, 16))(torch.rand(1, 3, 16, 16)).isfinite()
