"""Johnson et al.'s network in PyTorch's and in Engstrom's form gives the recorded pictures and losses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from atelier.losses.pastiche import Pastiche
from atelier.methods.base import Batch
from atelier.methods.feedforward.johnson import Johnson as Method
from atelier.networks.johnson import Johnson, load_johnson

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

CASES = {
    name: (json.loads((HERE / name / "layout.json").read_text()), np.load(HERE / name / "case.npz"))
    for name in ("johnson", "johnson_engstrom")
}


def given(name: str, case: str = "johnson") -> Tensor:
    return torch.from_numpy(CASES[case][1][name])


def check(name: str, value: Tensor, case: str = "johnson") -> None:
    layout, arrays = CASES[case]
    fill.check(arrays, layout, name, value.detach().numpy())


def filled(model: str, case: str = "johnson") -> dict[str, Tensor]:
    layout = CASES[case][0]
    arrays = fill.fill_state_dict(layout, layout["fill_seed"], model=model)
    assert fill.state_dict_sha256(arrays) == layout["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def network() -> Johnson:
    return load_johnson(filled("transformer"))


def test_the_pictures_of_pytorch_s_form(network: Johnson) -> None:
    with torch.no_grad():
        check("after_conv1", network.in1(network.conv1(given("content"))).relu())
        check("output", network.published(given("content")))
        check("batch_output", network.published(given("batch")))


def test_old_files_hold_statistics_that_are_dropped(network: Johnson) -> None:
    state = filled("transformer")
    more = {f"in1.{name}": torch.ones(32) for name in ("running_mean", "running_var", "num_batches_tracked")}
    again = load_johnson(state | more)
    assert again.state_dict().keys() == network.state_dict().keys() == state.keys()


def test_the_pictures_of_engstrom_s_form() -> None:
    case = "johnson_engstrom"
    state = filled("net", case)
    network = load_johnson(state | {"Variable/Adam": torch.zeros(3)})
    assert network.tensorflow
    assert sum(one.numel() for one in network.parameters()) == sum(one.numel() for one in state.values())
    with torch.no_grad():
        content = given("content", case)
        check("after_conv3", network.down(content), case)
        check("output", network.published(content), case)
        check("output_of_unit_range", network.published(content / 255), case)


@pytest.fixture(scope="module")
def vgg16(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The filled VGG-16, as a file under its official names."""
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.safetensors"
    save_file({name: value.contiguous() for name, value in filled("vgg16").items()}, path)
    return str(path)


def test_the_losses_and_gradients_of_pytorch_s_examples(vgg16: str) -> None:
    training = Method.Training(
        encoder=vgg16,
        scale="published",
        content_layers=("relu2_2",),
        content_weight=1e5,
        style_weight=1e10,
        style_warmup=0,
        smoothness=0,
    )
    method, network = Method(), load_johnson(filled("transformer"))
    items = {"photos": given("batch") / 255, "styles": [given("style") / 255]}
    terms = method.losses(network, Batch(items, 0, torch.Generator()), training)
    check("content_loss", terms["content"])
    check("style_loss", terms["style"])
    (terms["content"] + terms["style"]).backward()
    gradients = dict(network.named_parameters())
    order = CASES["johnson"][0]["grad_order"]
    check("grad_l2", torch.stack([torch.as_tensor(gradients[name].grad).norm() for name in order]))


def test_the_gram_matrices_and_losses_of_each_layer(vgg16: str) -> None:
    training = Method.Training(encoder=vgg16, scale="published", content_layers=("relu2_2",))
    criterion = training.criterion(torch.device("cpu"))
    grams = criterion.grams(criterion.see(given("style") / 255))
    for tap in criterion.style:
        check(f"gram_style_{tap}", grams[tap] / grams[tap].shape[-1])
    network = load_johnson(filled("transformer"))
    with torch.no_grad():
        found = criterion(network(given("batch") / 255), given("batch") / 255, grams)
    layers = [found[tap] / grams[tap].shape[-1] ** 2 for tap in Pastiche(criterion.encoder).style]
    check("style_loss_layers", torch.stack(layers))
