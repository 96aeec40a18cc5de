"""Memory and time of a training, measured on its first steps before it is started."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atelier.core.progress import Event, Progress
from atelier.methods import registry
from atelier.studio.jobs import Job
from atelier.studio.limits import own_folder

if TYPE_CHECKING:
    from atelier.studio.service import Studio

#: The steps that are measured after the first, in which caches fill.
_MEASURED = 2


@dataclass
class Estimate:
    """What a training will take: learnt `weights`, `memory` in MiB, seconds a `step` and on the `whole`."""

    weights: int = 0
    memory: float = 0.0
    step: float = 0.0
    whole: float = 0.0


def measure(studio: Studio, method: str, settings: Mapping[str, Any]) -> tuple[Job, Estimate]:
    """A job that trains for three steps in a folder that is removed, and the estimate that it fills in.

    Raises what `Trainings.start` raises for settings that are not allowed.
    """
    folder = own_folder(studio.folder / "measuring" / f"{time.time_ns()}")
    try:
        parsed = studio.trainings.check(method, settings, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    found = Estimate()

    def work(job: Job) -> None:
        try:
            _tried(job, registry.find(method), parsed, folder, found)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return studio.queue.put(Job("measure", f"{method} measured", work)), found


def _tried(job: Job, kind: Any, settings: Any, folder: Any, found: Estimate) -> None:
    from atelier.bench import memory
    from atelier.training.loop import Run
    from atelier.training.task import MethodTask

    memory.reset_peak()
    before = memory.peak()
    run = Run(MethodTask(kind, settings), settings, folder / "run")
    times: list[float] = []

    def listen(event: Event) -> bool:
        times.append(time.monotonic())
        return job.listen(event) and len(times) <= _MEASURED

    run.go(Progress(listen))
    found.weights = sum(w.numel() for n in run.networks.values() for w in n.parameters() if w.requires_grad)
    found.memory = max(run.memory() / 2**20, memory.peak() - before)
    if len(times) > 1:
        found.step = (times[-1] - times[0]) / (len(times) - 1)
        found.whole = found.step * settings.steps
