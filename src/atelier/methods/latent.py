"""What the methods on Stable Diffusion share: their knobs, and the pipeline that these name.

The pipeline is loaded once a process for a device and a precision, after its memory plan was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from atelier.core import extras
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.store import weights
from atelier.store.models import MODELS

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.core.progress import Progress
    from atelier.maths.ddim import Step
    from atelier.methods.base import Context
    from atelier.pipelines.stable_diffusion import StableDiffusion
    from atelier.pipelines.stable_diffusion_layout import Parts
    from atelier.pipelines.stable_diffusion_memory import MemoryPlan

#: What the methods declare as their extra and packages.
EXTRA, PACKAGES = "diffusion", ("diffusers", "transformers")

#: The steps of the training of Stable Diffusion.
_TRAINED = 1000

_Saving = Literal["auto", "on", "off"]

#: Pipelines in use. They may be too large for the cache, and painters of several styles share one.
_ALIVE: WeakValueDictionary[Any, StableDiffusion] = WeakValueDictionary()


class PipelineKnobs(AnyKnobs):
    """The pipeline, its precision, and how it saves memory."""

    pipeline: str = knob(
        "stable_diffusion.v1_5",
        "Stable Diffusion 1.x: a name from 'atelier weights list', a folder of diffusers, or a single file.",
        file="weights",
    )
    half: bool = knob(True, "Use half precision if the device supports it natively.")
    tiles: _Saving = knob(
        "auto", "Run the VAE in tiles of 512 px: as the memory plan needs it, always, or never."
    )
    slices: _Saving = knob("auto", "Compute the heads of attention one by one, to save memory.")
    offload: _Saving = knob(
        "auto", "Keep networks in main memory and move each to the device when it computes."
    )


class Room:
    """The pipeline of some knobs: planned for a size of picture, then loaded.

    `change` changes its parts, for instance their tensors; `mark` tells such pipelines apart. Missing and
    wrong weights fail at once, before any work.
    """

    def __init__(
        self,
        knobs: PipelineKnobs,
        context: Context,
        *,
        change: Callable[[Parts], Parts] | None = None,
        mark: str = "",
    ) -> None:
        require()
        self.knobs, self.device = knobs, context.device
        self.dtype = _precision(context) if knobs.half else torch.float32
        self.fingerprint = weights.fingerprint(knobs.pipeline) + mark
        self._change = change
        self.parts = self._found()
        self._held: tuple[Any, StableDiffusion] | None = None

    def planned(self, size: tuple[int, int], *, batch: int = 1, kept: Sequence[int] = (0,)) -> MemoryPlan:
        """The memory plan for pictures of `size`, (height, width). Raises ResourceError if none fits."""
        from atelier.pipelines import stable_diffusion_memory as memory

        savings = memory.Savings(self.knobs.tiles, self.knobs.slices, self.knobs.offload)
        loaded = self._held is not None
        return memory.plan(
            self.parts, size, self.device, self.dtype, batch=batch, kept=kept, savings=savings, loaded=loaded
        )

    def loaded(self, plan: MemoryPlan) -> StableDiffusion:
        """The pipeline, with the ways of `plan` to save memory."""
        options = (plan.offload, plan.slices)
        if self._held is None or self._held[0] != options:
            key = ("pipeline", self.knobs.pipeline, self.fingerprint, self.device, self.dtype, *options)
            found = _ALIVE.get(key) or MODELS.get(key, lambda: self._load(*options))
            _ALIVE[key] = found
            self._held = options, found
            self.parts = self.parts.settled()
        return replace(self._held[1], plan=plan)

    def _load(self, offload: bool, slices: bool) -> StableDiffusion:
        from atelier.pipelines import stable_diffusion

        parts = self._found() if self.parts.empty else self.parts
        name = self.knobs.pipeline
        return stable_diffusion.load(
            parts, self.device, self.dtype, name=name, offload=offload, slices=slices
        )

    def _found(self) -> Parts:
        from atelier.pipelines import stable_diffusion_layout

        found = stable_diffusion_layout.find(self.knobs.pipeline)
        return found if self._change is None else self._change(found)


def require() -> None:
    """Raise ResourceError, with the command that installs them, where packages are missing."""
    for package in PACKAGES:
        extras.require(package, EXTRA, "Stable Diffusion")


def _precision(context: Context) -> torch.dtype:
    """Half precision where that is fast: on a GPU float16, whose digits inversions need, over bfloat16."""
    fast = context.dtype != torch.float32
    return torch.float16 if fast and context.device.type == "cuda" else context.dtype


class Steps:
    """Reports the steps of a run, `total` in all; the first event has the memory plan."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total, self.count = progress, total, 0

    def announce(self, plan: MemoryPlan) -> bool:
        """Tell the plan before the work starts; False if it should stop."""
        return self.progress.report(0, self.total, stage="loading", note=str(plan))

    def done(self, stage: str, preview: Callable[[], Tensor] | None = None) -> bool:
        """One more step is done; False if the work should stop."""
        self.count += 1
        return self.progress.report(self.count, self.total, stage=stage, preview=preview)


def sampling_steps(count: int, noise: float = 1.0) -> list[Step]:
    """The steps from a share of the schedule to the picture; `count` for the whole of it."""
    from atelier.maths.ddim import Step

    stride = _TRAINED // count
    times = [1 + index * stride for index in range(count)]
    within = [time for time in times if time <= noise * _TRAINED] or times[:1]
    return [Step(time, time, max(0, time - stride)) for time in reversed(within)]


def start(pipeline: StableDiffusion, photo: Tensor, first: Step, seed: int, *, blank: bool) -> Tensor:
    """The latent of the photo (1, 3, H, W) with noise for the first step, or noise alone."""
    from atelier.maths import diffusion, samplers

    clean = pipeline.encode(photo)
    noise = samplers.seeded(seed)(clean)
    if blank:
        return noise
    return diffusion.noised(pipeline.schedule, clean, torch.tensor([first.at], device=clean.device), noise)
