"""Runs small trainings in one of several processes; `test_processes.py` starts it. No test of its own.

    python several_processes.py DATA OUT

RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set as torchrun and `accelerate launch` do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState  # noqa: F401 - for the tests
from safetensors.torch import save_file
from torch import Tensor, nn

from atelier.core.errors import TrainingError  # noqa: F401 - for the tests
from atelier.core.knobs import Knobs
from atelier.core.progress import Progress
from atelier.methods import registry
from atelier.methods.base import Batch, Method, Paper
from atelier.methods.trainable import ImagePool, Update
from atelier.training import checkpoint
from atelier.training.loop import Run
from atelier.training.settings import settings_of
from atelier.training.task import MethodTask


class Pair(Method):
    """A generator that is called through an attribute, a smooth critic with a penalty, and a buffer."""

    name = "pair"
    paper = Paper("Nobody", 2024, "Pairs", "https://example.org")
    data = "domains"
    averaged = ("generator", "critic")
    size = 0

    class Knobs(Knobs):
        pass

    class Training(Knobs):
        pass

    def networks(self, training: Any, data: Any) -> dict[str, nn.Module]:
        generator = nn.Module()
        generator.paint = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 1))
        generator.idle = nn.Parameter(torch.ones(2))  # no loss ever sees it
        generator.register_buffer("seen", torch.zeros(3))
        critic = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))
        return {"generator": generator, "critic": critic}

    def state(self, training: Any) -> dict[str, Any]:
        return {"pool": ImagePool(self.size)}

    def updates(
        self, networks: Mapping[str, Any], batch: Batch, training: Any, state: Mapping[str, Any]
    ) -> Iterator[Update]:
        generator, critic = networks["generator"], networks["critic"]
        generator.seen.lerp_(batch["a"].mean((0, 2, 3)), 0.1)
        made = generator.paint(batch["a"])
        old = state["pool"].exchange(made, batch.generator)
        share = batch.rows(torch.rand(batch.whole, generator=batch.generator))[:, None, None, None]
        mixed = torch.lerp(old, batch["b"], share).requires_grad_()
        (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        yield Update("critic", {"apart": critic(old).mean() - critic(batch["b"]).mean(), "penalty": penalty})
        yield Update("generator", {"real": -critic(made).mean(), "close": (made - batch["a"]).abs().mean()})


class Pooled(Pair):
    """As Pair, with a pool of its own in each process."""

    size = 4


def task(kind: type[Method], data: Path, **more: Any) -> MethodTask:
    names = {"pairs": ("photos", "paintings"), "domains": ("a", "b")}[kind.data]
    given = {name: (str(data / folder),) for name, folder in zip(names, ("a", "b"), strict=True)}
    small = {"steps": 8, "batch": 4, "crop": 32, "held_back": 2, "half": False, "device": "cpu", "warmup": 0}
    return MethodTask(kind, settings_of(kind)(**given | small | more))


def tensors(run: Run) -> dict[str, Tensor]:
    """Everything that the next step depends on in this process."""
    state = {
        "networks": {name: network.state_dict() for name, network in run.networks.items()},
        "averages": {name: average.state_dict() for name, average in run.averages.items()},
        "optimisers": {name: one.state_dict()["state"] for name, one in run.optimisers.items()},
        "state": {name: part.state_dict() for name, part in run.state.items()},
    }
    found: dict[str, Tensor] = {}
    checkpoint._described(state, "", found)
    return found


def trained(one: MethodTask, folder: Path, stop: Any = None) -> Run:
    run = Run(one, one.settings, folder)
    run.resume()
    run.go(Progress(stop))
    return run


def compared(data: Path, out: Path) -> dict[str, Run]:
    """The runs that must not depend on the number of processes."""
    more = {"encoder": str(data / "encoder.safetensors"), "batch": 16, "steps": 1}
    return {
        "pair": trained(task(Pair, data), out / "pair"),
        "nnst_d": trained(task(registry.find("nnst_d"), data, **more), out / "nnst_d"),
    }


def resumed(data: Path, out: Path) -> dict[str, Run]:
    """A run at one go, and one that is stopped and resumed."""
    whole = trained(task(Pooled, data), out / "whole")
    # Only the last process is asked to stop, and all of them stop.
    last = whole.processes.index == whole.processes.count - 1
    first = trained(task(Pooled, data), out / "parts", (lambda event: event.done < 3) if last else None)
    assert first.step == 3, first.step
    return {"whole": whole, "parts": trained(task(Pooled, data), out / "parts")}


def main(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    runs = compared(data, out) | resumed(data, out)
    for name, run in runs.items():
        save_file(tensors(run), out / f"{name}-{run.processes.index}.safetensors")
        run.export(out / f"{name}-exported.safetensors")
    runs["whole"].close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
