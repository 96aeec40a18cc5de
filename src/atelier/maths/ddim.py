"""DDIM between chosen steps of a schedule, in both directions (Song et al. 2021, arXiv:2010.02502, eq. 12).

The samplers of `maths.samplers` ask the network at the step at which the picture is. Inversions differ in
this: some ask it where the picture is going to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from torch import Tensor

from atelier.maths.diffusion import Target
from atelier.maths.schedules import Schedule

#: Weights of the last noises, the newest first, of the steps of PLMS (Liu et al. 2022, arXiv:2202.09778).
ADAMS = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


class Step(NamedTuple):
    """A step from `at` to `to`, both steps of the schedule; the network is asked at `time`."""

    time: int
    at: int
    to: int


class Moved(NamedTuple):
    """A step that was made: the picture before and after it, and the clean picture that was predicted."""

    step: Step
    before: Tensor
    after: Tensor
    clean: Tensor


def walk(
    picture: Tensor,
    steps: Iterable[Step],
    predict: Callable[[Tensor, int], Tensor],
    *,
    schedule: Schedule,
    target: Target = "eps",
) -> Iterator[Moved]:
    """Move a picture (B, C, H, W) through `steps` without randomness, towards noise or away from it.

    `predict` gives the network's output for a picture and a time. The share of the picture that is left is
    that of the schedule at each step.
    """
    for step in steps:
        left, onward = (float(schedule.alphas_cumprod[index]) for index in (step.at, step.to))
        clean, noise = parted(picture, predict(picture, step.time), left, target)
        moved = onward**0.5 * clean + (1 - onward) ** 0.5 * noise
        yield Moved(step, picture, moved, clean)
        picture = moved


def parted(noisy: Tensor, output: Tensor, left: float, target: Target) -> tuple[Tensor, Tensor]:
    """The clean picture and the noise in a noisy one of which the share `left` is the picture's.

    >>> import torch
    >>> clean, noise = parted(torch.tensor(1.0), torch.tensor(0.5), 0.64, "eps")
    >>> round(float(0.8 * clean + 0.6 * noise), 6)
    1.0
    """
    some, rest = left**0.5, (1 - left) ** 0.5
    if target == "eps":
        return (noisy - rest * output) / some, output
    if target == "x0":
        return output, (noisy - some * output) / rest
    return some * noisy - rest * output, some * output + rest * noisy
