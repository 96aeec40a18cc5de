"""Shared code of the optimising methods: weights and sizes of the styles."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from atelier.core.errors import UsageError
from atelier.features import TINY, VGG
from atelier.losses import TotalVariation
from atelier.losses.objective import Term
from atelier.methods.base import Job
from atelier.methods.optimise.common import ContentKnobs, StyleKnobs, style_and_content, style_terms

CONTENT = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(1))
STYLES = [torch.full((1, 3, 20, 20), value) for value in (0.25, 0.5, 0.75)]


def job(weights: Sequence[float], strength: float = 1.0) -> Job:
    device = torch.device("cpu")
    return Job(CONTENT, STYLES[: len(weights)], weights, device, torch.float32, strength=strength)


class Named:
    """Two terms for each style; remembers the styles that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Tensor] = []

    def __call__(self, style: Tensor, seen: Tensor | None) -> list[Term]:
        self.asked.append(style)
        assert seen is None
        assert not torch.is_grad_enabled()
        return [Term("relu1_1", 0.25, torch.mean), Term("relu2_1", 0.75, torch.mean)]


def test_term_weights_combine_share_strength_and_style() -> None:
    named = Named()
    terms = style_terms(job((0.2, 0.0, 0.8), strength=0.5), CONTENT, named, weight=3.0)
    # The style without a weight is not even looked at; half the strength is a quarter of the weight.
    assert [float(style.mean()) for style in named.asked] == [0.25, 0.75]
    assert [term.tap for term in terms] == ["relu1_1", "relu2_1"] * 2
    expected = [3 / 4 * share * part for share in (0.2, 0.8) for part in (0.25, 0.75)]
    assert [term.weight for term in terms] == pytest.approx(expected)


def test_styles_are_scaled_with_the_content() -> None:
    named = Named()
    style_terms(job((1.0,)), CONTENT[..., :8, :12], named)
    assert named.asked[0].shape == (1, 3, 10, 10)


def test_the_objective_has_style_content_and_smoothness() -> None:
    encoder, named = VGG(TINY), Named()
    knobs = ContentKnobs(style_weight=2.0, content_weight=5.0, content_layers=("relu2_1",), smoothness=3.0)
    values = style_and_content(job((1.0,)), knobs, encoder, CONTENT, named)(CONTENT)
    found = encoder(CONTENT, ["relu1_1", "relu2_1"])
    style = 2 * (0.25 * found["relu1_1"].mean() + 0.75 * found["relu2_1"].mean())
    assert list(values) == ["style", "content", "smoothness"]
    assert values["style"].item() == pytest.approx(style.item(), rel=1e-6)
    assert values["content"].item() == 0
    assert values["smoothness"].item() == pytest.approx(3 * TotalVariation()(CONTENT).item(), rel=1e-6)


def test_tap_shares_sum_to_one() -> None:
    assert StyleKnobs(style_layers=("a", "b"), style_layer_weights=(1, 3)).style_shares() == {
        "a": 0.25,
        "b": 0.75,
    }
    with pytest.raises(UsageError, match="style_layer_weights has 1 numbers for 4 style_layers"):
        StyleKnobs(style_layer_weights=(1,)).style_shares()
