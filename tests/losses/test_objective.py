"""The objective: named terms, weights, and no computation for disabled terms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from atelier.core.errors import UsageError
from atelier.features.vgg import TINY, VGG
from atelier.losses.content import ContentLoss
from atelier.losses.objective import Objective, Term, content_terms, statistics_terms
from atelier.losses.smoothness import TotalVariation
from atelier.losses.statistics import GramLoss, MomentLoss

PICTURE = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(1))


def mean(features: Tensor) -> Tensor:
    return features.mean()


def refuse(features: Tensor) -> Tensor:
    raise AssertionError("a term without weight was computed")


def test_terms_are_weighted_sums_by_name() -> None:
    encoder = VGG(TINY)
    terms = {"style": [Term("relu1_1", 2.0, mean), Term("relu2_1", 3.0, mean)], "content": []}
    found = encoder(PICTURE, ["relu1_1", "relu2_1"])
    values = Objective(encoder, terms, smoothness=0.5)(PICTURE)
    assert list(values) == ["style", "content", "smoothness"]
    expected = 2 * found["relu1_1"].mean() + 3 * found["relu2_1"].mean()
    assert values["style"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert values["content"].item() == 0
    assert values["smoothness"].item() == pytest.approx(0.5 * TotalVariation()(PICTURE).item(), rel=1e-6)


def test_a_term_with_zero_weight_is_not_computed() -> None:
    objective = Objective(VGG(TINY), {"style": [Term("relu5_1", 0.0, refuse)]})
    assert objective.taps == ()
    assert objective(PICTURE).keys() == {"style"}


def test_an_empty_objective_is_differentiable() -> None:
    picture = PICTURE.clone().requires_grad_()
    (value,) = Objective(VGG(TINY), {"style": []})(picture).values()
    assert torch.autograd.grad(value, picture)[0].abs().max() == 0


def test_content_terms_share_their_weight() -> None:
    encoder, taps = VGG(TINY), ("relu1_1", "relu3_1")
    terms = content_terms(encoder, PICTURE, taps, 0.6)
    assert [(term.tap, term.weight) for term in terms] == [("relu1_1", 0.3), ("relu3_1", 0.3)]
    other = PICTURE.flip(3)
    found, target = encoder(other, taps), encoder(PICTURE, taps)
    expected = sum(0.3 * ContentLoss(target[tap], relative=True)(found[tap]).item() for tap in taps)
    assert Objective(encoder, {"content": terms})(other)["content"].item() == pytest.approx(
        expected, rel=1e-5
    )
    with pytest.raises(UsageError, match="content_layers needs at least one tap"):
        content_terms(encoder, PICTURE, (), 1.0)


def test_published_content_loss_matches_the_paper() -> None:
    encoder, taps, other = VGG(TINY), ("relu1_1", "relu3_1"), PICTURE.flip(3)
    found, target = encoder(other, taps), encoder(PICTURE, taps)
    squares = {tap: (found[tap] - target[tap]).square() for tap in taps}
    # Equation 1 is half the sum at each tap; the tutorial has the mean.
    for scale, expected in (
        ("published", sum(one.sum() for one in squares.values()) / 2),
        ("tutorial", sum(one.mean() for one in squares.values()) / 2),
    ):
        terms = content_terms(encoder, PICTURE, taps, 3.0, scale=scale)  # type: ignore[arg-type]
        value = Objective(encoder, {"content": terms})(other)["content"].item()
        assert value == pytest.approx(3 * float(expected), rel=1e-5), scale


def test_statistics_terms_have_their_shares_and_scale() -> None:
    encoder, shares, other = VGG(TINY), {"relu1_1": 0.25, "relu2_1": 0.75}, PICTURE.flip(1)
    found, target = encoder(other, list(shares)), encoder(PICTURE, list(shares))
    terms = statistics_terms(encoder, PICTURE, shares, "gram", scale="published")
    value = Objective(encoder, {"style": terms})(other)["style"].item()
    expected = sum(
        share * GramLoss(target[tap], scale="published")(found[tap]).item() for tap, share in shares.items()
    )
    assert value == pytest.approx(expected, rel=1e-5)
    (term,) = statistics_terms(encoder, PICTURE, {"relu1_1": 1.0}, "moments")
    near = MomentLoss(target["relu1_1"], relative=True)(found["relu1_1"])
    assert term.loss(found["relu1_1"]).item() == pytest.approx(near.item(), rel=1e-6)
