"""The training loop: resumed runs are bit-identical, and non-finite values never reach the weights."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from atelier.core.errors import OutputError, ResourceError, TrainingError, UsageError
from atelier.core.progress import Event, Progress
from atelier.methods.trainable import Batch, Update
from atelier.training import checkpoint
from atelier.training.encoder import EncoderTask
from atelier.training.loop import Run
from atelier.training.settings import Settings, rate

Make = Callable[..., Any]


def tensors(run: Run) -> dict[str, Tensor]:
    """Everything that the next step depends on, by name."""
    found = {f"network.{name}": value for name, value in run.networks["network"].state_dict().items()}
    found |= {f"average.{name}": value for name, value in run.averages["network"].state_dict().items()}
    for index, state in run.optimisers["network"].state_dict()["state"].items():
        found |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    return {name: value.clone() for name, value in found.items() if isinstance(value, Tensor)}


def assert_same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert any(name.startswith("optimiser.") for name in one)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def until(step: int) -> Progress:
    return Progress(lambda event: event.done < step)


# the rate


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (80, 1.0), (81, 19 / 20), (90, 0.5), (99, 1 / 20)],
)
def test_learning_rate_warms_up_stays_and_cools_down(step: int, factor: float) -> None:
    settings = Settings(steps=100, warmup=10, cooldown=0.2)
    assert rate(step, settings) == pytest.approx(factor)


def test_learning_rate_without_warmup_or_cooldown() -> None:
    settings = Settings(steps=10, warmup=0, cooldown=0)
    assert {rate(step, settings) for step in range(10)} == {1.0}
    assert rate(5, Settings(steps=10, warmup=0, cooldown=1)) == pytest.approx(0.5)
    # A short run's cool-down may begin in its warm-up: the lower of both counts.
    assert rate(2, Settings(steps=4, warmup=8, cooldown=1)) == pytest.approx(3 / 8)


# resuming


@pytest.mark.parametrize(("paintings_too", "half"), [(False, False), (True, False), (True, True)])
def test_a_resumed_run_is_bit_identical(
    settings: Make, paintings: Path, tmp_path: Path, paintings_too: bool, half: bool
) -> None:
    chosen = settings(half=half, **({"paintings": str(paintings)} if paintings_too else {}))
    whole = Run(EncoderTask(chosen), chosen, tmp_path / "whole")
    assert whole.go()
    first = Run(EncoderTask(chosen), chosen, tmp_path / "parts")
    assert not first.resume()
    assert not first.go(until(5))
    assert first.step == 5
    torch.manual_seed(99)  # what happens in between does not matter
    second = Run(EncoderTask(chosen), chosen, tmp_path / "parts")
    assert second.resume()
    assert_same_bits(tensors(first), tensors(second))
    assert second.go()
    assert (second.step, whole.step) == (8, 8)
    assert_same_bits(tensors(whole), tensors(second))


def test_evaluation_and_saving_do_not_affect_training(settings: Make, tmp_path: Path) -> None:
    runs = []
    for every in (1000, 2):
        chosen = settings(evaluate_every=every, save_every=every)
        runs.append(Run(EncoderTask(chosen), chosen, tmp_path / str(every)))
        runs[-1].go()
    assert_same_bits(*(tensors(run) for run in runs))


def test_the_seed_changes_the_run(settings: Make, tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        chosen = settings(seed=seed, steps=2)
        run = Run(EncoderTask(chosen), chosen, tmp_path / str(seed))
        run.go()
        found.append(tensors(run)["network.objects.weight"])
    assert not torch.equal(*found)


def test_two_checkpoints_are_kept(settings: Make, tmp_path: Path) -> None:
    chosen = settings(save_every=2)
    run = Run(EncoderTask(chosen), chosen, tmp_path)
    run.go()
    assert [path.name for path in run.checkpoints()] == [
        "checkpoint-0000006.safetensors",
        "checkpoint-0000008.safetensors",
    ]
    assert checkpoint.read(run.checkpoints()[-1])["settings"]["batch"] == 6


def test_a_finished_run_continues_with_more_steps(settings: Make, tmp_path: Path) -> None:
    chosen = settings(steps=2)
    Run(EncoderTask(chosen), chosen, tmp_path).go()
    longer = settings(steps=4)
    run = Run(EncoderTask(longer), longer, tmp_path)
    assert run.resume()
    assert run.go()
    assert run.step == 4


@pytest.mark.parametrize(
    "spoil", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"text"]
)
def test_a_damaged_newest_checkpoint_falls_back(settings: Make, tmp_path: Path, spoil: Any) -> None:
    chosen = settings(save_every=3)
    whole = Run(EncoderTask(chosen), chosen, tmp_path)
    whole.go()
    newest = whole.checkpoints()[-1]
    newest.write_bytes(spoil(newest.read_bytes()))
    run = Run(EncoderTask(chosen), chosen, tmp_path)
    assert run.resume()
    assert run.step == 6
    run.go()
    assert_same_bits(tensors(whole), tensors(run))


def test_only_damaged_checkpoints_are_an_error(settings: Make, tmp_path: Path) -> None:
    chosen = settings()
    torch.save([1, 2], tmp_path / "checkpoint-0000003.pt")
    (tmp_path / "checkpoint-0000004.pt").write_bytes(b"text")
    (tmp_path / "checkpoint-0000005.safetensors").write_bytes(b"text")
    save_file({"a": torch.ones(1)}, tmp_path / "checkpoint-0000006.safetensors")
    with pytest.raises(TrainingError, match=r"no checkpoint in .* fits this network") as caught:
        Run(EncoderTask(chosen), chosen, tmp_path).resume()
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_the_first_version_resumes(settings: Make, tmp_path: Path) -> None:
    chosen = settings()
    whole = Run(EncoderTask(chosen), chosen, tmp_path / "whole")
    whole.go(until(5))
    (tmp_path / "parts").mkdir()
    old = {
        "network": whole.networks["network"].state_dict(),
        "average": whole.averages["network"].state_dict(),
        "optimiser": whole.optimisers["network"].state_dict(),
        "step": 5,
        "seconds": 1.5,
        "settings": chosen.model_dump(mode="json"),
    }
    torch.save(old, tmp_path / "parts" / "checkpoint-0000005.pt")
    run = Run(EncoderTask(chosen), chosen, tmp_path / "parts")
    assert run.resume()
    assert (run.step, run.seconds) == (5, 1.5)
    assert_same_bits(tensors(whole), tensors(run))
    run.go()
    whole.go()
    assert_same_bits(tensors(whole), tensors(run))


def test_a_checkpoint_of_other_settings_is_an_error(settings: Make, tmp_path: Path) -> None:
    chosen, other = settings(steps=1), settings(steps=1, widths=(4, 6, 10))
    Run(EncoderTask(chosen), chosen, tmp_path).go()
    with pytest.raises(TrainingError, match="use the settings of the original run") as caught:
        Run(EncoderTask(other), other, tmp_path).resume()
    assert "\n" not in str(caught.value)


def test_an_uncreatable_folder_is_an_error(settings: Make, tmp_path: Path) -> None:
    chosen = settings()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"the run's folder .*file cannot be created"):
        Run(EncoderTask(chosen), chosen, tmp_path / "file")


@pytest.mark.parametrize(("device", "kind"), [("gpu", UsageError), ("cuda:77", ResourceError)])
def test_an_unavailable_device_is_an_error(settings: Make, tmp_path: Path, device: str, kind: Any) -> None:
    chosen = settings(device=device)
    with pytest.raises(kind, match=device):
        Run(EncoderTask(chosen), chosen, tmp_path)


# numbers that are not finite


class Weight(nn.Module):
    """One weight behind batch norm, so that both kinds of state can be spoilt."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, values: Tensor) -> Tensor:
        return self.weight * self.norm(values)


