"""One training loop for every network: steps, checkpoints, resume, evaluation, averaging.

The randomness of step t depends only on the seed and t, and the learning rate only on t and the
length, so a run that is stopped and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from atelier.core import device as devices
from atelier.core.atomic import atomic
from atelier.core.errors import OutputError, TrainingError, first_line
from atelier.core.progress import Progress


class Settings(BaseModel):
    """What every training run has; a task adds its own fields to a subclass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(1000, ge=1, description="Optimiser steps in all; a resumed run may be given more.")
    batch: int = Field(256, ge=1, description="Pictures a step.")
    learning_rate: float = Field(0.15, gt=0, description="The constant rate between warm-up and cool-down.")
    warmup: int = Field(200, ge=0, description="Steps over which the rate rises from zero.")
    cooldown: float = Field(
        0.35, ge=0, le=1, description="The last part of the run, in which the rate falls to zero."
    )
    average: float = Field(0.998, ge=0, lt=1, description="Decay of the running average of the weights.")
    clip: float = Field(5.0, gt=0, description="Largest norm of the gradient.")
    seed: int = Field(0, ge=0, description="Seed of the weights, the order and the crops.")
    half: bool = Field(True, description="Compute in bfloat16 where that is safe (weights stay float32).")
    device: str = Field("auto", description="auto, cpu, cuda or mps.")
    evaluate_every: int = Field(500, ge=1, description="Steps between evaluations.")
    save_every: int = Field(200, ge=1, description="Steps between checkpoints.")


