"""The training loop for all networks: updates, checkpoints, resuming, evaluation, weight averaging.

The random numbers of step t depend only on the seed and t, and the learning rate only on t and the
length of the run. A run that is stopped and resumed gives bit-identical results to an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from atelier.core import device as devices
from atelier.core.errors import OutputError, TrainingError, first_line
from atelier.core.progress import Progress
from atelier.methods.trainable import Batch, Stateful, Update
from atelier.training import checkpoint
from atelier.training.data import mix
from atelier.training.processes import Processes
from atelier.training.settings import Settings, rate


class Task(Protocol):
    """What the loop trains: networks, their optimisers, the updates of a step, and their evaluation."""

    name: str

    @property
    def averaged(self) -> Sequence[str]:
        """The names of the networks whose weights are averaged."""
        ...

    def networks(self) -> dict[str, nn.Module]: ...
    def optimisers(self, networks: Mapping[str, nn.Module]) -> dict[str, torch.optim.Optimizer]: ...
    def state(self) -> dict[str, Stateful]: ...
    def batches(self, start: int, processes: Processes) -> Iterator[list[Batch]]:
        """The parts of each step's batch that this process computes, from step `start` on."""
        ...

    def updates(
        self, networks: Mapping[str, nn.Module], batch: Batch, state: Mapping[str, Stateful]
    ) -> Iterator[Update]: ...
    def evaluate(self, networks: Mapping[str, nn.Module]) -> dict[str, float]: ...
    def export(self, networks: Mapping[str, nn.Module], path: Path, facts: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Previewing(Protocol):
    """A task that can write a preview sheet of pictures made by its networks."""

    def preview(self, networks: Mapping[str, nn.Module], path: Path) -> None: ...


@runtime_checkable
class Staged(Protocol):
    """A task that makes its data first."""

    def make(self, folder: Path, processes: Processes, progress: Progress) -> bool:
        """Make what is missing below the run's folder. Returns False if the listener stopped the work."""
        ...


@runtime_checkable
class Planning(Protocol):
    """A task that can tell what it needs on a device before it starts; raises ResourceError if too much."""

    def plan(self, device: torch.device) -> str: ...


class Run:
    """A training run in a folder: checkpoints, `log.jsonl`, TensorBoard events, previews, the export."""

    # A few bad batches can happen; a run with more than this many in a row has diverged.
    patience = 10

    def __init__(self, task: Task, settings: Settings, folder: Path) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        devices.choose(settings.device)  # fail now for an unusable device
        torch.manual_seed(settings.seed)
        networks = task.networks()  # before the folder, so that wrong settings leave nothing behind
        _prepare(folder)
        self.accelerator = _accelerator(settings, folder)
        self.processes = Processes(self.accelerator)
        _check_parts(settings, self.processes.count)
        self.networks = {name: self._placed(network) for name, network in networks.items()}
        self.processes.broadcast(self.networks.values())
        self.optimisers = task.optimisers(self.networks)
        self.state = task.state()
        self.averages = {name: self._average_of(self.networks[name]) for name in task.averaged}
        self._rates = {
            name: [group["lr"] for group in optimiser.param_groups]
            for name, optimiser in self.optimisers.items()
        }
        self.step = 0
        self.seconds = 0.0

    def _placed(self, network: nn.Module) -> nn.Module:
        """The network on the device and in the run's precision. `Processes` averages the gradients."""
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        placed: nn.Module = self.accelerator.prepare_model(network, evaluation_mode=True)
        return placed

    def _average_of(self, network: nn.Module) -> torch.optim.swa_utils.AveragedModel:
        decay = self.settings.average
        return torch.optim.swa_utils.AveragedModel(
            network, multi_avg_fn=lambda old, new, count: _average(old, new, int(count), decay)
        )

    @property
    def judged(self) -> dict[str, nn.Module]:
        """The networks to evaluate, by name: averaged weights where the task asks for them."""
        return self.networks | {name: average.module for name, average in self.averages.items()}

    def memory(self) -> int:
        """Bytes of the weights, gradients, optimiser states and averages, without activations."""
        every = [weight for network in self.networks.values() for weight in network.parameters()]
        learnt = [weight for weight in every if weight.requires_grad]
        averaged = sum(_bytes(average.parameters()) for average in self.averages.values())
        # The gradients and Adam's two moments.
        return _bytes(every) + averaged + 3 * _bytes(learnt)

    # checkpoints

    def checkpoints(self) -> list[Path]:
        """The checkpoints in the folder, oldest first."""
        return checkpoint.checkpoints(self.folder)

    def save(self) -> None:
        """Write a checkpoint, and keep only the newest two."""
        kept = {name: part.state_dict() for name, part in self.state.items()}
        if not self.processes.main:
            if kept:
                checkpoint.write(
                    checkpoint.path_of(self.folder, self.step, self.processes.index), {"state": kept}
                )
            return
        state = {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "state": kept,
            "step": self.step,
            "seconds": self.seconds,
            "settings": self.settings.model_dump(mode="json"),
            "processes": self.processes.count,
        }
        checkpoint.write(checkpoint.path_of(self.folder, self.step), state)
        checkpoint.prune(self.folder)

    def resume(self) -> bool:
        """Resume from the newest readable checkpoint. Returns False if there is none."""
        found, problem = self.checkpoints(), ""
        for path in reversed(found):
            wrong = False
            try:
                self._load(path)
            except _UNREADABLE as error:
                wrong, problem = True, first_line(error)
            if not self.processes.anyone(wrong):
                return True
        if found:
            raise TrainingError(
                f"no checkpoint in {self.folder} fits this network ({problem}): "
                "use the settings of the original run, or another folder"
            )
        return False

    def _load(self, path: Path) -> None:
        state = checkpoint.read(path)
        kept = state["state"]
        if kept and state["processes"] != self.processes.count:
            raise TrainingError(
                f"{path} holds the states of {state['processes']} processes, but this run has "
                f"{self.processes.count}: resume with {state['processes']} processes"
            )
        if kept and not self.processes.main:
            step = int(state["step"])
            kept = checkpoint.read(checkpoint.path_of(self.folder, step, self.processes.index))["state"]
        for mine, theirs in (
            (self.networks, state["networks"]),
            (self.averages, state["averages"]),
            (self.optimisers, state["optimisers"]),
            (self.state, kept),
        ):
            if mine.keys() != theirs.keys():
                raise ValueError(
                    f"it holds {', '.join(theirs) or 'nothing'}, not {', '.join(mine) or 'nothing'}"
                )
            for name, part in mine.items():
                part.load_state_dict(theirs[name])
        for optimiser in self.optimisers.values():
            _match_layout(optimiser)
        self.step, self.seconds = int(state["step"]), float(state["seconds"])

    # the loop

    def go(self, progress: Progress | None = None) -> bool:
        """Train up to `settings.steps` and save. Returns False if the progress listener stopped the run."""
        progress = progress or Progress()
        self.accelerator.init_trackers(self.task.name)
        try:
            finished = self._made(progress) and self._steps(
                self.task.batches(self.step, self.processes), progress
            )
            self.save()
            self.processes.wait()
        finally:
            for tracker in self.accelerator.trackers:
                tracker.finish()
        return finished

    def close(self) -> None:
        """Leave the process group. With several processes, this one cannot train again afterwards."""
        self.accelerator.end_training()

    def _made(self, progress: Progress) -> bool:
        """Whether the task has all of its data."""
        return not isinstance(self.task, Staged) or self.task.make(self.folder, self.processes, progress)

    def _steps(self, batches: Iterator[list[Batch]], progress: Progress) -> bool:
        bad = 0
        stopped = self.processes.anyone(progress.stopped)
        while self.step < self.settings.steps and not stopped:
            started = time.monotonic()
            losses = self._one_step(next(batches))
            self.seconds += time.monotonic() - started
            bad = 0 if math.isfinite(losses["loss"]) else bad + 1
            if bad > self.patience:
                raise TrainingError(
                    f"the loss was not finite for {bad} steps up to step {self.step}: resume from the last "
                    f"checkpoint in {self.folder} with a smaller learning rate"
                )
            self._notes(losses, saving=bad == 0)
            progress.report(self.step, self.settings.steps, stage="training", losses=losses)
            stopped = self.processes.anyone(progress.stopped)
        return not stopped

    def _one_step(self, parts: Sequence[Batch]) -> dict[str, float]:
        """All updates of a step. After a non-finite one, the rest are skipped."""
        # For layers that draw from the global generators, such as dropout.
        torch.manual_seed(mix(self.settings.seed, self.step, self.processes.index))
        for name, optimiser in self.optimisers.items():
            for group, base in zip(optimiser.param_groups, self._rates[name], strict=True):
                group["lr"] = base * rate(self.step, self.settings)
        for network in self.networks.values():
            network.train()
        updates = [self.task.updates(self.networks, batch, self.state) for batch in parts]
        losses = {"loss": 0.0}
        while math.isfinite(losses["loss"]) and (found := self._update(updates)):
            losses = {**losses, **found, "loss": losses["loss"] + found["loss"]}
        if math.isfinite(losses["loss"]):
            self.processes.average_buffers(self.networks.values())
            for name, average in self.averages.items():
                average.update_parameters(self.networks[name])
        self.step += 1
        return losses

    def _update(self, updates: Sequence[Iterator[Update]]) -> dict[str, float]:
        """One update over all parts of the batch. Returns the losses by name; empty if no update is left."""
        # Batch norm updates its running statistics in the forward pass, even with non-finite values.
        buffers = [buffer for network in self.networks.values() for buffer in network.buffers()]
        before = [buffer.clone() for buffer in buffers]
        names, sums = tuple[str, ...](), dict[str, Tensor]()
        for part in updates:
            with self.accelerator.autocast():
                update = next(part, None)
                if update is None:
                    return {}
                loss = _total(update.terms) / len(updates)
            if not names:
                names = (update.optimiser,) if isinstance(update.optimiser, str) else update.optimiser
                weights = [weight for name in names for weight in self._weights(name)]
                for name in names:
                    self.optimisers[name].zero_grad(set_to_none=True)
            # Only these optimisers' weights get gradients: a generator's update does not touch the critic.
            loss.backward(inputs=weights)  # type: ignore[no-untyped-call]
            for key, term in {"loss": loss * len(updates), **update.terms}.items():
                sums[key] = sums.get(key, 0) + term.detach().float() / len(updates)
        self.processes.average_gradients(weights)
        norm = torch.nn.utils.clip_grad_norm_(weights, self.settings.clip)
        found = self._agreed("+".join(names), sums, norm)
        # Skip an update with a non-finite gradient, which would destroy the weights.
        if math.isfinite(found["loss"]):
            for name in names:
                self.optimisers[name].step()
        else:
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)
        return found

    def _weights(self, optimiser: str) -> list[nn.Parameter]:
        if optimiser not in self.optimisers:
            raise TrainingError(
                f"{self.task.name} uses an optimiser '{optimiser}' that it does not define: "
                f"it defines {', '.join(self.optimisers)}"
            )
        groups = self.optimisers[optimiser].param_groups
        return [weight for group in groups for weight in group["params"] if weight.requires_grad]

    def _agreed(self, optimiser: str, sums: Mapping[str, Tensor], norm: Tensor) -> dict[str, float]:
        """The means over all processes, with the gradient norm. `loss` is NaN if either is not finite."""
        mean = self.processes.mean(torch.stack([*sums.values(), norm.detach().float()])).tolist()
        found = dict(zip([*sums, "gradient"], mean, strict=True))
        if not (math.isfinite(found["loss"]) and math.isfinite(found["gradient"])):
            found["loss"] = math.nan
        if len(self.optimisers) == 1:
            return found
        return {(key if key == "loss" else f"{optimiser}.{key}"): value for key, value in found.items()}

    # logs, previews and exports

    def _notes(self, losses: Mapping[str, float], *, saving: bool) -> None:
        """Log, evaluate and save if due at this step."""
        due = self.step % self.settings.evaluate_every == 0 or self.step == self.settings.steps
        if due:
            losses = {**losses, **self.judge()}
            self.preview()
        if due or self.step % 20 == 0:
            self.log(losses)
        if saving and self.step % self.settings.save_every == 0:
            self.save()

    def judge(self) -> dict[str, float]:
        """Evaluate the averaged networks with the task's own scores."""
        return self.task.evaluate(self.judged)

    def preview(self) -> None:
        """Write a preview sheet with the averaged networks, if the task supports it."""
        if self.processes.main and isinstance(self.task, Previewing):
            self.task.preview(self.judged, self.folder / f"sheet-{self.step:07d}.jpg")

    def log(self, values: Mapping[str, float]) -> None:
        """Write the values to log.jsonl and to TensorBoard."""
        self.accelerator.log(dict(values), step=self.step)
        if self.processes.main:
            line = {
                "step": self.step,
                "seconds": round(self.seconds, 1),
                **{k: round(v, 5) for k, v in values.items()},
            }
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def export(self, path: Path) -> None:
        """Write the averaged networks in the format that the package loads, with facts about the run."""
        if not self.processes.main:
            return
        facts = {"settings": self.settings.model_dump(), "step": self.step, "seconds": round(self.seconds)}
        self.task.export(self.judged, path, facts)