class Risky:
    """A task whose batch holds a number that is not finite in chosen steps."""

    name = "risky"
    averaged = ("network",)

    def __init__(self, bad: set[int], *, gradient: bool = False) -> None:
        self.bad, self.gradient = bad, gradient

    def networks(self) -> dict[str, nn.Module]:
        return {"network": Weight()}

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        return {"network": torch.optim.SGD(networks["network"].parameters(), lr=0.1, momentum=0.9)}

    def state(self) -> dict[str, Any]:
        return {}

    def batches(self, start: int, processes: Any) -> Iterator[list[Batch]]:
        for step in itertools.count(start):
            generator = torch.Generator().manual_seed(step)
            yield [Batch({"values": torch.rand((4, 1), generator=generator)}, step, generator)]

    def updates(self, networks: Mapping[str, Any], batch: Batch, state: Any) -> Iterator[Update]:
        network, values = networks["network"], batch["values"]
        if batch.step in self.bad and not self.gradient:
            values[0] = math.nan
        loss = network(values).square().mean()
        if batch.step in self.bad and self.gradient:
            # A root at 0: the loss is finite, its slope is not.
            loss = loss + (network.weight * 0).abs().sqrt().sum()
        yield Update("network", {"square": loss})

    def evaluate(self, networks: Mapping[str, Any]) -> dict[str, float]:
        return {"weight": float(networks["network"].weight.detach())}

    def export(self, networks: Mapping[str, nn.Module], path: Path, facts: Mapping[str, Any]) -> None:
        path.write_text(json.dumps(facts))


