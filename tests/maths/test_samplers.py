"""Samplers and the arithmetic of diffusion, with networks whose answer is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.maths import diffusion, samplers, schedules
from atelier.maths.diffusion import Process

# diffusers converts tensors in a way that NumPy 2 wants changed.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCHEDULE = schedules.respaced(schedules.linear(), "50")
PICTURE = torch.rand((1, 3, 4, 6), generator=torch.Generator().manual_seed(1)) * 2 - 1


def knows(picture: Tensor) -> Process:
    """A network that always predicts this clean picture."""
    return Process(lambda *_: picture, SCHEDULE, target="x0")


@pytest.mark.parametrize("target", ["eps", "x0", "v"])
def test_every_target_leads_back_to_picture_and_noise(target: diffusion.Target) -> None:
    noise, index = torch.randn_like(PICTURE), torch.tensor([30])
    noisy = diffusion.noised(SCHEDULE, PICTURE, index, noise)
    output = diffusion.target_of(SCHEDULE, target, PICTURE, noise, index)
    found = diffusion.clean_of(SCHEDULE, target, noisy, output, index)
    assert torch.allclose(found, PICTURE, atol=1e-4)
    assert torch.allclose(diffusion.noise_of(SCHEDULE, noisy, PICTURE, index), noise, atol=1e-4)


def test_the_posterior_is_that_of_two_gaussians() -> None:
    """Bayes' rule in float64: the product of the prior one step back and the likelihood of the step."""
    index, left = 30, SCHEDULE.alphas_cumprod
    clean, noisy = 0.3, -0.7
    prior_mean, prior = np.sqrt(left[index - 1]) * clean, 1 - left[index - 1]
    alpha = 1 - SCHEDULE.betas[index]
    precision = 1 / prior + alpha / SCHEDULE.betas[index]
    mean = (prior_mean / prior + np.sqrt(alpha) * noisy / SCHEDULE.betas[index]) / precision
    one = torch.ones(1, 1, 1, 1)
    found = diffusion.posterior_mean(SCHEDULE, clean * one, noisy * one, torch.tensor([index]))
    assert float(found) == pytest.approx(mean, rel=1e-5)
    assert SCHEDULE.posterior_variance[index] == pytest.approx(1 / precision)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS.values(), ids=samplers.SAMPLERS)
def test_a_network_that_knows_the_picture_leads_to_it(sampler: samplers.Sampler) -> None:
    noise = samplers.seeded(0)
    *_, last = sampler(knows(PICTURE), noise(PICTURE), noise=noise)
    assert last.step == 0
    assert torch.allclose(last.picture, PICTURE, atol=1e-5)


def gaussian(spread: float) -> Process:
    """The best denoiser of pictures that are normal noise of this deviation, whatever the noise."""

    def network(noisy: Tensor, times: Tensor) -> Tensor:
        left = schedules.at(whole.alphas_cumprod, times, noisy)
        return left.sqrt() * spread**2 / (left * spread**2 + 1 - left) * noisy

    whole = schedules.linear()
    return Process(network, schedules.respaced(whole, "250"), target="x0", clip=False)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_makes_pictures_of_the_deviation_that_the_network_knows(eta: float) -> None:
    noise = samplers.seeded(0)
    start = noise(torch.empty(1, 3, 64, 64))
    *_, last = samplers.ddim(gaussian(0.5), start, noise=noise, eta=eta)
    assert float(last.picture.std()) == pytest.approx(0.5, rel=0.03)


def test_dpm_solver_is_of_second_order_and_ddim_of_first() -> None:
    """The exact answer for the best denoiser of normal pictures is the start, scaled."""
    whole = schedules.linear()
    half = schedules.Schedule(whole.betas[:500], whole.steps[:500], 1000)
    start = samplers.seeded(0)(torch.empty(1, 3, 32, 32))

    def error(sampler: samplers.Sampler, steps: int) -> float:
        spaced = schedules.respaced(half, str(steps))
        process = Process(gaussian(0.5).network, spaced, target="x0", clip=False)
        left = spaced.alphas_cumprod[-1]
        wanted = start * 0.5 / np.sqrt(left * 0.5**2 + 1 - left)
        *_, last = sampler(process, start, noise=samplers.seeded(1))
        return float((last.picture - wanted).abs().mean())

    assert 1.7 < error(samplers.ddim, 25) / error(samplers.ddim, 50) < 2.3
    assert error(samplers.dpm_solver, 25) / error(samplers.dpm_solver, 50) > 3
    assert error(samplers.dpm_solver, 50) < error(samplers.ddim, 50)


def test_inversion_is_undone_by_ddim() -> None:
    process, noise = gaussian(0.5), samplers.seeded(0)
    *_, noisy = samplers.ddim_inversion(process, PICTURE, stop=200)
    *_, again = samplers.ddim(process, noisy.picture, noise=noise, start=199)
    assert torch.allclose(again.picture, PICTURE, atol=0.03)
    assert not torch.allclose(noisy.picture, PICTURE, atol=0.3)


@pytest.mark.parametrize("sampler", samplers.SAMPLERS.values(), ids=samplers.SAMPLERS)
def test_a_guide_pulls_the_picture(sampler: samplers.Sampler) -> None:
    """Guidance by the gradient of a normal likelihood moves the mean of the pictures towards its centre."""

    def pull(picture: Tensor, prediction: diffusion.Prediction, index: int) -> Tensor:
        error = (prediction.x0 - 0.8).square().sum() / (2 * 0.5**2)
        return -torch.autograd.grad(error, picture)[0]

    noise = samplers.seeded(0)
    start = noise(torch.empty(1, 3, 16, 16))
    means = []
    for guide in (None, pull):
        *_, last = sampler(gaussian(0.5), start, noise=samplers.seeded(1), guide=guide)
        means.append(float(last.picture.mean()))
    assert means[1] > means[0] + 0.2


def test_states_count_down_and_can_be_left_early() -> None:
    noise = samplers.seeded(0)
    states = samplers.ancestral(knows(PICTURE), noise(PICTURE), noise=noise, start=9)
    assert next(iter(states)).step == 9
    assert [state.step for state in samplers.ddim(knows(PICTURE), PICTURE, noise=noise, start=3)] == [
        3,
        2,
        1,
        0,
    ]


def test_seeded_noise_is_the_same_again_and_normal() -> None:
    like = torch.empty(1, 3, 64, 64, dtype=torch.bfloat16)
    first, second = samplers.seeded(7), samplers.seeded(7)
    assert torch.equal(first(like), second(like))
    assert not torch.equal(first(like), samplers.seeded(8)(like))
    assert first(like).dtype == torch.bfloat16
    assert float(first(like).float().std()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_the_learned_variance_lies_between_its_bounds(variance: diffusion.Variance) -> None:
    side = -1.0 if variance == "small" else 1.0
    output = torch.cat([PICTURE, torch.full_like(PICTURE, side)], dim=1)
    index = torch.tensor([30])
    learned = Process(lambda *_: output, SCHEDULE, variance="learned")(PICTURE, index)
    fixed = Process(lambda *_: PICTURE, SCHEDULE, variance=variance)(PICTURE, index)
    assert torch.allclose(learned.log_variance, fixed.log_variance, atol=1e-5)
