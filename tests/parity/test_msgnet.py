"""MSG-Net's checkpoint loads under its own names and gives the recorded pictures, losses and gradients."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.features.vgg import VGG16, from_official
from atelier.losses.pastiche import STYLE, Pastiche
from atelier.methods.feedforward.pastiche import weighted
from atelier.networks.msgnet import MSGNet, from_published, load_msgnet

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "msgnet" / "layout.json").read_text())
CASE = np.load(HERE / "msgnet" / "case.npz")


def given(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Tensor) -> None:
    fill.check(CASE, LAYOUT, name, value.detach().numpy())


def filled(model: str) -> dict[str, Tensor]:
    arrays = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(arrays) == LAYOUT["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def network() -> MSGNet:
    return load_msgnet(filled("msgnet"))


def test_every_tensor_is_used_once(network: MSGNet) -> None:
    state = filled("msgnet")
    once = [value for name, value in state.items() if not name.startswith(("model.0.", "model.1."))]
    assert sum(one.numel() for one in network.parameters()) == sum(one.numel() for one in once)


def test_old_files_hold_statistics_that_are_dropped() -> None:
    state = filled("msgnet")
    more = {f"model1.1.{name}": torch.ones(64) for name in ("running_mean", "running_var")}
    assert from_published(state | more).keys() == from_published(state).keys()


def test_the_pictures(network: MSGNet) -> None:
    content = given("content_rgb") / 255
    check("content_bgr_first_row", 255 * content.flip(1)[:, :, 0])
    with torch.no_grad():
        target = network.target(given("style_rgb") / 255)
        check("target_gram", target)
        encoded = network.encode(content)
        check("model1_content", encoded)
        check("ins_content", network.match(encoded, target))
        check("output_bgr", network.decode(encoded, target))
        check("output_bgr_style2", network.decode(encoded, network.target(given("style2_rgb") / 255)))


def test_the_losses_and_gradients() -> None:
    network = load_msgnet(filled("msgnet"))
    # Caffe's VGG-16 takes BGR minus a mean, on 0..255.
    caffe = filled("vgg16")
    caffe["conv1_1.weight"] = caffe["conv1_1.weight"].flip(1)
    mean = tuple(one / 255 for one in reversed(LAYOUT["hyperparameters"]["bgr_mean"]))
    plan = replace(VGG16, mean=mean, std=(1 / 255,) * 3)
    encoder = from_official(plan, caffe)
    batch = given("batch_rgb") / 255
    for tap, features in encoder(batch, STYLE).items():
        check(f"vgg_{tap}", features)
    criterion = Pastiche(encoder, relative=False, content=("relu2_2",))
    style = given("style_rgb") / 255
    grams = criterion.grams(criterion.see(style))
    found = criterion(network(batch, network.target(style)), batch, grams)
    terms = weighted(found, criterion, (1, 5, 0), by_channel=grams)
    check("content_loss", terms["content"])
    check("style_loss", terms["style"])
    (terms["content"] + terms["style"]).backward()
    # The gradients, under the published names.
    layout = LAYOUT["models"]["msgnet"]["official_layout"]
    own = from_published({name: torch.full((1,), float(place)) for place, name in enumerate(layout)})
    place_of = {list(layout)[int(value)]: name for name, value in own.items()}
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    found_norms = [torch.as_tensor(gradients[place_of[name]]).norm() for name in LAYOUT["grad_order"]]
    check("grad_l2", torch.stack(found_norms))
