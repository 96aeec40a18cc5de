"""Transport, palette, moments and self-similarity against slow float64 versions and invariants."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from atelier.losses.transport import (
    ColumnMomentLoss,
    PaletteLoss,
    SelfSimilarityLoss,
    TransportLoss,
    relaxed,
    rotated,
    unit,
)

Floats = npt.NDArray[np.float64]


def columns(seed: int, count: int = 12, channels: int = 5) -> Tensor:
    return torch.rand(count, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(x: Floats, y: Floats) -> float:
    return float(1 - x @ y / np.sqrt((x @ x) * (y @ y)))


def slow_relaxed(costs: Floats) -> float:
    there = np.mean([min(row) for row in costs])
    back = np.mean([min(column) for column in costs.T])
    return float(max(there, back))


LOSSES: dict[str, Any] = {
    "transport": TransportLoss,
    "moments": ColumnMomentLoss,
    "palette": PaletteLoss,
    "self-similarity": SelfSimilarityLoss,
}


@pytest.fixture(params=list(LOSSES))
def build(request: pytest.FixtureRequest) -> Any:
    return LOSSES[request.param]


@pytest.mark.parametrize(("count", "others"), [(12, 7), (4, 15), (1, 3)])
def test_transport_matches_its_definition(count: int, others: int) -> None:
    x, y = columns(0, count), columns(1, others)
    costs = np.array([[cosine(p, q) for q in y.numpy()] for p in x.numpy()])
    assert TransportLoss(y)(x).item() == pytest.approx(slow_relaxed(costs), rel=1e-12)


@pytest.mark.parametrize(("count", "others"), [(12, 7), (4, 15)])
def test_palette_matches_its_definition(count: int, others: int) -> None:
    x, y = columns(0, count, 3), columns(1, others, 3)
    axes = np.array([[1, 1, 1], [-1, 1.3660254038, -0.3660254038], [-1, -0.3660254038, 1.3660254038]])
    a, b = x.numpy() @ axes.T / 3**0.5, y.numpy() @ axes.T / 3**0.5
    costs = np.array([[cosine(p, q) + np.sqrt(max(np.sum((p - q) ** 2), 1e-5) / 3) for q in b] for p in a])
    assert PaletteLoss(y)(x).item() == pytest.approx(slow_relaxed(costs), rel=1e-7)


def test_moments_match_their_definition() -> None:
    x, y = columns(0), columns(1, 9)
    a, b = x.numpy(), y.numpy()
    spread = np.abs(np.cov(a.T, ddof=0) - np.cov(b.T, ddof=0)).mean()
    expected = np.abs(a.mean(0) - b.mean(0)).mean() + spread
    assert ColumnMomentLoss(y)(x).item() == pytest.approx(expected, rel=1e-12)


def test_self_similarity_matches_its_definition() -> None:
    x, c = columns(0), columns(1)

    def shares(values: Floats) -> Floats:
        distances = np.array([[cosine(p, q) for q in values] for p in values])
        return distances / distances.sum(0)

    expected = np.abs(shares(x.numpy()) - shares(c.numpy())).sum() / 12
    assert SelfSimilarityLoss(c)(x).item() == pytest.approx(expected, rel=1e-9)


def test_gradient(build: Any) -> None:
    moved = columns(0, 6, 3).requires_grad_()
    assert torch.autograd.gradcheck(build(columns(1, 6, 3)), (moved,))


def test_loss_is_zero_at_the_target_in_any_order(build: Any) -> None:
    target = columns(0, 20, 3)
    order = torch.arange(20) if build is SelfSimilarityLoss else torch.arange(19, -1, -1)
    nothing = 1e-12 if build is not PaletteLoss else (1e-5 / 3) ** 0.5 + 1e-12
    assert abs(build(target)(target[order]).item()) <= nothing
    assert build(target)(columns(1, 20, 3)).item() > 0.01


def test_self_similarity_ignores_appearance() -> None:
    # A rotation of feature space keeps every angle, and so the content.
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    content = columns(0)
    assert SelfSimilarityLoss(content)(content @ turn.Q).item() < 1e-12
    assert SelfSimilarityLoss(content)(3 * content).item() < 1e-12


def test_a_flat_content_has_zero_self_similarity_loss() -> None:
    flat = torch.full((9, 4), 0.3) + 1e-8 * torch.rand(9, 4)
    moved = columns(0, 9, 4).float().requires_grad_()
    loss = SelfSimilarityLoss(flat)(moved)
    (slope,) = torch.autograd.grad(loss, moved)
    assert slope.abs().max() < 1e-5


def test_transport_is_symmetric() -> None:
    # All of the picture on one style column is cheap there, but the other style column is far from all.
    style = torch.eye(2, dtype=torch.float64)
    alike = style[:1].expand(5, -1)
    assert TransportLoss(style)(alike).item() == pytest.approx(0.5)
    assert TransportLoss(alike)(style).item() == pytest.approx(0.5)


def test_relaxed_distance_takes_the_larger_direction() -> None:
    costs = torch.tensor([[1.0, 5.0, 2.0], [4.0, 3.0, 9.0]])
    chosen: list[tuple[list[int], list[int]]] = []

    def cost(i: Tensor, j: Tensor) -> Tensor:
        chosen.append((i.tolist(), j.tolist()))
        return costs[i, j]

    assert relaxed(costs, cost).item() == 2.0
    assert relaxed(costs.T, lambda i, j: costs.T[i, j]).item() == 2.0
    assert relaxed(costs - 10 * torch.eye(2, 3), lambda i, j: costs[i, j]).isfinite()
    assert chosen == [([0, 1], [0, 1])]


def test_a_black_pixel_has_finite_gradients(build: Any) -> None:
    black = torch.cat([torch.zeros(2, 3), columns(0, 4, 3).float()]).requires_grad_()
    for target in (columns(1, 6, 3).float(), torch.zeros(6, 3)):
        loss = build(target)(black)
        (slope,) = torch.autograd.grad(loss, black)
        assert loss.isfinite()
        assert slope.isfinite().all()
        assert slope.abs().max() < 100


def test_a_single_column(build: Any) -> None:
    one = columns(0, 1, 3).requires_grad_()
    loss = build(columns(1, 1, 3))(one)
    assert torch.autograd.grad(loss, one)[0].isfinite().all()


def test_half_precision_search_gives_exact_distances() -> None:
    x, y = columns(0, 60, 40).float(), columns(1, 80, 40).float()
    exact = TransportLoss(y)(x).item()
    half = TransportLoss(y, dtype=torch.bfloat16)(x).item()
    assert exact <= half * (1 + 1e-6)
    assert half == pytest.approx(exact, rel=0.02)


def test_palette_maps_greys_to_the_first_axis() -> None:
    greys = torch.linspace(0, 1, 5)[:, None].expand(-1, 3)
    assert rotated(greys)[:, 1:].abs().max() < 1e-6
    assert rotated(greys)[:, 0].tolist() == pytest.approx((greys[:, 0] * 3**0.5).tolist())


def test_unit_normalises_columns() -> None:
    assert unit(columns(0)).square().sum(1).tolist() == pytest.approx([1.0] * 12)
    assert unit(torch.zeros(2, 3)).abs().max() == 0
