"""The training of one style: its weight rises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atelier.methods.base import Batch
from atelier.methods.feedforward.johnson import Johnson


def test_the_style_s_weight_rises_from_half_to_the_whole(tiny_encoder: Path) -> None:
    taps = ("relu1_1", "relu2_1")
    settings = {"encoder": str(tiny_encoder), "content_layers": taps[:1], "style_layers": taps}
    items = {"photos": torch.rand(2, 3, 16, 16), "styles": [torch.rand(1, 3, 16, 16)]}

    def style(step: int, **more: float) -> float:
        training = Johnson.Training(**settings, style_weight=8.0, **more)
        method, network = Johnson(), Johnson().network(training)
        torch.manual_seed(0)
        for value in network.parameters():
            torch.nn.init.normal_(value, std=0.1)
        terms = method.losses(network, Batch(items, step, torch.Generator()), training)
        return terms["style"].item()

    whole = style(0, style_warmup=0)
    assert whole > 0
    assert style(0, style_warmup=10) == pytest.approx(0.55 * whole)
    assert style(4, style_warmup=10) == pytest.approx(0.75 * whole)
    assert style(9, style_warmup=10) == style(5000, style_warmup=10) == pytest.approx(whole)