def plain(**changes: Any) -> Settings:
    return Settings(**{"steps": 6, "warmup": 0, "half": False, "device": "cpu"} | changes)


@pytest.mark.parametrize("gradient", [False, True])
def test_a_non_finite_step_is_skipped(tmp_path: Path, gradient: bool) -> None:
    states: list[dict[str, Tensor]] = []
    losses: list[float] = []

    def listen(event: Event) -> None:
        states.append(tensors(run))
        losses.append(event.losses["loss"])

    run = Run(Risky({2, 3}, gradient=gradient), plain(), tmp_path)
    assert run.go(Progress(listen))
    assert [math.isnan(loss) for loss in losses] == [False, False, True, True, False, False]
    assert_same_bits(states[1], states[2])
    assert_same_bits(states[1], states[3])
    assert not torch.equal(states[3]["network.weight"], states[4]["network.weight"])
    assert all(torch.isfinite(value).all() for value in tensors(run).values())


def test_too_many_non_finite_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    run = Run(Risky(set(range(3, 99))), plain(steps=99, save_every=1), tmp_path)
    with pytest.raises(
        TrainingError, match=r"was not finite for 11 steps up to step 14.*smaller learning rate"
    ):
        run.go()
    # Nothing was saved after the last good step.
    assert run.checkpoints()[-1].name == "checkpoint-0000003.safetensors"
    again = Run(Risky(set()), plain(steps=5, save_every=1), tmp_path)
    assert again.resume()
    assert again.go()


def test_isolated_non_finite_steps_do_not_end_the_run(tmp_path: Path) -> None:
    run = Run(Risky({step for step in range(40) if step % 8}), plain(steps=40), tmp_path)
    assert run.go()


# the log and the rest


def test_log_lines_hold_steps_and_losses(tmp_path: Path) -> None:
    run = Run(Risky(set()), plain(steps=45, evaluate_every=30), tmp_path)
    run.go()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 30, 40, 45]
    assert ["weight" in line for line in lines] == [False, True, False, True]
    assert all({"loss", "gradient", "seconds"} <= line.keys() for line in lines)


class Ramp(Risky):
    """A task whose weight grows by 1 a step, from 1: the loss falls by the weight, at rate 1."""

    def __init__(self) -> None:
        super().__init__(set())

    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]:
        return {"network": torch.optim.SGD([networks["network"].weight], lr=1.0)}  # type: ignore[list-item]

    def updates(self, networks: Mapping[str, Any], batch: Batch, state: Any) -> Iterator[Update]:
        yield Update("network", {"fall": -networks["network"].weight.sum()})


@pytest.mark.parametrize(
    ("steps", "decay", "average"),
    [
        # By hand, with exact fractions: decays 2/11, 3/12, 4/13 and 5/14 of weights 2, 3, 4, 5 and 6.
        (5, 0.5, 5506 / 1001),
        # An exponential average lags behind a ramp by decay / (1 - decay) steps.
        (60, 0.5, 61 - 1),
        (400, 0.9, 401 - 9),
    ],
)
def test_the_average_lags_behind_the_weights(
    tmp_path: Path, steps: int, decay: float, average: float
) -> None:
    run = Run(Ramp(), plain(steps=steps, average=decay, cooldown=0, save_every=1000), tmp_path)
    run.go()
    assert float(tensors(run)["network.weight"]) == pytest.approx(1 + steps)
    assert float(tensors(run)["average.module.weight"]) == pytest.approx(average, rel=1e-5)


def test_memory_counts_weights_gradients_moments_and_averages(tmp_path: Path) -> None:
    # Three numbers of 4 bytes: once as weights, gradients and average, twice as Adam's moments.
    assert Run(Risky(set()), plain(), tmp_path).memory() == 3 * 4 * 5


def test_a_stop_writes_a_checkpoint(tmp_path: Path) -> None:
    run = Run(Risky(set()), plain(), tmp_path)
    assert not run.go(until(2))
    assert [path.name for path in run.checkpoints()] == ["checkpoint-0000002.safetensors"]


def test_the_export_receives_the_facts(tmp_path: Path) -> None:
    run = Run(Risky(set()), plain(seed=4), tmp_path / "run")
    run.go()
    run.export(tmp_path / "facts.json")
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["step"] == 6
    assert facts["settings"]["seed"] == 4
