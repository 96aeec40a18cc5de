"""The published AdaIN checkpoints load under their own names and give the recorded pictures and losses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from atelier import features
from atelier.core.errors import WeightsError
from atelier.core.knobs import parse
from atelier.maths.moments import channel_moments
from atelier.maths.whitening import adain, coral
from atelier.methods.base import Batch, Job
from atelier.methods.registry import find, knobs_for
from atelier.networks.decoder import from_state, recognise
from atelier.store.weights import load

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "adain" / "layout.json").read_text())
CASE = np.load(HERE / "adain" / "case.npz")
METHOD = find("adain")
CPU = torch.device("cpu")


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Tensor) -> None:
    fill.check(CASE, LAYOUT, name, value.detach().numpy())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The filled checkpoints as files, under their official names."""
    paths = {}
    for model, knob in (("vgg", "encoder"), ("decoder", "weights")):
        filled = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
        assert fill.state_dict_sha256(filled) == LAYOUT["models"][model]["fill_sha256"]
        path = tmp_path_factory.mktemp("adain") / f"{model}.safetensors"
        save_file(filled, path)
        paths[knob] = str(path)
    return paths


def made(files: dict[str, str], styles: Tensor, shares: list[float], strength: float = 1.0) -> Tensor:
    """What the method decodes, in float32, with the knobs of its published quality."""
    knobs = parse(METHOD.Knobs, knobs_for(METHOD, "published", files))
    job = Job(array("content"), list(styles.split(1)), shares, CPU, torch.float32, strength=strength)
    with torch.inference_mode():
        return METHOD().decoded(job, knobs)


def test_features_and_their_statistics(files: dict[str, str]) -> None:
    eyes = features.load(files["encoder"])
    content, style = (eyes(array(name), ["relu4_1"])["relu4_1"] for name in ("content", "style"))
    mean, deviation = channel_moments(style, unbiased=True)
    check("content_feat", content)
    check("style_feat", style)
    check("style_mean", mean)
    check("style_std", deviation)
    check("adain_feat", adain(content, mean, deviation))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_picture(files: dict[str, str], strength: float) -> None:
    check(f"output_alpha{strength:g}", made(files, array("style"), [1.0], strength))


@pytest.mark.parametrize(("name", "strength"), [("1_3", 1.0), ("1_3_alpha0.5", 0.5)])
def test_two_styles(files: dict[str, str], name: str, strength: float) -> None:
    check(f"output_interp_{name}", made(files, array("styles"), [0.25, 0.75], strength))


@pytest.mark.parametrize(("ending", "strength"), [("", 1.0), ("_alpha0.5", 0.5)])
def test_the_losses_of_training(files: dict[str, str], ending: str, strength: float) -> None:
    training = published_training(files, strength)
    terms = METHOD().losses(from_state(load(files["weights"]), padding="reflect"), batch(), training)
    assert terms.keys() == {"content", "style"}
    check(f"loss_c{ending}", terms["content"])
    check(f"loss_s{ending}", terms["style"] / training.style_weight)


def test_the_gradient_of_training(files: dict[str, str]) -> None:
    decoder = from_state(load(files["weights"]), padding="reflect").requires_grad_(True)
    terms = METHOD().losses(decoder, batch(), published_training(files, 1.0))
    torch.stack(list(terms.values())).sum().backward()
    names = decoder.plan.official_names()
    norms = [decoder.get_parameter(names[key]).grad.norm() for key in LAYOUT["grad_order"]]
    check("decoder_grad_l2", torch.stack(norms))


def test_the_network_of_published_training_is_the_published_one(files: dict[str, str]) -> None:
    network = METHOD().network(published_training(files, 1.0))
    theirs = from_state(load(files["weights"]))
    assert [(k, v.shape) for k, v in network.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]


def test_colours_of_the_content() -> None:
    check("coral_style_to_content", coral(array("style"), array("content"))[0])


def test_the_layout_is_read_off_the_names(files: dict[str, str]) -> None:
    official = LAYOUT["models"]["decoder"]["official_layout"]
    plan = recognise(load(files["weights"]))
    assert plan.official_names().keys() == official.keys()
    prefixed = {f"decoder.{name}": value for name, value in load(files["weights"]).items()}
    assert from_state(prefixed).plan == plan


def test_another_convention_is_far_outside(files: dict[str, str]) -> None:
    found = made({**files, "padding": "replicate"}, array("style"), [1.0])
    with pytest.raises(AssertionError, match="output_alpha1"):
        check("output_alpha1", found)


def test_missing_and_left_over_tensors_are_named(files: dict[str, str]) -> None:
    state = load(files["weights"])
    state["99.weight"] = state.pop("14.weight")
    with pytest.raises(WeightsError, match=r"missing \(conv3_1\.weight\).*unexpected \(99\.weight\)"):
        from_state(state)


def published_training(files: dict[str, str], strength: float) -> Any:
    return METHOD.Training(
        encoder=files["encoder"],
        padding="reflect",
        skips=0,
        blocks=0,
        strength=strength,
        scale="published",
        content_weight=1.0,
        style_weight=10.0,
        identity_share=0.0,
        smoothness=0.0,
        overshoot=0.0,
    )


def batch() -> Batch:
    return Batch.pairs(array("content_batch"), array("style_batch"), 0, torch.Generator())


# sides that are no multiple of 8


def published(state: dict[str, Tensor], picture: Tensor, *, pooled: Any = (), enlarged: Any = ()) -> Tensor:
    """A published network in plain operations; a stage ends behind the convolutions of these numbers."""
    functional = torch.nn.functional
    numbers = sorted({int(name.split(".")[0]) for name in state})
    for position, number in enumerate(numbers):
        weight = state[f"{number}.weight"]
        if weight.shape[-1] == 3:
            picture = functional.pad(picture, (1, 1, 1, 1), mode="reflect")
        picture = functional.conv2d(picture, weight, state[f"{number}.bias"])
        if weight.shape[-1] == 3 and weight.shape[0] != 3:
            picture = picture.relu()
        if position in pooled:
            picture = functional.max_pool2d(picture, 2, ceil_mode=True)
        if position in enlarged:
            picture = functional.interpolate(picture, scale_factor=2, mode="nearest")
    return picture


def test_sides_that_are_no_multiple_of_8(files: dict[str, str]) -> None:
    """The published picture, whose sides are rounded up, but for what that adds below and at the right."""
    encoder, decoder = (load(files[name]) for name in ("encoder", "weights"))
    encoder = {name: part for name, part in encoder.items() if int(name.split(".")[0]) <= 29}  # to relu4_1
    content, style = array("content")[..., :37, :35], array("style")[..., :35, :30]
    found, wanted = (published(encoder, one, pooled=(2, 4, 8)) for one in (content, style))
    mean, deviation = (part(wanted) for part in (_mean, _deviation))
    moved = (found - _mean(found)) / _deviation(found) * deviation + mean
    expected = published(decoder, moved, enlarged=(0, 4, 6))
    assert expected.shape[-2:] == (40, 40)
    knobs = parse(METHOD.Knobs, knobs_for(METHOD, "published", files))
    job = Job(content, [style], [1.0], CPU, torch.float32)
    with torch.inference_mode():
        picture = METHOD().decoded(job, knobs)
    assert picture.shape == content.shape
    torch.testing.assert_close(picture, expected[..., :37, :35], rtol=1e-3, atol=1e-3)


def _mean(features: Tensor) -> Tensor:
    return features.mean((2, 3), keepdim=True)


def _deviation(features: Tensor) -> Tensor:
    return (features.var((2, 3), keepdim=True) + 1e-5).sqrt()
