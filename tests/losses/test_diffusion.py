"""Losses of diffusion: weights by the signal-to-noise ratio, and the variational bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.losses import diffusion as losses
from atelier.maths import diffusion, schedules
from atelier.maths.diffusion import Process

SCHEDULE = schedules.linear()
PICTURE = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
@pytest.mark.parametrize("step", [5, 400, 900])
def test_weights_make_the_errors_of_all_targets_alike(target: diffusion.Target, step: int) -> None:
    """A weighted error of a target is the error of the clean picture, times the limited ratio."""
    index, noise = torch.tensor([step, step]), torch.randn(PICTURE.shape)
    noisy = diffusion.noised(SCHEDULE, PICTURE, index, noise)
    wanted = diffusion.target_of(SCHEDULE, target, PICTURE, noise, index)
    output = wanted + 0.01 * torch.randn(PICTURE.shape)
    clean = diffusion.clean_of(SCHEDULE, target, noisy, output, index)
    weight = losses.min_snr_weight(SCHEDULE, target, index, 5.0).flatten()
    left = SCHEDULE.alphas_cumprod[step]
    limited = min(left / (1 - left), 5.0)
    found = weight * losses.squared_error(output, wanted)
    assert torch.allclose(found, limited * losses.squared_error(clean, PICTURE), rtol=1e-2)


def bound(step: int, output: Tensor) -> Tensor:
    index = torch.tensor([step, step])
    noise = torch.randn(PICTURE.shape, generator=torch.Generator().manual_seed(2))
    noisy = diffusion.noised(SCHEDULE, PICTURE, index, noise)
    prediction = torch.cat([noise, output], dim=1)
    process = Process(lambda *_: prediction, SCHEDULE, variance="learned")
    return losses.variational_bound(process, PICTURE, noisy, prediction, index)


def test_the_bound_is_zero_for_the_true_posterior() -> None:
    smallest = torch.full(PICTURE.shape, -1.0)
    assert torch.allclose(bound(3, smallest), torch.zeros(2), atol=1e-5)
    assert (bound(3, -smallest) > 1e-3).all()


def test_the_first_step_is_a_likelihood_of_values_of_8_bits() -> None:
    """A Gaussian whose middle is the value itself: the mass of its bin, in bits."""
    deviation = math.exp(0.5 * SCHEDULE.posterior_log_variance[0])
    mass = math.erf(1 / 255 / deviation / math.sqrt(2))
    found = bound(0, torch.full(PICTURE.shape, -1.0))
    # The mean of step 0 is the picture up to rounding; the tanh is an approximation of the normal cdf.
    assert found.tolist() == pytest.approx([-math.log2(mass)] * 2, abs=0.01)


def test_the_bound_trains_the_variance_alone() -> None:
    output = torch.randn((2, 6, 8, 8), requires_grad=True)
    index = torch.tensor([300, 0])
    process = Process(lambda *_: output, SCHEDULE, variance="learned")
    losses.variational_bound(process, PICTURE, torch.randn(PICTURE.shape), output, index).sum().backward()
    assert output.grad is not None
    assert output.grad[:, :3].abs().max() == 0
    assert np.all(output.grad[:, 3:].abs().amax((1, 2, 3)).numpy() > 0)
