"""Ghiasi et al.'s checkpoint loads under its own names and gives the recorded pictures and losses."""

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

from atelier.core.errors import WeightsError
from atelier.features.vgg import VGG16, from_official, recognise
from atelier.losses.pastiche import STYLE, Pastiche
from atelier.methods.base import Batch, Job
from atelier.methods.feedforward.ghiasi import Ghiasi
from atelier.networks.conditional import Arbitrary, load_arbitrary
from atelier.networks.tensorflow import translate
from atelier.store.checkpoints import converter

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "ghiasi" / "layout.json").read_text())
ARRAYS = np.load(HERE / "ghiasi" / "case.npz")
CPU = torch.device("cpu")


def given(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name])


def check(name: str, value: Tensor) -> None:
    fill.check(ARRAYS, LAYOUT, name, value.numpy())


def filled(model: str) -> dict[str, Tensor]:
    arrays = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(arrays) == LAYOUT["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    return filled("ghiasi")


@pytest.fixture(scope="module")
def converted(official: dict[str, Tensor]) -> dict[str, Tensor]:
    return converter("ghiasi")(official)


@pytest.fixture(scope="module")
def network(converted: dict[str, Tensor]) -> Arbitrary:
    """As the method prepares it, batch norm folded in."""
    return load_arbitrary(converted).prepare(CPU, torch.float32)


@pytest.fixture(scope="module")
def weights_file(converted: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> str:
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("ghiasi") / "ghiasi.safetensors"
    save_file(converted, path)
    return str(path)


# the checkpoint


def test_every_variable_is_used(official: dict[str, Tensor], converted: dict[str, Tensor]) -> None:
    assert sum(value.numel() for value in converted.values()) == sum(
        value.numel() for value in official.values()
    )


@pytest.mark.parametrize(
    "name",
    [
        "InceptionV3/Mixed_6e/Branch_3/Conv2d_0b_1x1/BatchNorm/moving_mean",
        "InceptionV3/Mixed_5c/Branch_1/Conv_1_0c_5x5/weights",
        "Conv/biases",
        "style_params/transformer/expand/conv3/conv/StyleNorm/Conv_1/biases",
        "transformer/residual/residual5/conv2/weights",
        "transformer/contract/conv1/weights",
    ],
)
def test_each_is_missed(official: dict[str, Tensor], name: str) -> None:
    with pytest.raises(WeightsError, match="missing"):
        converter("ghiasi")({key: value for key, value in official.items() if key != name})


def test_what_training_left_is_dropped(official: dict[str, Tensor], converted: dict[str, Tensor]) -> None:
    one = torch.ones(1)
    more = {
        "global_step": one,
        "transformer/contract/conv1/weights/Adam": one,
        "transformer/contract/conv1/BatchNorm/beta/Adam_1": one,
        "InceptionV3/Mixed_7a/Branch_0/Conv2d_0a_1x1/weights": one,
        "vgg_16/conv1/conv1_1/weights": one,
        "beta1_power": one,
    }
    found = converter("ghiasi")(official | more)
    assert found.keys() == converted.keys()


def test_both_namings_load(official: dict[str, Tensor], converted: dict[str, Tensor]) -> None:
    first, second = load_arbitrary(official).state_dict(), load_arbitrary(converted).state_dict()
    assert first.keys() == second.keys() == converted.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# the network


def test_what_the_predictor_sees(network: Arbitrary) -> None:
    with torch.inference_mode():
        check("mixed_6e", network.predictor(given("style")))
        vector = network.vector(given("style"))
        check("bottleneck", vector)
        check("bottleneck_content", network.vector(given("content_as_style")))
        check("betas", network.shift(vector)[0])
        check("gammas", network.scale(vector)[0])


def test_before_the_style(network: Arbitrary) -> None:
    with torch.inference_mode():
        check("contract", network.transformer._contract(given("content"), iter(())))


def test_batch_norm_folds_away(converted: dict[str, Tensor], network: Arbitrary) -> None:
    plain = load_arbitrary(converted).eval()
    assert any("running_var" in name for name in plain.state_dict())
    assert not any("running_var" in name for name in network.state_dict())
    with torch.inference_mode():
        check("stylized", plain(given("content"), given("style")))


# the method


def painted(weights_file: str, styles: list[Tensor], shares: list[float], **knobs: Any) -> Tensor:
    job = Job(given("content"), styles, shares, CPU, torch.float32)
    return Ghiasi().transfer(job, Ghiasi.Knobs(weights=weights_file, **knobs))


def test_pictures(weights_file: str) -> None:
    style, own = given("style"), given("content_as_style")
    check("stylized", painted(weights_file, [style], [1.0]))
    check("stylized_w0.4", painted(weights_file, [style, own], [0.4, 0.6]))


def test_a_kept_vector(weights_file: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = str(tmp_path / "kept.safetensors")
    save_file({"style_vector": given("given_bottleneck")}, path)
    check("stylized_given_bottleneck", painted(weights_file, [given("style")], [1.0], style_vector=path))


def test_another_convention_is_far_outside(network: Arbitrary) -> None:
    with torch.inference_mode():
        vector = network.vector(given("style"))
        swapped = network.transformer(given("content"), network.scale(vector), network.shift(vector))
    with pytest.raises(AssertionError, match="stylized"):
        check("stylized", swapped)


# the losses


@pytest.fixture(scope="module")
def slim() -> dict[str, Tensor]:
    return filled("vgg16")


@pytest.fixture(scope="module")
def judge(slim: dict[str, Tensor]) -> Pastiche:
    """TF-slim's VGG-16 to the letter: it sees 255 times the picture, less a mean, and no deviation."""
    mean, rgb = tuple(part / 255 for part in (123.68, 116.779, 103.939)), (1 / 255,) * 3
    plan = replace(VGG16, widths=VGG16.widths[:4], convs=VGG16.convs[:4], mean=mean, std=rgb)
    state = {name.split(".", 2)[2]: value for name, value in translate(slim).items()}
    return Pastiche(from_official(plan, state, pooling="average"), relative=False)


def check_losses(judge: Pastiche, slack: float = 1.0) -> None:
    with torch.inference_mode():
        target = judge.grams(judge.see(given("image_style")))
        terms = judge(given("image_stylized"), given("image_content"), target)
    style = torch.stack([terms[tap] for tap in STYLE])
    total = terms["content"] + 5e-4 * style.sum() + 1e4 * terms["smoothness"]
    for name, value in (
        ("loss_content", terms["content"]),
        ("loss_style_layers", style),
        ("loss_style", 5e-4 * style.sum()),
        ("loss_tv", terms["smoothness"]),
        ("loss_total", total),
    ):
        fill.check(ARRAYS, LAYOUT, name, value.numpy(), slack)


def test_losses(judge: Pastiche) -> None:
    check_losses(judge)


def test_losses_by_the_encoder_that_is_stored(slim: dict[str, Tensor]) -> None:
    """Stored for input as torchvision's, it differs at the border of its first layer."""
    fifth = {f"vgg_16/conv5/conv5_{n}/weights": torch.zeros(3, 3, 512, 512) for n in (1, 2, 3)}
    fifth |= {f"vgg_16/conv5/conv5_{n}/biases": torch.zeros(512) for n in (1, 2, 3)}
    rest = {
        "vgg_16/fc8/biases": torch.zeros(1000),
        "vgg_16/mean_rgb": torch.zeros(3),
        "global_step": torch.ones(()),
    }
    state = converter("vgg16_slim")(slim | fifth | rest)
    assert recognise(state) is VGG16
    check_losses(Pastiche(from_official(VGG16, state, pooling="average"), relative=False), slack=6)


def test_a_training_step_has_the_published_losses(judge: Pastiche, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method's own terms, with the published weights, on the recorded pictures."""
    method = Ghiasi()
    monkeypatch.setattr(method, "_criterion", lambda training, device: judge)

    class Painted(torch.nn.Module):
        def forward(self, photos: Tensor, style: Tensor) -> Tensor:
            return given("image_stylized")

    batch = Batch.pairs(given("image_content"), given("image_style"), 0, torch.Generator().manual_seed(0))
    training = Ghiasi.Training(scale="published", style_weight=5e-4, smoothness=1e4, identity_share=0)
    with torch.inference_mode():
        terms = method.losses(Painted(), batch, training)
    check("loss_content", terms["content"])
    check("loss_style", terms["style"])
    check("loss_total", torch.stack(list(terms.values())).sum())
