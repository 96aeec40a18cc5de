"""Style losses against slow float64 versions, closed forms and invariants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from atelier.core.errors import UsageError
from atelier.losses.statistics import GramLoss, MomentLoss, WassersteinLoss
from atelier.maths.moments import mean_and_covariance

Build = Callable[..., Callable[[Tensor], Tensor]]

LOSSES: dict[str, Build] = {
    "tutorial": GramLoss,
    "published": lambda target, **options: GramLoss(target, scale="published", **options),
    "gram relative": lambda target, **options: GramLoss(target, scale="relative", **options),
    "centred": lambda target, **options: GramLoss(target, centred=True, **options),
    "centred relative": lambda target, **options: GramLoss(target, centred=True, scale="relative", **options),
    "moments": MomentLoss,
    "moments relative": lambda target, **options: MomentLoss(target, relative=True, **options),
    "wasserstein": WassersteinLoss,
    "wasserstein relative": lambda target, **options: WassersteinLoss(target, relative=True, **options),
}


def features(seed: int, height: int = 9, width: int = 7, *, channels: int = 5, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator) + torch.eye(channels)
    noise = torch.randn(batch, channels, height, width, generator=generator)
    return torch.relu(torch.einsum("dc,bchw->bdhw", mixing, noise) + 0.5)


def positions(values: Tensor) -> np.ndarray:
    (picture,) = values.double().numpy()
    return np.asarray(picture.reshape(len(picture), -1))


@pytest.fixture(params=list(LOSSES))
def build(request: pytest.FixtureRequest) -> Build:
    return LOSSES[request.param]


def test_loss_is_zero_only_at_the_target(build: Build) -> None:
    target, other = features(0), features(1)
    loss = build(target)
    assert abs(loss(target).item()) < 1e-6 * loss(other).item()
    assert loss(other).item() > 0


def test_loss_ignores_position_order_and_count(build: Build) -> None:
    target, other = features(0, 12, 10), features(1)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(3))
    shuffled = target.flatten(2)[..., order].view(1, 5, 8, 15)
    assert build(target)(shuffled).item() < 1e-5 * build(target)(other).item()


def test_gradient(build: Build) -> None:
    target = features(0).double()
    moved = features(1, 4, 3, channels=5).double() + 0.01 * torch.rand(1, 5, 4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(build(target), (moved.requires_grad_(),))


def test_gradient_is_finite_with_fewer_positions_than_channels(build: Build) -> None:
    target = features(0, 2, 3, channels=12)
    for moved in (features(1, 2, 2, channels=12), target.clone(), torch.zeros(1, 12, 3, 3)):
        moved.requires_grad_()
        loss = build(target)(moved)
        loss.backward()
        assert loss.isfinite()
        assert moved.grad is not None
        assert moved.grad.isfinite().all()


def test_a_flat_style_is_finite(build: Build) -> None:
    flat, moved = torch.full((1, 4, 8, 8), 0.7), features(1, channels=4).requires_grad_()
    loss = build(flat)(moved)
    loss.backward()
    assert 0 < loss.item() < 1e6
    assert moved.grad is not None
    assert moved.grad.isfinite().all()


def test_bfloat16_is_close_to_float32(build: Build) -> None:
    target, other = features(0, 64, 48, channels=16), features(1, 40, 56, channels=16)
    exact, half = build(target)(other), build(target.bfloat16())(other.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=0.01)
    assert build(target.bfloat16())(target.bfloat16()).item() < 1e-5 * exact.item()


def test_weights_restrict_the_loss_to_a_region(build: Any) -> None:
    target, other, inside = features(0), features(1), torch.zeros(1, 1, 9, 7)
    inside[..., 2:6, 1:5] = 1
    cut = build(target[..., 2:6, 1:5])(other[..., 2:6, 1:5]).item()
    assert build(target, weight=inside)(other, weight=inside).item() == pytest.approx(cut, rel=1e-4)


def test_a_gradient_step_lowers_the_loss(build: Build) -> None:
    target, moved = features(0), features(1).requires_grad_()
    loss = build(target)
    before = loss(moved)
    (slope,) = torch.autograd.grad(before, moved)
    step = 0.01 * before / slope.square().sum()
    assert loss(moved - step * slope).item() < before.item()


@pytest.mark.parametrize("name", ["gram relative", "moments relative", "wasserstein relative"])
def test_relative_loss_is_one_for_zero_features_and_scale_invariant(name: str) -> None:
    target, other = features(0), features(1)
    assert LOSSES[name](target)(torch.zeros_like(other)).item() == pytest.approx(1, rel=0.02)
    large = LOSSES[name](100 * target)(100 * other).item()
    assert large == pytest.approx(LOSSES[name](target)(other).item(), rel=1e-3)


@pytest.mark.parametrize("centred", [False, True])
def test_gram_loss_as_the_tutorial_and_as_published(centred: bool) -> None:
    style, image = features(0), features(1)
    a, b = positions(style), positions(image)
    if centred:
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    channels, count = b.shape
    difference = a @ a.T - b @ b.T
    tutorial = np.mean((difference / (channels * count)) ** 2)
    published = np.sum(difference**2) / (4 * channels**2 * count**2)
    assert GramLoss(style, centred=centred)(image).item() == pytest.approx(tutorial, rel=1e-4)
    found = GramLoss(style, centred=centred, scale="published")(image).item()
    assert found == pytest.approx(published, rel=1e-4)


def test_moment_loss_is_equation_12() -> None:
    style, image = features(0), features(1)
    a, b = positions(style), positions(image)
    means = np.mean((a.mean(1) - b.mean(1)) ** 2)
    deviations = np.mean((np.sqrt(a.var(1, ddof=1) + 1e-5) - np.sqrt(b.var(1, ddof=1) + 1e-5)) ** 2)
    assert MomentLoss(style)(image).item() == pytest.approx(means + deviations, rel=1e-4)


def test_wasserstein_loss_matches_scipy() -> None:
    style, image = features(0), features(1)
    a, b = positions(style), positions(image)
    s, t = np.cov(a, ddof=0), np.cov(b, ddof=0)
    root = scipy.linalg.sqrtm(s)
    spread = np.trace(s + t - 2 * scipy.linalg.sqrtm(root @ t @ root).real)
    expected = np.sum((a.mean(1) - b.mean(1)) ** 2) + spread
    assert WassersteinLoss(style)(image).item() == pytest.approx(expected, rel=1e-4)


def test_wasserstein_between_axis_aligned_gaussians() -> None:
    # Corners of a box: mean and deviations by construction, no correlation.
    corners = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]]).view(1, 2, 2, 2)
    scale = torch.tensor([3.0, 0.5]).view(1, 2, 1, 1)
    shift = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    expected = (3 - 1) ** 2 + (0.5 - 1) ** 2 + 2**2 + 1**2
    assert WassersteinLoss(corners)(corners * scale + shift).item() == pytest.approx(expected, rel=1e-5)


def test_wasserstein_of_degenerate_gaussians_on_a_line() -> None:
    # Both covariances have rank one along the same direction: deviations subtract.
    along = torch.linspace(-1, 1, 50).view(1, 1, 5, 10).expand(1, 3, 5, 10)
    variance = 3 * along[:, :1].var(correction=0).item()
    assert WassersteinLoss(along)(4 * along).item() == pytest.approx((4 - 1) ** 2 * variance, rel=1e-4)


def test_wasserstein_keeps_weak_channels() -> None:
    # Dropping a channel is an orthogonal projection, so an optimal map: the cost is that channel's energy.
    weak = features(0, 20, 20) * torch.tensor([1.0, 1.0, 1.0, 1.0, 1e-2]).view(1, 5, 1, 1)
    gone = weak * torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]).view(1, 5, 1, 1)
    energy = weak[:, 4].square().mean().item()
    assert WassersteinLoss(weak)(gone).item() == pytest.approx(energy, rel=0.02)


def test_the_target_is_a_constant(build: Build) -> None:
    source, moved = features(0).requires_grad_(), features(1).requires_grad_()
    build(source)(moved).backward()
    assert source.grad is None


def test_an_unknown_scale_is_an_error() -> None:
    with pytest.raises(UsageError, match="no scale 'publish': did you mean 'published'"):
        GramLoss(features(0), scale="publish")  # type: ignore[arg-type]


def test_a_target_may_be_its_mean_and_covariance(build: Build) -> None:
    """The statistics of a style in words, which has no features, are a target like any other."""
    target, other = features(0, 40, 50), features(1)
    expected = build(target)(other).item()
    found = build(mean_and_covariance(target))(other)
    # The loss on deviations corrects the variance of features for their number, 2000 here.
    assert found.item() == pytest.approx(expected, rel=1e-3)
    assert build(mean_and_covariance(target))(target).item() < 1e-5 * expected
