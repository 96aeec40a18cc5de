"""StarGAN's checkpoints load under their own names and give the recorded pictures, losses and gradients.

Not checked: the class losses of CelebA's attributes (with the totals and gradients that hold them) and
the way its test toggles attributes, because our training has one domain a picture, as on RaFD.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.methods.base import Job
from atelier.methods.gan.stargan import StarGan, critic_terms, generator_terms
from atelier.store.checkpoints import converter
from atelier.training.settings import Settings, rate
from atelier.translators.stargan import CELEBA, Critic, Generator, from_state

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "stargan" / "layout.json").read_text())
ARRAYS = np.load(HERE / "stargan" / "case.npz")
PUBLISHED = StarGan.Training()


def given(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name])


def check(name: str, value: Tensor) -> None:
    fill.check(ARRAYS, LAYOUT, name, value.detach().numpy())


def filled(model: str) -> dict[str, Tensor]:
    arrays = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(arrays) == LAYOUT["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    return filled("G")


# the checkpoint


def test_the_generators_file_loads(official: dict[str, Tensor]) -> None:
    found = converter("stargan")(official)
    assert found.keys() - official.keys() == {"names"}
    assert all(torch.equal(found[name], value) for name, value in official.items())
    assert from_state(official).domains == CELEBA


def test_old_files_lack_counts_of_batches(official: dict[str, Tensor]) -> None:
    old = {name: value for name, value in official.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(official)
    assert converter("stargan")(old).keys() == converter("stargan")(official).keys()


def test_a_missing_tensor_is_named(official: dict[str, Tensor]) -> None:
    state = {name: value for name, value in official.items() if name != "main.11.main.4.bias"}
    with pytest.raises(WeightsError, match=r"1 of \d+ tensors are missing \(main.11.main.4.bias\)"):
        from_state(state)


# the networks


def test_statistics_of_the_picture_and_kept_ones(official: dict[str, Tensor], tmp_path: Path) -> None:
    network, picture, label = from_state(official), given("G.x"), given("G.c")
    with torch.inference_mode():
        check("G.y_running_statistics", network.eval()(picture, label))
        check("G.y_instance_statistics", network.train()(picture, label))
        check("G.running_mean_after.main.1", network.main[1].running_mean)
        check("G.running_var_after.main.1", network.main[1].running_var)
        network.prepare("cpu", torch.float32)
        check("G.y_instance_statistics", network(picture, label))


def test_the_method_paints_it(official: dict[str, Tensor], tmp_path: Path) -> None:
    """Each of the two pictures with its own attributes."""
    torch.save(official, tmp_path / "published.ckpt")
    made = []
    for picture, label in zip(given("G.x"), given("G.c"), strict=True):
        names = tuple(name for name, one in zip(CELEBA, label, strict=True) if one)
        job = Job((picture[None] + 1) / 2, [], [], torch.device("cpu"), torch.float32)
        knobs = StarGan.Knobs(weights=str(tmp_path / "published.ckpt"), domain=names)
        made.append(StarGan().transfer(job, knobs))
    check("G.y_instance_statistics", 2 * torch.cat(made) - 1)


@pytest.mark.slow  # 45 million numbers
def test_critics() -> None:
    critic = Critic(5)
    critic.load_state_dict(filled("D"))
    with torch.inference_mode():
        scores, logits = critic(given("D.x"))
    check("D.src", scores)
    check("D.cls", logits)
    large = LAYOUT["models"]["D_256"]["official_layout"]
    expected = {name: list(tensor.shape) for name, tensor in Critic(5, 256).state_dict().items()}
    assert expected == {name: entry["shape"] for name, entry in large.items()}


# the training


@pytest.fixture
def small() -> SimpleNamespace:
    """The reduced networks, whose labels are the first five of RaFD's domains."""
    generator, critic = Generator([str(n) for n in range(5)], 16, 2), Critic(5, 32, 16, 3)
    generator.load_state_dict(filled("G_small") | {"names": generator.names})
    critic.load_state_dict(filled("D_small"))
    return SimpleNamespace(generator=generator, critic=critic)


