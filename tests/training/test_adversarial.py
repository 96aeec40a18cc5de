"""Several networks and optimisers per step: a small GAN with a critic, penalty, average and pool."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from atelier.core.errors import TrainingError
from atelier.core.knobs import Knobs, knob
from atelier.core.progress import Event, Progress
from atelier.methods.base import Batch, Job, Method, Paper, Takes
from atelier.methods.trainable import ImagePool, Update
from atelier.training import checkpoint
from atelier.training.loop import Run
from atelier.training.settings import settings_of
from atelier.training.task import MethodTask

OPTIMISERS = ("critic", "generator")


class Critic(nn.Module):
    """Smooth, so that a gradient penalty has second derivatives; with batch statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        scores: Tensor = self.last(torch.tanh(self.first(pictures)))
        return scores


class Adversarial(Method):
    """Lead pictures of one domain to another, under a critic."""

    name = "adversarial"
    paper = Paper("Nobody", 2024, "Critics", "https://example.org")
    data = "domains"
    averaged = ("generator",)
    takes = Takes(least=0)

    class Knobs(Knobs):
        weights: str = knob("", "The generator's file.")

    class Training(Knobs):
        penalty: float = knob(1.0, "Weight of the gradient penalty.", ge=0)
        dropout: float = knob(0.2, "Share of the features that are dropped.", ge=0, lt=1)

    def networks(self, training: Any, data: Any) -> dict[str, nn.Module]:
        assert data.domains == ("a", "b")
        generator = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.Dropout(training.dropout),
            nn.Tanh(),
            nn.Conv2d(4, 3, 1),
        )
        return {"generator": generator, "critic": Critic()}

    def optimisers(self, networks: Mapping[str, Any], training: Any) -> dict[str, torch.optim.Optimizer]:
        rate = training.learning_rate
        return {
            "critic": torch.optim.RMSprop(networks["critic"].parameters(), lr=2 * rate),
            "generator": torch.optim.Adam(networks["generator"].parameters(), lr=rate, betas=(0.5, 0.9)),
        }

    def state(self, training: Any) -> dict[str, Any]:
        return {"pool": ImagePool(6)}

    def updates(
        self, networks: Mapping[str, Any], batch: Batch, training: Any, state: Mapping[str, Any]
    ) -> Iterator[Update]:
        generator, critic = networks["generator"], networks["critic"]
        made = generator(batch["a"])
        old, new = state["pool"].exchange(made, batch.generator), batch["b"]
        mixed = torch.lerp(old, new, torch.rand((), generator=batch.generator).item()).requires_grad_()
        (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        yield Update(
            "critic",
            {
                "apart": critic(old).mean() - critic(new).mean(),
                "penalty": training.penalty * (slope.flatten(1).norm(dim=1) - 1).square().mean(),
            },
        )
        yield Update("generator", {"real": -critic(made).mean(), "close": (made - batch["a"]).abs().mean()})

    def transfer(self, job: Job, knobs: Any) -> torch.Tensor:
        assert not job.styles
        kernel = load_file(knobs.weights)["0.weight"]
        return job.content * 0 + kernel.float().abs().mean()


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    random = np.random.default_rng(0)
    for name, grey in (("a", 60), ("b", 180)):
        (tmp_path / name).mkdir()
        for index in range(8):
            pixels = random.integers(grey - 40, grey + 40, (20 + index, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return {name: tmp_path / name for name in ("a", "b")}


def task(folders: Mapping[str, Path], kind: type[Method] = Adversarial, **more: Any) -> MethodTask:
    given = {name: (str(path),) for name, path in folders.items()}
    small = {"steps": 14, "batch": 4, "crop": 16, "held_back": 2, "half": False, "device": "cpu", "warmup": 0}
    often = {"evaluate_every": 1000, "save_every": 1000}
    return MethodTask(kind, settings_of(kind)(**given | small | often | more))


def run_of(one: MethodTask, folder: Path, steps: int | None = None) -> Run:
    run = Run(one, one.settings, folder)
    run.resume()
    run.go(Progress((lambda event: event.done < steps) if steps else None))
    return run


def tensors(run: Run) -> dict[str, Tensor]:
    """Everything that the next step depends on, by name, as the checkpoint keeps it."""
    state = {
        "networks": {name: network.state_dict() for name, network in run.networks.items()},
        "averages": {name: average.state_dict() for name, average in run.averages.items()},
        "optimisers": {name: one.state_dict()["state"] for name, one in run.optimisers.items()},
        "pool": run.state["pool"].state_dict(),
    }
    found: dict[str, Tensor] = {}
    checkpoint._described(state, "", found)
    return found


def assert_same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for part in (
        "networks/critic",
        "averages/generator",
        "optimisers/critic",
        "optimisers/generator",
        "pool",
    ):
        assert any(name.startswith(f"/{part}") for name in one), part
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("more", [{}, {"half": True}, {"accumulate": 2}], ids=str)
def test_a_resumed_run_is_bit_identical(
    folders: dict[str, Path], tmp_path: Path, more: dict[str, Any]
) -> None:
    whole = run_of(task(folders, **more), tmp_path / "whole")
    first = run_of(task(folders, **more), tmp_path / "parts", steps=5)
    assert (first.step, len(first.checkpoints())) == (5, 1)
    torch.manual_seed(99)  # what happens in between does not matter
    second = run_of(task(folders, **more), tmp_path / "parts")
    assert (whole.step, second.step) == (14, 14)
    assert_same_bits(tensors(whole), tensors(second))
    assert len(whole.state["pool"].state_dict()["images"]) == 6


def test_updates_match_a_handwritten_loop(folders: dict[str, Path], tmp_path: Path) -> None:
    """Against a plain training loop without the package's own: backward, clip, step, in turn."""
    one = task(folders, steps=6, dropout=0.0, penalty=3.0, cooldown=0.0, clip=0.5)
    run = run_of(one, tmp_path / "run")
    torch.manual_seed(0)
    method, training = Adversarial(), one.settings
    networks = method.networks(training, one.data.info)
    generator, critic = networks["generator"], networks["critic"]
    optimisers = method.optimisers(networks, training)
    pool = ImagePool(6)
    place = type("Place", (), {"count": 1, "index": 0, "device": torch.device("cpu"), "mean": None})
    for (batch,) in itertools.islice(one.batches(0, place), 6):
        made = generator(batch["a"])
        old = pool.exchange(made, batch.generator)
        mixed = old + torch.rand((), generator=batch.generator).item() * (batch["b"] - old)
        mixed.requires_grad_()
        slope = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)[0]
        penalty = 3.0 * ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
        optimisers["critic"].zero_grad()
        (critic(old).mean() - critic(batch["b"]).mean() + penalty).backward()
        nn.utils.clip_grad_norm_(critic.parameters(), 0.5)
        optimisers["critic"].step()
        optimisers["generator"].zero_grad()
        ((made - batch["a"]).abs().mean() - critic(made).mean()).backward()
        nn.utils.clip_grad_norm_(generator.parameters(), 0.5)
        optimisers["generator"].step()
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            assert torch.allclose(run.networks[name].state_dict()[key], value, atol=1e-6), (name, key)


def test_an_update_changes_only_its_optimisers_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    one = task(folders)
    run = Run(one, one.settings, tmp_path)
    before = {name: [w.clone() for w in run.networks[name].parameters()] for name in OPTIMISERS}
    moved: list[list[str]] = []
    updates = one.method.updates

    def watched(*given: Any) -> Iterator[Update]:
        for update in updates(*given):
            moved.append(_moved(run, before))
            yield update
        moved.append(_moved(run, before))

    one.method.updates = watched  # type: ignore[method-assign]
    run.go(Progress(lambda event: False))
    assert moved == [[], ["critic"], ["critic", "generator"]]
    # The generator's loss is seen through the critic, which must not learn from it.
    gradients = [weight.grad.clone() for weight in run.networks["critic"].parameters()]
    assert all(gradient.norm() <= one.settings.clip * 1.001 for gradient in gradients)


def _moved(run: Run, before: Mapping[str, list[Tensor]]) -> list[str]:
    now = {name: list(run.networks[name].parameters()) for name in before}
    return [
        name
        for name, weights in before.items()
        if any(not torch.equal(*pair) for pair in zip(weights, now[name], strict=True))
    ]


def test_logged_terms_are_prefixed_by_optimiser(folders: dict[str, Path], tmp_path: Path) -> None:
    events: list[Event] = []
    one = task(folders, steps=3, evaluate_every=3)
    Run(one, one.settings, tmp_path).go(Progress(events.append))
    assert events[0].losses.keys() == {
        *("loss", "critic.apart", "critic.penalty", "critic.gradient"),
        *("generator.real", "generator.close", "generator.gradient"),
    }
    parts = [value for name, value in events[0].losses.items() if name != "loss" and "gradient" not in name]
    assert events[0].losses["loss"] == pytest.approx(sum(parts), rel=1e-5)
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert not [name for name in line if name.startswith("judged_")]  # it declares no losses to be judged by


class Spoilt(Adversarial):
    """The critic's loss is not finite in the second step."""

    def updates(
        self, networks: Mapping[str, Any], batch: Batch, training: Any, state: Mapping[str, Any]
    ) -> Iterator[Update]:
        for update in super().updates(networks, batch, training, state):
            bad = batch.step == 1 and update.optimiser == "critic"
            yield Update(
                update.optimiser, {k: v * float("nan") if bad else v for k, v in update.terms.items()}
            )


def test_a_step_with_a_bad_update_changes_no_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    states: list[dict[str, Tensor]] = []
    one = task(folders, Spoilt, steps=3)
    run = Run(one, one.settings, tmp_path)
    run.go(Progress(lambda event: states.append(tensors(run))))  # type: ignore[func-returns-value]
    kept = [name for name in states[0] if not name.startswith("/pool")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in kept)
    assert any(not torch.equal(states[1][name], states[2][name]) for name in kept)
    assert all(torch.isfinite(value.float()).all() for value in states[2].values())


def test_an_unknown_optimiser_is_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    class Lost(Adversarial):
        def updates(self, networks: Mapping[str, Any], *given: Any) -> Iterator[Update]:
            yield Update("critics", {"x": networks["critic"].last.bias.sum()})

    one = task(folders, Lost)
    with pytest.raises(
        TrainingError, match=r"uses an optimiser 'critics' that it does not define: it defines critic"
    ):
        Run(one, one.settings, tmp_path).go()


def test_averaging_an_unknown_network_is_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    class Lost(Adversarial):
        averaged = ("painter",)

    one = task(folders, Lost)
    with pytest.raises(
        TrainingError,
        match="averages a network 'painter' that it does not build: it builds generator, critic",
    ):
        Run(one, one.settings, tmp_path)


def test_the_average_is_exported_and_previewed(folders: dict[str, Path], tmp_path: Path) -> None:
    one = task(folders, steps=4, evaluate_every=4, sheet=(str(folders["a"] / "0.png"),))
    run = run_of(one, tmp_path / "run")
    run.export(tmp_path / "made.safetensors")
    kept, average = load_file(tmp_path / "made.safetensors"), run.averages["generator"].module.state_dict()
    assert kept.keys() == average.keys()
    assert torch.equal(kept["0.weight"], average["0.weight"].half())
    assert not torch.equal(average["0.weight"], run.networks["generator"].state_dict()["0.weight"])
    sheet = np.asarray(Image.open(tmp_path / "run" / "sheet-0000004.jpg"))
    grey = 255 * float(kept["0.weight"].float().abs().mean())
    assert sheet[4:16, 30:44].mean() == pytest.approx(grey, abs=2)


@pytest.mark.parametrize(
    ("averaged", "names"),
    [
        (("critic",), {"first.weight", "first.bias", "last.weight", "last.bias"}),
        (("critic", "other"), {"critic.first.weight", "critic.last.bias", "other.weight", "other.bias"}),
        ((), {"critic.first.weight", "critic.last.bias", "other.weight", "other.bias"}),
    ],
)
def test_averaged_or_all_networks_are_exported(averaged: tuple[str, ...], names: set[str]) -> None:
    method = Adversarial()
    method.averaged = averaged  # type: ignore[misc]
    assert method.exported({"critic": Critic(), "other": nn.Linear(1, 1)}).keys() >= names


# the pool


def random_pictures(count: int, seed: int) -> Tensor:
    return torch.rand((count, 1, 2, 2), generator=torch.Generator().manual_seed(seed))


def test_a_pool_fills_then_returns_older_pictures_half_of_the_time() -> None:
    pool, generator = ImagePool(10), torch.Generator().manual_seed(0)
    first = random_pictures(10, 1)
    assert torch.equal(pool.exchange(first, generator), first)
    given = random_pictures(400, 2)
    found = pool.exchange(given.requires_grad_(), generator)
    assert not found.requires_grad
    replaced = (found != given).flatten(1).any(1)
    # Half of 400 is 200 with a deviation of 10.
    assert 160 < int(replaced.sum()) < 240
    seen = {tuple(one.flatten().tolist()) for one in torch.cat([first, given])}
    assert {tuple(one.flatten().tolist()) for one in found} <= seen
    assert len(pool.images) == 10


def test_a_pool_rejects_non_finite_pictures() -> None:
    pool, bad = ImagePool(3), random_pictures(2, 0)
    bad[0, 0, 0, 0] = float("inf")
    assert torch.equal(pool.exchange(bad, torch.Generator()), bad)
    assert pool.images == []


def test_a_pool_of_size_0_returns_its_input() -> None:
    given = random_pictures(3, 0)
    assert torch.equal(ImagePool(0).exchange(given, torch.Generator()), given)
