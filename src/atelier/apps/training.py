"""A training run at the terminal: progress with the time left, Ctrl-C that keeps a checkpoint."""

from __future__ import annotations

from pathlib import Path

from atelier.apps.show import Watch, say, watching
from atelier.core.errors import ResourceError, TrainingError
from atelier.core.progress import Progress


def accelerated() -> None:
    """Raises ResourceError where training is not installed: it is asked for before the data is read."""
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise ResourceError("training needs Accelerate: pip install 'atelier[train]'") from None


def run(task: object, settings: object, folder: Path, *, fresh: bool, threads: int | None) -> Watch:
    """Train `task` in `folder`, resuming what is there, and write `NAME.safetensors` when it is finished."""
    import torch

    from atelier.training.loop import Run

    if threads:
        torch.set_num_threads(threads)
    training = Run(task, settings, folder)  # type: ignore[arg-type]
    if fresh and training.checkpoints():
        raise TrainingError(
            f"{folder} holds checkpoints: choose another --out, or leave out --fresh to go on with them"
        )
    if training.resume():
        say(f"going on from step {training.step}")
    with watching() as watch:
        finished = training.go(Progress(watch))
    if not finished:
        say(f"stopped at step {training.step}: the same command goes on from there")
        return watch
    path = folder / f"{training.task.name}.safetensors"
    training.export(path)
    say(f"{path}  {training.step} steps")
    return watch