def one_hot(name: str) -> Tensor:
    return torch.nn.functional.one_hot(given(name), 5).float()


def norms(network: torch.nn.Module) -> Tensor:
    return torch.stack([weight.grad.norm() for weight in network.parameters()])


def test_a_step_of_the_critic(small: SimpleNamespace) -> None:
    real = given("loss.x_real")
    made = small.generator(real, one_hot("loss.domain_trg"))
    check("loss.RaFD.D.x_fake", made)
    shares = given("loss.alpha").flatten()
    terms = critic_terms(small.critic, real, made.detach(), given("loss.domain_org"), shares, PUBLISHED)
    for name, value in (
        ("real", terms["real"]),
        ("fake", terms["made"]),
        ("cls", terms["domain"]),
        ("gp", terms["penalty"] / PUBLISHED.penalty_weight),
        ("total", sum(terms.values())),
    ):
        check(f"loss.RaFD.D.{name}", value)
    sum(terms.values()).backward()
    check("loss.RaFD.D.grad_norm", norms(small.critic))
    check("loss.RaFD.D.grad.main.0.weight", small.critic.main[0].weight.grad)


def test_a_step_of_the_generator(small: SimpleNamespace) -> None:
    real = given("loss.x_real")
    with torch.no_grad():  # the pass of the critic's step
        small.generator(real, one_hot("loss.domain_trg"))
    made = small.generator(real, one_hot("loss.domain_trg"))
    back = small.generator(made, one_hot("loss.domain_org"))
    check("loss.RaFD.G.x_rec", back)
    terms = generator_terms(small.critic, real, made, back, given("loss.domain_trg"), PUBLISHED)
    for name, value in (
        ("fake", terms["made"]),
        ("cls", terms["domain"]),
        ("rec", terms["cycle"] / PUBLISHED.cycle_weight),
        ("total", sum(terms.values())),
    ):
        check(f"loss.RaFD.G.{name}", value)
    sum(terms.values()).backward()
    check("loss.RaFD.G.grad_norm", norms(small.generator))
    check("loss.RaFD.G.grad.main.0.weight", small.generator.main[0].weight.grad)
    check("loss.RaFD.G.running_mean_after.main.1", small.generator.main[1].running_mean)


def test_a_step_by_attributes(small: SimpleNamespace) -> None:
    """All but the classes, whose loss is another for attributes."""
    real, shares, none = given("loss.x_real"), given("loss.alpha").flatten(), given("loss.domain_org")
    with torch.no_grad():
        made = small.generator(real, given("loss.label_trg"))
        back = small.generator(made, given("loss.label_org"))
    check("loss.CelebA.D.x_fake", made)
    check("loss.CelebA.G.x_rec", back)
    terms = critic_terms(small.critic, real, made, none, shares, PUBLISHED)
    check("loss.CelebA.D.real", terms["real"])
    check("loss.CelebA.D.fake", terms["made"])
    check("loss.CelebA.D.gp", terms["penalty"] / PUBLISHED.penalty_weight)
    terms = generator_terms(small.critic, real, made, back, none, PUBLISHED)
    check("loss.CelebA.G.fake", terms["made"])
    check("loss.CelebA.G.rec", terms["cycle"] / PUBLISHED.cycle_weight)


def test_labels_of_domains() -> None:
    network = Generator([str(number) for number in range(8)], 1, 1)
    for number, labels in enumerate(given("labels.rafd_c_trg_list")):
        assert torch.equal(labels, network.label([str(number)]).expand_as(labels).to(labels))


def test_their_learning_rate_hardly_falls() -> None:
    settings = Settings(steps=100, warmup=0, cooldown=0)
    ours = 1e-4 * np.array([rate(step, settings) for step in range(100)])
    assert np.allclose(ours, ARRAYS["lr_updates"], rtol=1.1e-3)
    assert ARRAYS["lr_updates"][-1] < 1e-4
