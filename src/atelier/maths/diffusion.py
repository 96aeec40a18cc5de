"""The arithmetic of diffusion: add noise to a picture, and read a network's prediction.

Ho et al. 2020 (arXiv:2006.11239); learned variance: Nichol & Dhariwal 2021 (arXiv:2102.09672); v: Salimans &
Ho 2022 (arXiv:2202.00512). Pictures are (B, 3, H, W) in -1..1 before noise is added, steps are (B,), int64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from atelier.maths.schedules import Schedule, at

#: What a network predicts: the noise, the clean picture, or sqrt(a) noise - sqrt(1 - a) picture.
Target = Literal["eps", "x0", "v"]
#: The variance of a step back: that of the posterior, beta, or between the two as the network says.
Variance = Literal["small", "large", "learned"]


class Prediction(NamedTuple):
    """The distribution of the picture one step back, and the clean picture `x0`; all (B, 3, H, W)."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    x0: Tensor


def noised(schedule: Schedule, picture: Tensor, index: Tensor, noise: Tensor) -> Tensor:
    """The picture after step `index` of adding noise (Ho et al. 2020, eq. 4)."""
    left = schedule.alphas_cumprod
    return at(np.sqrt(left), index, picture) * picture + at(np.sqrt(1 - left), index, picture) * noise


def target_of(schedule: Schedule, target: Target, picture: Tensor, noise: Tensor, index: Tensor) -> Tensor:
    """What a network of this kind should predict at step `index`."""
    if target == "eps":
        return noise
    if target == "x0":
        return picture
    left = schedule.alphas_cumprod
    return at(np.sqrt(left), index, picture) * noise - at(np.sqrt(1 - left), index, picture) * picture


def clean_of(schedule: Schedule, target: Target, noisy: Tensor, output: Tensor, index: Tensor) -> Tensor:
    """The clean picture, from the noisy one and the network's output."""
    left = schedule.alphas_cumprod
    if target == "x0":
        return output
    if target == "eps":
        return at(np.sqrt(1 / left), index, noisy) * noisy - at(np.sqrt(1 / left - 1), index, noisy) * output
    return at(np.sqrt(left), index, noisy) * noisy - at(np.sqrt(1 - left), index, noisy) * output


def noise_of(schedule: Schedule, noisy: Tensor, picture: Tensor, index: Tensor) -> Tensor:
    """The noise in a noisy picture whose clean picture is known."""
    left = schedule.alphas_cumprod
    rest = at(np.sqrt(1 / left), index, noisy) * noisy - picture
    return rest / at(np.sqrt(1 / left - 1), index, noisy)


def posterior_mean(schedule: Schedule, picture: Tensor, noisy: Tensor, index: Tensor) -> Tensor:
    """The mean of a step back if the clean picture is known (Ho et al. 2020, eq. 7)."""
    clean, kept = schedule.posterior_mean_clean, schedule.posterior_mean_noisy
    return at(clean, index, noisy) * picture + at(kept, index, noisy) * noisy


@dataclass(frozen=True)
class Process:
    """A network with its schedule and conventions: gives the `Prediction` for noisy pictures.

    `network` takes pictures (B, 3, H, W) and the steps that it was trained with (B,), and returns its
    prediction of `target`, with three more channels if the variance is learned. `clip` limits the clean
    picture to -1..1. `rescale` gives the network steps of 1000, whatever their number in training.
    """

    network: Callable[[Tensor, Tensor], Tensor]
    schedule: Schedule
    target: Target = "eps"
    variance: Variance = "small"
    clip: bool = True
    rescale: bool = False

    def __call__(self, noisy: Tensor, index: Tensor) -> Prediction:
        """The prediction for pictures (B, 3, H, W) at steps (B,) of the schedule."""
        return self.read(noisy, self.network(noisy, self.times(index)), index)

    def times(self, index: Tensor) -> Tensor:
        """The steps (B,) as the network knows them."""
        steps = torch.from_numpy(self.schedule.steps[index.cpu().numpy()]).to(index.device)
        return steps.float() * (1000 / self.schedule.trained) if self.rescale else steps

    def read(self, noisy: Tensor, output: Tensor, index: Tensor) -> Prediction:
        """The prediction in a network's output."""
        output, learned = output[:, :3], output[:, 3:]
        picture = clean_of(self.schedule, self.target, noisy, output, index)
        if self.clip:
            picture = picture.clamp(-1, 1)
        log_variance = self._log_variance(learned, index, noisy)
        mean = posterior_mean(self.schedule, picture, noisy, index)
        return Prediction(mean, log_variance.exp(), log_variance, picture)

    def _log_variance(self, learned: Tensor, index: Tensor, like: Tensor) -> Tensor:
        schedule = self.schedule
        small = at(schedule.posterior_log_variance, index, like)
        if self.variance == "small":
            return small.expand_as(like)
        if self.variance == "large":
            # The first step back has no noise; its entry only matters to likelihoods.
            first = np.exp(schedule.posterior_log_variance[:1])
            return at(np.log(np.append(first, schedule.betas[1:])), index, like).expand_as(like)
        large, share = at(np.log(schedule.betas), index, like), (learned + 1) / 2
        return share * large + (1 - share) * small