def portable(value: Any) -> Any:
    """The facts without local folder names: paths are reduced to their last component."""
    if isinstance(value, Mapping):
        return {name: portable(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(one) for one in value]
    return Path(value).name if isinstance(value, str) and "/" in value else value


# Raised by safetensors and torch for damaged checkpoints, other files, and checkpoints of other networks.
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
    SafetensorError,
)


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the run's folder {folder} cannot be created ({error.strerror}): choose another location"
        ) from error


def _accelerator(settings: Settings, folder: Path) -> Any:
    from importlib.util import find_spec

    from atelier.core.privacy import keep_private

    keep_private()
    from accelerate import Accelerator

    return Accelerator(
        mixed_precision="bf16" if settings.half else "no",
        cpu=settings.device == "cpu",
        log_with=["tensorboard"] if find_spec("tensorboard") else [],
        project_dir=folder,
    )


def _check_parts(settings: Settings, processes: int) -> None:
    if settings.batch % (parts := processes * settings.accumulate):
        raise TrainingError(
            f"batch = {settings.batch} cannot be split evenly into {processes} processes x "
            f"{settings.accumulate} accumulation steps: choose a multiple of {parts}"
        )


def _average(old: Sequence[Tensor], new: Sequence[Tensor], count: int, decay: float) -> None:
    """Exponential moving average, in place. The decay starts small, so the first weights are forgotten."""
    torch._foreach_lerp_(list(old), list(new), 1 - min(decay, (1 + count) / (10 + count)))


def _match_layout(optimiser: torch.optim.Optimizer) -> None:
    """Give the optimiser's tensors the memory layout of their weights: others can round differently."""
    for weight, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _total(terms: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([term.float() for term in terms.values()]).sum()


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
