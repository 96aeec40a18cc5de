"""Losses of diffusion: the error of a prediction, and the variational bound on the likelihood.

Ho et al. 2020 (arXiv:2006.11239); Nichol & Dhariwal 2021 (arXiv:2102.09672); Hang et al. 2023, min-SNR
(arXiv:2303.09556).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from atelier.maths.diffusion import Prediction, Process, Target, posterior_mean
from atelier.maths.schedules import Schedule, Table, at


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """The mean square error of each picture, (B,)."""
    return (predicted - target).square().flatten(1).mean(1)


def min_snr_weight(schedule: Schedule, target: Target, index: Tensor, most: float) -> Tensor:
    """The weight (B,) of the error at each step: the signal-to-noise ratio limited to `most` (eq. 4).

    The ratio weighs errors of the clean picture, so it is divided by the weight that the target implies.

    >>> from atelier.maths.schedules import linear
    >>> min_snr_weight(linear(), "x0", torch.tensor([0]), most=5.0).tolist()
    [5.0]
    """
    ratio = _ratio(schedule)
    implied = {"x0": np.ones_like(ratio), "eps": ratio, "v": ratio + 1}[target]
    return at(np.minimum(ratio, most) / implied, index, torch.empty(1, device=index.device))


def debiased_weight(schedule: Schedule, target: Target, index: Tensor) -> Tensor:
    """The weight (B,) of the error at each step: one over the root of the signal-to-noise ratio up to 1000.

    Yu et al. 2023 (arXiv:2310.08442); for v, one over the ratio plus 1, as in kohya's sd-scripts.
    """
    ratio = np.minimum(_ratio(schedule), 1000)
    found = 1 / (ratio + 1) if target == "v" else 1 / np.sqrt(ratio)
    return at(found, index, torch.empty(1, device=index.device))


def noise_weight(schedule: Schedule, index: Tensor) -> Tensor:
    """The weight (B,) that gives errors of v the share that errors of the noise have."""
    ratio = np.minimum(_ratio(schedule), 1000)
    return at(ratio / (ratio + 1), index, torch.empty(1, device=index.device))


def _ratio(schedule: Schedule) -> Table:
    """The signal-to-noise ratio at each step."""
    return schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)


def variational_bound(
    process: Process, picture: Tensor, noisy: Tensor, output: Tensor, index: Tensor
) -> Tensor:
    """The term of the variational bound at steps (B,), in bits per dimension, (B,).

    It is a divergence of two Gaussians, and at step 0 the likelihood of the picture in steps of 1/255. It
    trains the learned variance alone: the rest of the output receives no gradient (Nichol & Dhariwal 2021,
    section 3.1). The clean picture is never clipped here.
    """
    output = torch.cat([output[:, :3].detach(), output[:, 3:]], dim=1)
    found = replace(process, clip=False).read(noisy, output, index)
    mean = posterior_mean(process.schedule, picture, noisy, index)
    log_variance = at(process.schedule.posterior_log_variance, index, noisy)
    divergence = _divergence(mean, log_variance, found).flatten(1).mean(1)
    likelihood = _log_likelihood(picture, found).flatten(1).mean(1)
    return torch.where(index == 0, -likelihood, divergence) / math.log(2)


def _divergence(mean: Tensor, log_variance: Tensor, found: Prediction) -> Tensor:
    """The Kullback-Leibler divergence of two Gaussians."""
    spread = log_variance - found.log_variance
    distance = (mean - found.mean).square() * torch.exp(-found.log_variance)
    return 0.5 * (-1 - spread + spread.exp() + distance)


def _log_likelihood(picture: Tensor, found: Prediction) -> Tensor:
    """The log-likelihood of a picture of 8 bits under a Gaussian; the outermost values take the tails."""
    centred, inverse = picture - found.mean, torch.exp(-0.5 * found.log_variance)
    above, below = (_normal_cdf(inverse * (centred + side / 255)) for side in (1, -1))
    inside = torch.where(picture > 0.999, 1 - below, above - below)
    return torch.where(picture < -0.999, above, inside).clamp(min=1e-12).log()


def _normal_cdf(value: Tensor) -> Tensor:
    """The cumulative normal distribution, by the tanh approximation of the official code."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))
