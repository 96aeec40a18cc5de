"""Maximum mean discrepancies against slow float64 versions, closed forms and Gram matching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.core.errors import UsageError
from atelier.losses.kernels import GaussianKernelLoss, LinearKernelLoss, PolynomialKernelLoss
from atelier.losses.statistics import GramLoss

LOSSES: dict[str, Any] = {
    "linear": LinearKernelLoss,
    "polynomial": PolynomialKernelLoss,
    "polynomial with offset": lambda target, **options: PolynomialKernelLoss(target, offset=0.7, **options),
    "gaussian": GaussianKernelLoss,
    "gaussian linear": lambda target, **options: GaussianKernelLoss(
        target, estimator="linear", samples=10**6, fresh=False, **options
    ),
}


def features(seed: int, height: int = 9, width: int = 7, *, channels: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=generator) + torch.eye(channels)
    noise = torch.randn(1, channels, height, width, generator=generator)
    return torch.relu(torch.einsum("dc,bchw->bdhw", mixing, noise) + 0.5)


def positions(values: Tensor) -> np.ndarray:
    (picture,) = values.double().numpy()
    return np.asarray(picture.reshape(len(picture), -1)).T


def slow(
    kernel: Callable[[np.ndarray, np.ndarray], float], x: np.ndarray, y: np.ndarray, *, unbiased: bool
) -> float:
    """MMD^2 by its definition, pair by pair."""

    def mean(a: np.ndarray, b: np.ndarray, skip: bool) -> float:
        pairs = [
            kernel(p, q)
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (skip and unbiased and i == j)
        ]
        return float(np.mean(pairs))

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.fixture(params=list(LOSSES))
def build(request: pytest.FixtureRequest) -> Any:
    return LOSSES[request.param]


def test_linear_kernel_matches_its_definition() -> None:
    style, image = features(0, 5, 4), features(1, 3, 6)
    expected = slow(np.dot, positions(image), positions(style), unbiased=False)
    assert LinearKernelLoss(style)(image).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_polynomial_kernel_matches_its_definition(offset: float) -> None:
    style, image = features(0, 5, 4), features(1, 3, 6)
    expected = slow(lambda x, y: (x @ y + offset) ** 2, positions(image), positions(style), unbiased=False)
    assert PolynomialKernelLoss(style, offset=offset)(image).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("bandwidth", [0.5, 1.0, 3.0])
def test_gaussian_kernel_matches_its_definition(bandwidth: float) -> None:
    style, image = features(0, 5, 4), features(1, 3, 6)
    x, y = positions(image), positions(style)
    square = bandwidth * np.mean([np.sum((p - q) ** 2) for p in y for q in y])
    expected = slow(lambda p, q: np.exp(-np.sum((p - q) ** 2) / (2 * square)), x, y, unbiased=True)
    found = GaussianKernelLoss(style.double(), bandwidth=bandwidth)(image.double()).item()
    assert found == pytest.approx(expected, rel=1e-9)


def test_degree_two_equals_the_gram_loss() -> None:
    # Li et al. 2017, eq. 9 to 11: Gatys' loss is MMD^2 of (x.y)^2 over 4 N^2.
    style, image = features(0, 20, 16, channels=12).double(), features(1, 18, 22, channels=12).double()
    image.requires_grad_()
    mmd = PolynomialKernelLoss(style)(image) / (4 * 12**2)
    of_gatys = GramLoss(style, scale="published")(image)
    assert mmd.item() == pytest.approx(of_gatys.item(), rel=1e-5)
    slopes = [torch.autograd.grad(loss, image)[0] for loss in (mmd, of_gatys)]
    assert (slopes[0] - slopes[1]).abs().max() < 1e-5 * slopes[1].abs().max()


def test_relative_degree_two_equals_the_relative_gram_loss() -> None:
    style, image = features(0), features(1)
    mmd = PolynomialKernelLoss(style, relative=True)(image).item()
    assert mmd == pytest.approx(GramLoss(style, scale="relative")(image).item(), rel=1e-5)


def test_both_estimators_agree_on_average() -> None:
    style, image = features(0, 40, 40), features(1, 40, 40)
    exact = GaussianKernelLoss(style, samples=10**6)(image).item()
    for estimator, samples in (("full", 200), ("linear", 800)):
        loss = GaussianKernelLoss(style, estimator=estimator, samples=samples)  # type: ignore[arg-type]
        draws = np.array([loss(image).item() for _ in range(100)])
        assert draws.std() > 0
        assert abs(draws.mean() - exact) < 4 * draws.std() / 10


@pytest.mark.parametrize("estimator", ["full", "linear"])
def test_gaussian_estimate_is_unbiased_for_equal_distributions(estimator: Any) -> None:
    style, image = features(0, 30, 30), features(0, 60, 15)
    order = torch.randperm(900, generator=torch.Generator().manual_seed(3))
    image = style.flatten(2)[..., order].view(1, 5, 60, 15)
    loss = GaussianKernelLoss(style, estimator=estimator, samples=100)
    draws = np.array([loss(image).item() for _ in range(200)])
    assert draws.min() < 0 < draws.max()
    assert abs(draws.mean()) < 4 * draws.std() / 200**0.5


def test_fresh_draws_new_positions_on_each_call() -> None:
    style, image = features(0, 30, 30), features(1, 30, 30)
    fresh = GaussianKernelLoss(style, samples=50)
    fixed = GaussianKernelLoss(style, samples=50, fresh=False)
    assert fresh(image).item() != fresh(image).item()
    assert fixed(image).item() == fixed(image).item()
    assert GaussianKernelLoss(style, samples=50, seed=1)(image).item() != fixed(image).item()


def test_gradient(build: Any) -> None:
    target = features(0).double()
    moved = features(1, 4, 3).double() + 0.01 * torch.rand(1, 5, 4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(build(target), (moved.requires_grad_(),))


def test_loss_is_zero_only_at_the_target() -> None:
    target, other = features(0), features(1)
    for loss in (LinearKernelLoss(target), PolynomialKernelLoss(target, offset=1.0)):
        assert abs(loss(target).item()) < 1e-6 * loss(other).item()


@pytest.mark.parametrize("name", LOSSES)
def test_relative_loss_is_one_for_zero_features_and_scale_invariant(name: str) -> None:
    build, target, other = LOSSES[name], features(0), features(1)
    loss = build(target, relative=True)
    assert loss(torch.zeros_like(other)).item() == pytest.approx(1, rel=0.05)
    if name == "polynomial with offset":
        return  # the offset has a unit of its own
    large = build(100 * target, relative=True)(100 * other).item()
    assert large == pytest.approx(loss(other).item(), rel=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (8, 8)])
def test_flat_and_tiny_features_are_finite(build: Any, shape: tuple[int, int]) -> None:
    flat, moved = torch.full((1, 4, *shape), 0.7), features(1, *shape, channels=4).requires_grad_()
    for target in (flat, torch.zeros_like(flat)):
        loss = build(target, relative=True)(moved)
        (slope,) = torch.autograd.grad(loss, moved)
        assert loss.isfinite()
        assert slope.isfinite().all()


def test_bfloat16_is_close_to_float32(build: Any) -> None:
    target, other = features(0, 32, 24, channels=16), features(1, 20, 28, channels=16)
    exact, half = build(target)(other), build(target.bfloat16())(other.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=0.02)


def test_the_target_is_a_constant(build: Any) -> None:
    source, moved = features(0).requires_grad_(), features(1).requires_grad_()
    build(source)(moved).backward()
    assert source.grad is None


def test_a_descent_on_the_kernel_finds_the_distribution() -> None:
    # Two clusters, which have the means and deviations of no single one, are seen by the Gaussian alone.
    style = torch.cat([torch.zeros(1, 1, 8, 4), torch.ones(1, 1, 8, 4)], dim=3)
    points = torch.linspace(0.3, 0.7, 64).view(1, 1, 8, 8).requires_grad_()
    loss = GaussianKernelLoss(style, bandwidth=0.2)
    optimiser = torch.optim.Adam([points], lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss(points).backward()
        optimiser.step()
    found = points.detach().flatten().sort().values
    assert found[:24].abs().max() < 0.2
    assert (found[40:] - 1).abs().max() < 0.2


def test_invalid_arguments_are_errors() -> None:
    with pytest.raises(UsageError, match="no estimator 'ful': did you mean 'full'"):
        GaussianKernelLoss(features(0), estimator="ful")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a batch of one picture"):
        GaussianKernelLoss(features(0).expand(2, -1, -1, -1))


@pytest.mark.parametrize("name", LOSSES)
def test_positions_without_weight_are_ignored(name: str) -> None:
    target, found = features(1), features(2)
    weight = torch.zeros(1, 1, 9, 7)
    weight[..., :4] = 1
    whole = LOSSES[name](target, relative=True, weight=weight)(found, weight)
    part = LOSSES[name](target[..., :4], relative=True)(found[..., :4])
    torch.testing.assert_close(whole, part, rtol=1e-4, atol=1e-6)
    assert abs(float(whole) - float(LOSSES[name](target, relative=True)(found))) > 1e-3
