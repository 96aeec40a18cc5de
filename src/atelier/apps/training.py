"""A training run at the terminal: progress with the time left, and a checkpoint on Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from atelier.apps.show import Watch, say, watching
from atelier.core.errors import ResourceError, TrainingError
from atelier.core.progress import Progress

if TYPE_CHECKING:
    from atelier.lexicon.word_model import Fitted
    from atelier.training.loop import Run, Task
    from atelier.training.settings import Settings, WordsSettings


def accelerated() -> None:
    """Raises ResourceError where the extra for training is not installed; checked before the data is read."""
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise ResourceError("training needs Accelerate: pip install 'atelier[train]'") from None


def run(task: Task, settings: Settings, folder: Path, *, fresh: bool, threads: int | None) -> Watch:
    """Train `task` in `folder`, resuming what is there, and write `NAME.safetensors` when it is finished.

    With several processes, each calls this, and the main one writes and reports.
    """
    import torch

    from atelier.core import device as devices
    from atelier.training.loop import Planning, Run

    if threads:
        torch.set_num_threads(threads)
    # Before the folder of the run exists: a plan that does not fit leaves nothing behind.
    plan = task.plan(devices.choose(settings.device)) if isinstance(task, Planning) else ""
    training = Run(task, settings, folder)
    if fresh and training.checkpoints():
        raise TrainingError(
            f"{folder} holds checkpoints: choose another --out, or leave out --fresh to continue from them"
        )
    resumed = training.resume()
    if training.processes.main:
        if plan:
            say(plan)
        say(_facts(training))
        if resumed:
            say(f"resuming from step {training.step}")
    with watching(quiet=not training.processes.main) as watch:
        finished = training.go(Progress(watch))
    if finished:
        training.export(folder / f"{training.task.name}.safetensors")
    if training.processes.main:
        say(_end(training, folder, finished))
    training.close()
    return watch


def fit_words(settings: WordsSettings, folder: Path, *, threads: int | None) -> Watch:
    """Measure the paintings, fit the words, and write `words.safetensors` in `folder`."""
    import torch

    from atelier.lexicon.words import WordsRun

    if threads:
        torch.set_num_threads(threads)
    training = WordsRun(settings, folder)
    say(f"words: {len(training.pictures)} pictures, measured with {settings.encoder}")
    with watching() as watch:
        data = training.measured(Progress(watch))
    if data is None:
        say("stopped: run the same command to continue")
        return watch
    fitted = training.fit(data)
    path = folder / "words.safetensors"
    training.write(path, training.state(fitted, data), fitted)
    say(f"{path}  {path.stat().st_size / 1e6:.2f} MB, {_vocabulary(fitted)}")
    return watch


def _vocabulary(fitted: Fitted) -> str:
    """How many words were kept, and which were not."""
    left = ", ".join(f"{word.name} {word.auc:.2f}" for word in fitted.dropped)
    return f"{len(fitted.vocabulary)} words; left out: {left or 'none'}"


def _facts(training: Run) -> str:
    """Networks, memory and data, before the first step."""
    learnt = {
        name: sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
        for name, network in training.networks.items()
    }
    weights = ", ".join(f"{name} {count / 1e6:.2f} M weights" for name, count in learnt.items())
    memory = f"{training.memory() / 2**20:.1f} MiB with gradients, optimiser and averages"
    count = training.processes.count
    where = f"{training.processes.device}{f' in {count} processes' if count > 1 else ''}"
    return f"{training.task.name} on {where}: {weights}, {memory}; {training.task}"


def _end(training: Run, folder: Path, finished: bool) -> str:
    if not finished:
        return f"stopped at step {training.step}: run the same command to continue"
    return f"{folder / training.task.name}.safetensors  {training.step} steps"
