"""StarGAN v2's checkpoints load under their own names and give the recorded pictures, losses, gradients."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.features.faces import Faces, masks
from atelier.methods.base import Job
from atelier.methods.gan.starganv2 import (
    StarGanV2,
    critic_terms,
    diversity_share,
    generator_terms,
    truncated,
)
from atelier.store.checkpoints import read_checkpoint
from atelier.training.loop import _average
from atelier.translators.starganv2 import Critic, Generator, MappingNetwork, Plan, StyleEncoder, from_state

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "starganv2" / "layout.json").read_text())
ARRAYS = np.load(HERE / "starganv2" / "case.npz")
TRAINING = StarGanV2.Training()
OFFICIAL = Plan()


def given(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name])


def check(name: str, value: Tensor) -> None:
    fill.check(ARRAYS, LAYOUT, name, value.detach().numpy())


@cache
def filled(model: str) -> dict[str, Tensor]:
    arrays = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(arrays) == LAYOUT["models"][model]["fill_sha256"]
    entry = LAYOUT["models"][model]
    layout = entry.get("official_layout") or entry["fixture_layout"]
    constants = {name: one["constant"] for name, one in layout.items() if "constant" in one}
    return {name: torch.from_numpy(array) for name, array in arrays.items()} | {
        name: torch.tensor(value, dtype=torch.float32) for name, value in constants.items()
    }


def checkpoint(**models: str) -> dict[str, Tensor]:
    """A published file: a dict of state dicts."""
    return {part: filled(model) for part, model in models.items()}


# the checkpoints


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("afhq") / "100000_nets_ema.ckpt"
    torch.save(checkpoint(generator="G_w0", mapping_network="F_3", style_encoder="E_3"), path)
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("celeba") / "100000_nets_ema.ckpt"
    parts = {"generator": "G_w1", "mapping_network": "F_2", "style_encoder": "E_2", "fan": "FAN"}
    torch.save(checkpoint(**parts), path)
    return path


@pytest.mark.slow  # 55 million numbers, as are those of faces
def test_networks_of_animals(animals: Path) -> None:
    networks = from_state(read_checkpoint(animals))
    assert networks.generator.domains == ("cat", "dog", "wild")
    assert networks.plan == OFFICIAL
    with torch.inference_mode():
        check("G_w0.y", networks.generator(given("G.x"), given("G.s")))
        check("F_3.s", networks.mapping_network(given("F.z"), given("F_3.y")))
        every = [networks.style_encoder(given("x256"), torch.tensor([index])) for index in range(3)]
    check("E_3.out_per_domain", torch.stack(every))


@pytest.mark.slow
def test_networks_of_faces(faces: Path) -> None:
    networks = from_state(read_checkpoint(faces))
    assert networks.generator.domains == ("female", "male")
    assert networks.plan.edges
    with torch.inference_mode():
        check("G_w1.y", networks.generator(given("G.x"), given("G.s")))
        both = (given("G.mask0"), given("G.mask1"))
        check("G_w1.y_masked", networks.generator(given("G.x"), given("G.s"), both))
        check("F_2.s", networks.mapping_network(given("F.z"), given("F_2.y")))


@pytest.mark.slow
def test_the_method_paints_animals(animals: Path) -> None:
    """A reference at the training size gives the style of its domain, and the photo keeps its own size."""
    reference = (given("x256") + 1) / 2
    job = Job((given("G.x")[:1] + 1) / 2, [reference], [1.0], torch.device("cpu"), torch.float32)
    made = StarGanV2().picture(job, StarGanV2.Knobs(weights=str(animals), domain="dog"))
    networks = from_state(read_checkpoint(animals))
    with torch.inference_mode():
        expected = networks.generator(given("G.x")[:1], given("E_3.out_per_domain")[1])
    assert torch.allclose(made, ((expected + 1) / 2).clamp(0, 1), atol=1e-4)


@pytest.mark.slow
def test_a_missing_tensor_is_named(animals: Path) -> None:
    state = read_checkpoint(animals)
    del state["style_encoder.shared.3.conv2.bias"]
    with pytest.raises(WeightsError, match=r"style encoder: 1 of 37 .* \(shared.3.conv2.bias\)"):
        from_state(state)


@pytest.mark.slow  # 32 million numbers
def test_critics() -> None:
    critic = Critic(3, OFFICIAL)
    critic.load_state_dict(filled("D_3"))
    with torch.inference_mode():
        check("D_3.out_per_domain", critic(given("x256").expand(3, -1, -1, -1), torch.arange(3))[:, None])
    other = {name: list(one.shape) for name, one in Critic(2, OFFICIAL).state_dict().items()}
    assert other == {name: one["shape"] for name, one in LAYOUT["models"]["D_2"]["official_layout"].items()}


# faces


def test_landmarks() -> None:
    """The file of landmarks also holds tensors that are not used."""
    network = Faces.from_state(filled("FAN") | {"m1.unused": torch.zeros(1)})
    with torch.inference_mode():
        check("FAN.heatmap_raw", network((given("x256") + 1) / 2))


def test_masks_of_a_face() -> None:
    rows = torch.arange(64, dtype=torch.float64)
    centres, amplitudes = given("preprocess.centres").double(), given("preprocess.amplitudes").double()
    far = (rows[:, None] - centres[..., 0, None, None]).square() + (
        rows - centres[..., 1, None, None]
    ).square()
    maps = amplitudes[..., None, None] * torch.exp(-far / (2 * 1.2**2)) - 0.02
    found = masks(maps.float())
    for index, mask in enumerate(found):
        check(f"preprocess.mask{index}", mask)
    check("preprocess.coverage", torch.stack([(mask > 0.01).float().mean() for mask in found]))


# the training


class Fixed:
    """Recorded masks in place of a network of faces; the first call is for the real pictures."""

    def __init__(self) -> None:
        self.calls = iter(("x_real", "x_fake"))

    def masks(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        name = next(self.calls)
        return given(f"loss.mask0_of_{name}"), given(f"loss.mask1_of_{name}")


#: The ordinary tests take one step of each kind.
SLOW = pytest.mark.slow
WAYS = pytest.mark.parametrize("way", ["latent", pytest.param("reference", marks=SLOW)])


@pytest.fixture(params=["w0", pytest.param("w1", marks=SLOW)])
def small(request: pytest.FixtureRequest) -> SimpleNamespace:
    plan = Plan(side=64, width=256, widest=64, edges=request.param == "w1")
    networks = {
        "generator": Generator(("0", "1"), plan),
        "mapping_network": MappingNetwork(2, plan),
        "style_encoder": StyleEncoder(2, plan),
        "critic": Critic(2, plan),
    }
    models = (f"G_{request.param}_small", "F_2", "E_small", "D_small")
    for network, model in zip(networks.values(), models, strict=True):
        network.load_state_dict(filled(model), strict=False)
        assert not (network.state_dict().keys() - {"names"}) ^ filled(model).keys()
    return SimpleNamespace(networks=networks, kind=request.param, masked=request.param == "w1")


def norms(network: torch.nn.Module) -> Tensor:
    """The norm of each gradient; weights outside of the graph have none."""
    return torch.stack(
        [torch.zeros(()) if one.grad is None else one.grad.norm() for one in network.parameters()]
    )


def styles(networks: Mapping[str, Any], way: str) -> list[Tensor]:
    wanted = given("loss.y_trg")
    if way == "latent":
        return [networks["mapping_network"](given(f"loss.{name}"), wanted) for name in ("z_trg", "z_trg2")]
    return [networks["style_encoder"](given(f"loss.{name}"), wanted) for name in ("x_ref", "x_ref2")]


@WAYS
def test_a_step_of_the_critic(small: SimpleNamespace, way: str) -> None:
    if small.masked and way == "reference":
        return  # not recorded
    networks, real = small.networks, given("loss.x_real")
    found = Fixed().masks(real) if small.masked else None
    with torch.no_grad():
        made = networks["generator"](real, styles(networks, way)[0], found)
    if way == "latent":
        check(f"loss.{small.kind}.x_fake", made)
    own, wanted = given("loss.y_org"), given("loss.y_trg")
    terms = critic_terms(networks["critic"], real, made, own, wanted, TRAINING)
    total = torch.stack(list(terms.values())).sum()
    names = {"real": "real", "fake": "made", "reg": "penalty"}
    for name, term in {**{name: terms[own] for name, own in names.items()}, "total": total}.items():
        check(f"loss.{small.kind}.{way}.D.{name}", term)
    total.backward()
    check(f"loss.{small.kind}.{way}.D.grad_norm", norms(networks["critic"]))


@WAYS
def test_a_step_of_the_generator(small: SimpleNamespace, way: str) -> None:
    if small.masked and way == "reference":
        return  # not recorded
    networks = small.networks | ({"fan": Fixed()} if small.masked else {})
    places = (given("loss.x_real"), given("loss.y_org"), given("loss.y_trg"))
    terms = generator_terms(networks, *places, styles(networks, way), TRAINING, 1.0)
    total = torch.stack(list(terms.values())).sum()
    found = {"adv": terms["made"], "sty": terms["style"], "ds": -terms["diversity"], "cyc": terms["cycle"]}
    for name, term in {**found, "total": total}.items():
        check(f"loss.{small.kind}.{way}.G.{name}", term)
    total.backward()
    for name in ("generator", "style_encoder", "mapping_network"):
        if (key := f"loss.{small.kind}.{way}.G.grad_norm_{name}") in ARRAYS:
            check(key, norms(networks[name]))


def test_truncation() -> None:
    network = MappingNetwork(2, OFFICIAL)
    network.load_state_dict(filled("F_2"))
    with torch.inference_mode():
        many = network(given("truncate.z_many"), torch.ones(64, dtype=torch.long))
        style = network(given("loss.z_trg"), torch.ones(2, dtype=torch.long))
        check("truncate.s", torch.stack([truncated(style, many, share) for share in (0.5, 0.7, 1.0)]))


def test_diversity_fades_and_the_average_follows() -> None:
    after = [diversity_share(step, TRAINING.diversity_steps) for step in (1, 1000, 50_000, 100_000)]
    np.testing.assert_allclose(after, ARRAYS["lambda_ds_after_1_1000_50000_100000"], atol=1e-9)
    old = given("ema.old").clone()
    _average([old], [given("ema.new")], 10**6, TRAINING.average)
    check("ema.out", old)


def test_published_defaults() -> None:
    known, ours = LAYOUT["hyperparameters"], TRAINING
    assert (ours.latent, ours.style, ours.hidden) == tuple(
        known[name] for name in ("latent_dim", "style_dim", "hidden_dim")
    )
    assert ours.diversity_steps == known["ds_iter"]
    assert ours.mapping_rate * ours.learning_rate == pytest.approx(known["f_lr"])
    assert (ours.learning_rate, ours.decay, ours.average) == (
        known["lr"],
        known["weight_decay"],
        known["ema"],
    )
    weights = (ours.penalty_weight, ours.cycle_weight, ours.style_weight, ours.diversity_weight)
    assert weights == tuple(known[f"lambda_{name}"] for name in ("reg", "cyc", "sty", "ds"))