class Task(Protocol):
    """What the loop needs to know of a network: how to build it, its loss and its judge."""

    name: str

    def build(self) -> nn.Module: ...
    def optimiser(self, network: nn.Module) -> torch.optim.Optimizer: ...
    def loss(
        self, network: nn.Module, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]: ...
    def evaluate(self, network: nn.Module) -> dict[str, float]: ...
    def export(self, network: nn.Module, path: Path, facts: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Painter(Protocol):
    """A task that can show what its network paints."""

    def paint(self, network: nn.Module, path: Path) -> None: ...


def rate(step: int, settings: Settings) -> float:
    """The learning rate's factor at a step: warm-up, constant, linear to zero (Hägele et al. 2024)."""
    cool = max(1, round(settings.cooldown * settings.steps))
    rising = (step + 1) / settings.warmup if step < settings.warmup else 1.0
    return min(rising, (settings.steps - step) / cool, 1.0)


class Run:
    """A training run in a folder: `checkpoint-N.pt` files, `log.jsonl`, TensorBoard events, the export."""

    # A few bad batches are bad luck; this many in a row are a run that has diverged.
    patience = 10

    def __init__(self, task: Task, settings: Settings, folder: Path) -> None:
        from accelerate import Accelerator

        self.task, self.settings, self.folder = task, settings, folder
        _prepare(folder)
        devices.choose(settings.device)  # a bad one fails now, not an hour later
        self.accelerator = Accelerator(
            mixed_precision="bf16" if settings.half else "no",
            cpu=settings.device == "cpu",
            log_with=_trackers(),
            project_dir=folder,
        )
        torch.manual_seed(settings.seed)
        network = task.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network, self.optimiser = self.accelerator.prepare(network, task.optimiser(network))
        self.average = torch.optim.swa_utils.AveragedModel(
            self.accelerator.unwrap_model(self.network),
            multi_avg_fn=lambda old, new, count: _average(old, new, int(count), settings.average),
        )
        self.base_rates = [group["lr"] for group in self.optimiser.param_groups]
        self.step = 0
        self.seconds = 0.0

    # checkpoints

    def checkpoints(self) -> list[Path]:
        """The checkpoints in the folder, oldest first."""
        found = [(re.fullmatch(r"checkpoint-(\d+)\.pt", path.name), path) for path in self.folder.iterdir()]
        return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]

    def save(self) -> None:
        """Write a checkpoint beside the others and keep the newest two."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "network": self.accelerator.unwrap_model(self.network).state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "settings": self.settings.model_dump(mode="json"),
        }
        with atomic(self.folder / f"checkpoint-{self.step:07d}.pt") as path:
            torch.save(state, path)
        for old in self.checkpoints()[:-2]:
            old.unlink(missing_ok=True)

    def resume(self) -> bool:
        """Go on from the newest readable checkpoint; False where there is none."""
        for path in reversed(self.checkpoints()):
            try:
                state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
                self.accelerator.unwrap_model(self.network).load_state_dict(state["network"])
                self.average.load_state_dict(state["average"])
                self.optimiser.load_state_dict(state["optimiser"])
                self.step, self.seconds = int(state["step"]), float(state["seconds"])
            except _UNREADABLE as error:
                problem = error
                continue
            return True
        if self.checkpoints():
            raise TrainingError(
                f"no checkpoint in {self.folder} fits this network ({first_line(problem)}): "
                "use the settings it was started with, or another folder"
            )
        return False

    # the loop

    def go(self, progress: Progress | None = None) -> bool:
        """Train to `settings.steps`; False when the listener stopped it. Writes a checkpoint either way."""
        progress = progress or Progress()
        self.accelerator.init_trackers(self.task.name)
        try:
            self._steps(progress)
        finally:
            self.accelerator.end_training()
        return not progress.stopped

    def _steps(self, progress: Progress) -> None:
        bad = 0
        while self.step < self.settings.steps and not progress.stopped:
            started = time.monotonic()
            losses = self._one_step()
            self.seconds += time.monotonic() - started
            bad = 0 if math.isfinite(losses["loss"]) else bad + 1
            if bad > self.patience:
                raise TrainingError(
                    f"the loss was not finite for {bad} steps up to step {self.step}: resume from the last "
                    f"checkpoint in {self.folder} with a smaller learning rate"
                )
            self._notes(losses, saving=bad == 0)
            progress.report(self.step, self.settings.steps, stage="training", losses=losses)
        self.save()

    def _one_step(self) -> dict[str, float]:
        generator = torch.Generator().manual_seed(
            _mix(self.settings.seed, self.step, self.accelerator.process_index)
        )
        for group, base in zip(self.optimiser.param_groups, self.base_rates, strict=True):
            group["lr"] = base * rate(self.step, self.settings)
        self.network.train()
        # Batch norm takes its running statistics during the forward pass, finite or not.
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        with self.accelerator.autocast():
            loss, terms = self.task.loss(self.network, self.step, generator)
        self.optimiser.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        # A step with a gradient that is not finite is left out: it would spoil every weight for good.
        if bool(torch.isfinite(loss)) and bool(torch.isfinite(norm)):
            self.optimiser.step()
            self.average.update_parameters(self.accelerator.unwrap_model(self.network))
        else:
            loss = loss.new_tensor(math.nan)
            for buffer, before in zip(self.network.buffers(), buffers, strict=True):
                buffer.copy_(before)
        self.step += 1
        return {"loss": float(loss.detach()), "gradient": float(norm), **terms}

    def _notes(self, losses: Mapping[str, float], *, saving: bool) -> None:
        """Log, evaluate and save when this step is due."""
        due = self.step % self.settings.evaluate_every == 0 or self.step == self.settings.steps
        if due:
            losses = {**losses, **self.judge()}
            self.paint()
        if due or self.step % 20 == 0:
            self.log(losses)
        if saving and self.step % self.settings.save_every == 0:
            self.save()

    def judge(self) -> dict[str, float]:
        """The task's own scores of the averaged weights."""
        return self.task.evaluate(self.average.module)

    def paint(self) -> None:
        """A sheet of pictures by the averaged weights, for a task that paints."""
        if self.accelerator.is_main_process and isinstance(self.task, Painter):
            self.task.paint(self.average.module, self.folder / f"sheet-{self.step:07d}.jpg")

    def log(self, values: Mapping[str, float]) -> None:
        """One line in log.jsonl and the same in TensorBoard."""
        self.accelerator.log(dict(values), step=self.step)
        if self.accelerator.is_main_process:
            line = {
                "step": self.step,
                "seconds": round(self.seconds, 1),
                **{k: round(v, 5) for k, v in values.items()},
            }
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def export(self, path: Path) -> None:
        """Write the averaged network in the form that the package loads, with the facts of the run."""
        facts = {"settings": self.settings.model_dump(), "step": self.step, "seconds": round(self.seconds)}
        self.task.export(self.average.module, path, facts)


def portable(value: Any) -> Any:
    """The facts without the folders of the machine: a path is told by its last part."""
    if isinstance(value, Mapping):
        return {name: portable(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(one) for one in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value


# What torch raises over damaged checkpoints, files that are none, and those of other networks.
_UNREADABLE = (
    OSError,
    RuntimeError,
    KeyError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    pickle.UnpicklingError,
)


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the run's folder {folder} cannot be made ({error.strerror}): choose another place"
        ) from error


def _average(old: Sequence[Tensor], new: Sequence[Tensor], count: int, decay: float) -> None:
    """Exponential average in place; the decay grows from small, so that the first weights are forgotten."""
    torch._foreach_lerp_(list(old), list(new), 1 - min(decay, (1 + count) / (10 + count)))


def _mix(*numbers: int) -> int:
    """One seed out of several numbers (a 61-bit polynomial hash)."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**61 - 1)
    return seed


def _trackers() -> list[str]:
    from importlib.util import find_spec

    return ["tensorboard"] if find_spec("tensorboard") else []
