"""CycleGAN's checkpoints load under their own names and give the recorded pictures, losses and gradients."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.methods.base import Batch, Job
from atelier.methods.gan.cyclegan import CycleGan
from atelier.methods.trainable import ImagePool
from atelier.store.checkpoints import converter
from atelier.training.settings import Settings, rate
from atelier.translators.cyclegan import Generator, PatchCritic, from_state

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "cyclegan" / "layout.json").read_text())
ARRAYS = np.load(HERE / "cyclegan" / "case.npz")
#: The official names of our networks: their D_A judges pictures of B, which their G_A makes.
OFFICIAL = {"a_to_b": "G_A", "b_to_a": "G_B", "critic_b": "D_A", "critic_a": "D_B"}
TERMS = {
    "real_b": "G_A",
    "real_a": "G_B",
    "cycle_a": "cycle_A",
    "cycle_b": "cycle_B",
    "same_b": "idt_A",
    "same_a": "idt_B",
    "critic_b": "D_A",
    "critic_a": "D_B",
}


def given(name: str) -> Tensor:
    return torch.from_numpy(ARRAYS[name])


def check(name: str, value: Tensor, slack: float = 1.0) -> None:
    fill.check(ARRAYS, LAYOUT, name, value.detach().numpy(), slack)


def filled(model: str) -> dict[str, Tensor]:
    arrays = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(arrays) == LAYOUT["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def official() -> dict[str, dict[str, Tensor]]:
    return {name: filled(name) for name in OFFICIAL.values()}


@pytest.fixture
def networks(official: dict[str, dict[str, Tensor]]) -> dict[str, torch.nn.Module]:
    """The networks with official weights, which a test may change."""
    critics = {name: PatchCritic() for name in OFFICIAL if name.startswith("critic")}
    for name, critic in critics.items():
        critic.load_state_dict(official[OFFICIAL[name]])
    return {name: from_state(official[OFFICIAL[name]]) for name in ("a_to_b", "b_to_a")} | critics


# the checkpoint


def test_old_checkpoints_load(official: dict[str, dict[str, Tensor]]) -> None:
    new = official["G_A"]
    extra = LAYOUT["models"]["G_A"]["old_checkpoint_extra_keys"]
    old = new | {name: torch.ones(entry["shape"]) for name, entry in extra.items()}
    untracked = {name: value for name, value in old.items() if not name.endswith("num_batches_tracked")}
    assert len(old) > len(untracked) > len(new)
    for state in (new, untracked, old):
        found = converter("cyclegan")(state)
        assert found.keys() == new.keys()
        assert all(torch.equal(found[name], new[name]) for name in new)


def test_a_missing_tensor_is_named(official: dict[str, dict[str, Tensor]]) -> None:
    state = {key: value for key, value in official["G_A"].items() if key != "model.13.conv_block.5.weight"}
    with pytest.raises(WeightsError, match=r"1 of 48 tensors are missing \(model.13.conv_block.5.weight\)"):
        from_state(state)


# the networks


def test_inside_the_generator(networks: dict[str, Any]) -> None:
    places = (1, 2, 9, 10, 18, 19, 26)
    found: dict[int, Tensor] = {}
    for place in places:
        networks["a_to_b"].model[place].register_forward_hook(
            # Cloned: the activation that follows works in place.
            lambda layer, given, made, place=place: found.update({place: made.clone()})
        )
    with torch.inference_mode():
        check("G_A.y0", networks["a_to_b"](given("G_A.x0")))
    for place in places:
        check(f"G_A.y0.after_model.{place}", found[place])


def test_other_sides(networks: dict[str, Any]) -> None:
    with torch.inference_mode():
        check("G_A.y1", networks["a_to_b"].eval()(given("G_A.x1")))
        for case in ("0", "1"):
            check(f"D_A.y{case}", networks["critic_b"](given(f"D_A.x{case}")))


def test_zero_padding_is_far_outside(official: dict[str, dict[str, Tensor]]) -> None:
    network = Generator()
    network.load_state_dict(official["G_A"])
    for index, layer in enumerate(network.model):
        if isinstance(layer, torch.nn.ReflectionPad2d):
            network.model[index] = torch.nn.ZeroPad2d(3)
    with torch.inference_mode(), pytest.raises(AssertionError, match=r"G_A\.y0"):
        check("G_A.y0", network(given("G_A.x0")))


def test_the_method_paints_it(official: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    torch.save(official["G_A"], tmp_path / "style.pth")
    job = Job((given("G_A.x1") + 1) / 2, [], [], torch.device("cpu"), torch.float32)
    picture = CycleGan().transfer(job, CycleGan.Knobs(weights=str(tmp_path / "style.pth")))
    check("G_A.y1", 2 * picture - 1)


# pix2pix


@pytest.mark.slow  # 54 million numbers each
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_unet_of_pix2pix(norm: str, tmp_path: Path) -> None:
    state, picture = filled(f"unet_256_{norm}"), given("unet_256.x")
    torch.save(state, tmp_path / "pix2pix.pth")
    job = Job((picture + 1) / 2, [], [], torch.device("cpu"), torch.float32)
    painted = CycleGan().transfer(job, CycleGan.Knobs(weights=str(tmp_path / "pix2pix.pth")))
    check(f"unet_256_{norm}.y", 2 * painted - 1)
    if norm == "batch":
        old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        network = from_state(old).train()
        for layer in network.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        with torch.inference_mode():
            check("unet_256_batch.y_batch_statistics_no_dropout", network(picture))


def test_the_critic_of_pix2pix() -> None:
    critic = PatchCritic(channels=6, by_batch=True)
    critic.load_state_dict(filled("D_pix2pix"))
    with torch.inference_mode():
        check("D_pix2pix.y", critic.eval()(given("D_pix2pix.x")))


# the training


def step(networks: dict[str, Any], optimisers: dict[str, Any], state: dict[str, Any]) -> Iterator[Any]:
    items = {name: (given(f"loss.real_{name.upper()}") + 1) / 2 for name in ("a", "b")}
    batch = Batch(items, 0, torch.Generator())
    for update in CycleGan().updates(networks, batch, CycleGan.Training(), state):
        loss = torch.stack(list(update.terms.values())).sum()
        weights = [one for group in optimisers[update.optimiser].param_groups for one in group["params"]]
        optimisers[update.optimiser].zero_grad()
        loss.backward(inputs=weights)
        yield update.optimiser, update.terms, loss
        optimisers[update.optimiser].step()


def test_two_training_steps(networks: dict[str, Any]) -> None:
    training = SimpleNamespace(learning_rate=2e-4)
    optimisers = CycleGan().optimisers(networks, training)
    state = CycleGan().state(CycleGan.Training())
    seen: set[str] = set()
    for group, terms, loss in step(networks, optimisers, state):
        if group == "generators":
            check("loss.G", loss)
            check("loss.grad.G_A.model.1.weight", networks["a_to_b"].model[1].weight.grad)
            check("loss.grad.G_A.model.26.weight", networks["a_to_b"].model[26].weight.grad)
        seen |= set(terms)
        for name, term in terms.items():
            check(f"loss.{TERMS[name]}", term)
        for name in OFFICIAL if group == "critics" else ():
            norms = torch.stack([one.grad.norm() for one in networks[name].parameters()])
            # Rounding of pictures to 0..1 and back turns a few of the leaky ReLUs.
            check(f"loss.grad_norm.{OFFICIAL[name]}", norms, slack=3)
    assert seen == set(TERMS)
    check("loss.fake_B", state["pool_b"].images[0][None])
    check("loss.fake_A", state["pool_a"].images[0][None])
    for group, terms, loss in step(networks, optimisers, state):
        if group == "generators":
            check("loss.step2.G", loss)
        for name, term in terms.items():
            check(f"loss.step2.{TERMS[name]}", term)


def test_pictures_of_a_training_step(networks: dict[str, Any]) -> None:
    there, back = networks["a_to_b"], networks["b_to_a"]
    with torch.inference_mode():
        check("loss.rec_A", back(given("loss.fake_B")))
        check("loss.rec_B", there(given("loss.fake_A")))
        check("loss.idt_A_img", there(given("loss.real_B")))
        check("loss.idt_B_img", back(given("loss.real_A")))


class RecordedPool(ImagePool):
    """The pool with the draws that the case recorded."""

    def _draw(self, generator: torch.Generator) -> list[float]:
        uniform, slot = next(self.draws)
        return [uniform, (slot + 0.5) / self.size]


def test_the_pool() -> None:
    pool = RecordedPool(int(ARRAYS["pool.size"]))
    draws = zip(ARRAYS["pool.uniform"].flat, ARRAYS["pool.slot"].flat, strict=True)
    pool.draws = ((uniform, slot) for uniform, slot in draws if uniform >= 0)
    ids = given("pool.ids_in").float()[:, :, None, None, None]
    found = torch.stack([pool.exchange(batch, torch.Generator()) for batch in ids])
    assert np.array_equal(found[..., 0, 0, 0].numpy(), ARRAYS["pool.ids_out"])
    assert [int(one) for one in pool.images] == ARRAYS["pool.final"].tolist()
    assert next(pool.draws, None) is None


def test_the_learning_rate() -> None:
    """Their 200 epochs are a run of 201 steps: theirs ends one step before the rate is zero."""
    settings = Settings(steps=201, warmup=0, cooldown=101 / 201)
    fill.check(ARRAYS, LAYOUT, "lr_factor", np.float32([rate(epoch, settings) for epoch in range(1, 201)]))
