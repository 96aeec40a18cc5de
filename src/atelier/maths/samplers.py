"""Samplers of diffusion: one generator function each, all with one signature.

Each takes a `Process`, a noisy picture (B, 3, H, W), and the step that it is at, and yields a `State` after
every step, until the picture is clean. The caller can look at every state, and stops by leaving the loop.
`guide` returns a gradient that pulls each step (Dhariwal & Nichol 2021, algorithms 1 and 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from atelier.core import extras
from atelier.maths.diffusion import Prediction, Process, noise_of
from atelier.maths.schedules import at


class State(NamedTuple):
    """The picture after a step back from `step`, and the clean picture that was predicted there."""

    step: int
    picture: Tensor
    x0: Tensor


#: Random numbers of the shape of a tensor.
Noise = Callable[[Tensor], Tensor]


class Guide(Protocol):
    """The direction, (B, 3, H, W), in which to pull a picture at a step of the schedule.

    `prediction` is that of the picture, and carries gradients with respect to it if the picture requires
    them: a guide that differentiates through the network uses it instead of running the network again.
    """

    def __call__(self, picture: Tensor, prediction: Prediction, index: int, /) -> Tensor: ...


class Sampler(Protocol):
    """The signature of all samplers; `start` is the index of the first step, by default the last one."""

    def __call__(
        self,
        process: Process,
        picture: Tensor,
        *,
        noise: Noise,
        start: int | None = None,
        guide: Guide | None = None,
    ) -> Iterator[State]: ...


def drawn_from(generator: torch.Generator) -> Noise:
    """Normal noise from a generator on the CPU, so that every device makes the same picture."""
    return lambda like: torch.randn(like.shape, generator=generator).to(like)


def seeded(seed: int) -> Noise:
    """Normal noise from a generator of its own."""
    return drawn_from(torch.Generator().manual_seed(seed))


def ancestral(
    process: Process,
    picture: Tensor,
    *,
    noise: Noise,
    start: int | None = None,
    guide: Guide | None = None,
) -> Iterator[State]:
    """Draw each step from its distribution (Ho et al. 2020, algorithm 2)."""
    for index in _downward(process, start):
        fresh = noise(picture)
        found, pull = _predicted(process, picture, index, guide)
        mean = found.mean if pull is None else found.mean + found.variance * pull
        picture = mean + torch.exp(0.5 * found.log_variance) * fresh if index > 0 else mean
        yield State(index, picture, found.x0)


def ddim(
    process: Process,
    picture: Tensor,
    *,
    noise: Noise,
    start: int | None = None,
    guide: Guide | None = None,
    eta: float = 0.0,
) -> Iterator[State]:
    """Deterministic steps, or with `eta` 1 as random as `ancestral` (Song et al. 2021, eq. 12)."""
    schedule = process.schedule
    left, before = schedule.alphas_cumprod, schedule.alphas_cumprod_prev
    deviations = eta * np.sqrt((1 - before) / (1 - left)) * np.sqrt(1 - left / before)
    for index in _downward(process, start):
        steps = _steps(picture, index)
        found, pull = _predicted(process, picture, index, guide)
        clean, epsilon = found.x0, noise_of(schedule, picture, found.x0, steps)
        if pull is not None:
            clean, epsilon = _pulled(process, picture, clean, pull, index)
        toward = at(np.sqrt(1 - before - deviations**2), steps, picture)
        picture = at(np.sqrt(before), steps, picture) * clean + toward * epsilon
        if index > 0 and eta:
            picture = picture + at(deviations, steps, picture) * noise(picture)
        yield State(index, picture, clean)


def dpm_solver(
    process: Process,
    picture: Tensor,
    *,
    noise: Noise,
    start: int | None = None,
    guide: Guide | None = None,
) -> Iterator[State]:
    """DPM-Solver++ of second order (Lu et al. 2022, arXiv:2211.01095), by diffusers.

    Its error falls with the square of the number of steps, that of `ddim` in proportion to it. With fewer
    than about 25 even steps, `ddim` is nearer. Raises ResourceError without diffusers.
    """
    diffusers: Any = extras.require("diffusers", "diffusion", "the sampler dpm-solver++")
    schedule, indices = process.schedule, _downward(process, start)
    solver = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=len(schedule),
        trained_betas=schedule.betas,
        prediction_type="sample",
        algorithm_type="dpmsolver++",
        final_sigmas_type="zero",
    )
    solver.set_timesteps(timesteps=list(indices))
    for index in indices:
        found, pull = _predicted(process, picture, index, guide)
        clean = found.x0 if pull is None else _pulled(process, picture, found.x0, pull, index)[0]
        picture = solver.step(clean, index, picture).prev_sample
        yield State(index, picture, clean)


SAMPLERS: Mapping[str, Sampler] = {"ancestral": ancestral, "ddim": ddim, "dpm-solver++": dpm_solver}


def ddim_inversion(process: Process, picture: Tensor, *, start: int = 0, stop: int) -> Iterator[State]:
    """DDIM backwards through steps `start` to `stop` - 1: from a picture to the noise that becomes it."""
    following = process.schedule.alphas_cumprod_next
    for index in range(start, stop):
        steps = _steps(picture, index)
        with torch.no_grad():
            found = process(picture, steps)
        epsilon = noise_of(process.schedule, picture, found.x0, steps)
        picture = at(np.sqrt(following), steps, picture) * found.x0
        picture = picture + at(np.sqrt(1 - following), steps, picture) * epsilon
        yield State(index, picture, found.x0)


def _downward(process: Process, start: int | None) -> range:
    last = len(process.schedule) - 1 if start is None else start
    return range(last, -1, -1)


def _steps(picture: Tensor, index: int) -> Tensor:
    return torch.full((len(picture),), index, device=picture.device)


def _pulled(
    process: Process, picture: Tensor, clean: Tensor, pull: Tensor, index: int
) -> tuple[Tensor, Tensor]:
    """The clean picture and the noise of a guided step, through the score (algorithm 2)."""
    steps, left = _steps(picture, index), process.schedule.alphas_cumprod
    epsilon = noise_of(process.schedule, picture, clean, steps)
    epsilon = epsilon - at(np.sqrt(1 - left), steps, picture) * pull
    scale, share = at(np.sqrt(1 / left), steps, picture), at(np.sqrt(1 / left - 1), steps, picture)
    return scale * picture - share * epsilon, epsilon


def _predicted(
    process: Process, picture: Tensor, index: int, guide: Guide | None
) -> tuple[Prediction, Tensor | None]:
    """The prediction without gradients, and the guide's pull."""
    with torch.set_grad_enabled(guide is not None):
        noisy = picture.detach().requires_grad_(guide is not None)
        found = process(noisy, _steps(picture, index))
        pull = None if guide is None else guide(noisy, found, index).detach()
    return Prediction(*(part.detach() for part in found)), pull
