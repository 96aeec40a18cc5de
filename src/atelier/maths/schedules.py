"""Noise schedules of diffusion: how much of the picture is left after each step of adding noise.

Ho et al. 2020, Denoising Diffusion Probabilistic Models, arXiv:2006.11239 (linear); Nichol & Dhariwal 2021,
arXiv:2102.09672 (cosine, respacing). Step t = 0 has one step of noise. Tables are float64, and become float32
only where a step's value is picked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atelier.core.errors import UsageError, did_you_mean

Table = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Schedule:
    """A schedule of T steps: `betas`, the variance of the noise that each adds, (T,).

    `steps` are the step numbers that the network was trained with, and `trained` is how many there were; both
    differ from the schedule's own after `respaced`.
    """

    betas: Table
    steps: Steps
    trained: int

    @classmethod
    def of(cls, betas: Table) -> Schedule:
        """A schedule that is not respaced."""
        return cls(np.asarray(betas, np.float64), np.arange(len(betas)), len(betas))

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Table:
        """The squared share of the picture that is left after each step: the product of 1 - beta."""
        return np.cumprod(1 - self.betas, dtype=np.float64)

    @cached_property
    def alphas_cumprod_prev(self) -> Table:
        """As `alphas_cumprod`, one step earlier; 1 before the first."""
        return np.append(1.0, self.alphas_cumprod[:-1])

    @cached_property
    def alphas_cumprod_next(self) -> Table:
        """As `alphas_cumprod`, one step later; 0 after the last."""
        return np.append(self.alphas_cumprod[1:], 0.0)

    @cached_property
    def posterior_variance(self) -> Table:
        """The variance of a step back if the clean picture is known (Ho et al. 2020, eq. 7)."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance(self) -> Table:
        """Its logarithm; the first entry, which is 0 before the logarithm, repeats the second."""
        return np.log(np.append(self.posterior_variance[1:2], self.posterior_variance[1:]))

    @cached_property
    def posterior_mean_clean(self) -> Table:
        """The factor of the clean picture in the mean of a step back (eq. 7)."""
        return self.betas * np.sqrt(self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_noisy(self) -> Table:
        """The factor of the noisy picture in the mean of a step back (eq. 7)."""
        return (1 - self.alphas_cumprod_prev) * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod)


def linear(count: int = 1000) -> Schedule:
    """Betas in equal steps from 1e-4 to 0.02 for 1000 steps, scaled for other counts (Ho et al. 2020)."""
    scale = 1000 / count
    return Schedule.of(np.linspace(scale * 1e-4, scale * 0.02, count))


def scaled_linear(count: int = 1000) -> Schedule:
    """Square roots of the betas in equal steps, from 0.00085 to 0.012, as in Stable Diffusion."""
    return Schedule.of(np.linspace(0.00085**0.5, 0.012**0.5, count) ** 2)


def cosine(count: int = 1000) -> Schedule:
    """The share of the picture falls as a squared cosine (Nichol & Dhariwal 2021, eq. 17)."""

    def left(part: float) -> float:
        return math.cos((part + 0.008) / 1.008 * math.pi / 2) ** 2

    parts = [(index / count, (index + 1) / count) for index in range(count)]
    return Schedule.of(np.array([min(1 - left(end) / left(start), 0.999) for start, end in parts]))


SCHEDULES: Mapping[str, Callable[[int], Schedule]] = {
    "linear": linear,
    "scaled-linear": scaled_linear,
    "cosine": cosine,
}


def named(name: str, count: int = 1000) -> Schedule:
    """The schedule called `name`. Raises UsageError for an unknown name.

    >>> round(float(named("linear").alphas_cumprod[499]), 3)
    0.079
    """
    if name not in SCHEDULES:
        raise UsageError(f"there is no schedule '{name}': {did_you_mean(name, SCHEDULES)}")
    return SCHEDULES[name](count)


def respaced(schedule: Schedule, spacing: str) -> Schedule:
    """A schedule of fewer steps, with the same amount of noise at each step that is kept.

    `spacing` is a number of steps ("25"), numbers for equal sections of the schedule ("10,10"), or a number
    in even strides ("ddim25"). Raises UsageError if the schedule cannot be divided in this way.

    >>> respaced(linear(), "ddim4").steps.tolist()
    [0, 250, 500, 750]
    """
    kept = _kept(len(schedule), spacing)
    left = schedule.alphas_cumprod[kept]
    betas = 1 - left / np.append(1.0, left[:-1])
    return Schedule(betas, schedule.steps[kept], schedule.trained)


def _kept(count: int, spacing: str) -> Steps:
    strided = spacing.startswith("ddim")
    parts = spacing.removeprefix("ddim").split(",")
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in parts]
    if min(numbers) < 1 or sum(numbers) > count or (strided and len(numbers) > 1):
        raise UsageError(
            f"'{spacing}' is no spacing of {count} steps: use a number of steps (25), numbers for equal "
            "sections (10,10), or even strides (ddim25)"
        )
    return _strides(count, numbers[0]) if strided else _sections(count, numbers)


def _strides(count: int, wanted: int) -> Steps:
    for stride in range(1, count + 1):
        if math.ceil(count / stride) == wanted:
            return np.arange(0, count, stride)
    raise UsageError(f"no even stride through {count} steps gives {wanted} steps: use another number")


def _sections(count: int, numbers: list[int]) -> Steps:
    size, longer = divmod(count, len(numbers))
    kept, start = list[int](), 0
    for index, number in enumerate(numbers):
        length = size + (index < longer)
        if number > length:
            raise UsageError(f"a section of {length} steps cannot be divided into {number}")
        stride = 1.0 if number == 1 else (length - 1) / (number - 1)
        # Added up in floating point and rounded half to even, as in the official code.
        place = 0.0
        for _ in range(number):
            kept.append(start + round(place))
            place += stride
        start += length
    return np.array(kept)


def at(table: Table, index: Tensor, like: Tensor) -> Tensor:
    """The values (B, 1, 1, 1) of a table at steps (B,), float32 on the device of `like`."""
    picked = torch.from_numpy(table[index.cpu().numpy()]).float().to(like.device)
    return picked.view(-1, *[1] * (like.ndim - 1))
