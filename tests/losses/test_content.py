"""The content loss against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.losses.content import ContentLoss


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
