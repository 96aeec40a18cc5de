"""Losses and gradient of the PyTorch neural style tutorial (the case's first half)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.features.vgg import VGG, VGG19, from_official
from atelier.losses import ContentLoss, GramLoss
from atelier.maths.moments import gram

HERE = Path(__file__).parent
# The tutorial counts convolutions, conv_1 to conv_5, and looks before the ReLU.
STYLE = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
CONTENT = "conv2_2"
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "gatys" / "layout.json").read_text())
CASE = np.load(HERE / "gatys" / "case.npz")


@pytest.fixture(scope="module")
def encoder() -> VGG:
    filled = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"])
    assert fill.state_dict_sha256(filled) == LAYOUT["models"]["vgg19"]["fill_sha256"]
    return from_official(VGG19, {key: torch.from_numpy(value) for key, value in filled.items()})


def picture(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def losses(encoder: VGG, image: Tensor) -> tuple[Tensor, Tensor]:
    style, content = encoder(picture("style"), STYLE), encoder(picture("content"), [CONTENT])
    features = encoder(image, STYLE)
    of_style = [GramLoss(style[tap])(features[tap]) for tap in STYLE]
    return torch.stack(of_style), ContentLoss(content[CONTENT])(features[CONTENT])


def test_losses(encoder: VGG) -> None:
    style, content = losses(encoder, picture("input"))
    fill.check(CASE, LAYOUT, "style_losses", style.numpy())
    fill.check(CASE, LAYOUT, "content_losses", content[None].numpy())


def test_gradient(encoder: VGG) -> None:
    image = picture("input").requires_grad_()
    style, content = losses(encoder, image)
    (1e6 * style.sum() + content).backward()
    assert image.grad is not None
    fill.check(CASE, LAYOUT, "input_grad", image.grad.numpy())


def test_gram_matrix(encoder: VGG) -> None:
    features = encoder(picture("style"), ["conv1_1"])["conv1_1"]
    (matrix,) = gram(features) / features.shape[1]
    fill.check(CASE, LAYOUT, "style_gram_conv_1", matrix.numpy())
