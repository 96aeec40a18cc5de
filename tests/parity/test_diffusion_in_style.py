"""Diffusion in Style: statistics, noise, loss and every sampler give the derived numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.maths import schedules
from atelier.methods.diffusion import diffusion_in_style as method
from atelier.methods.diffusion.diffusion_in_style import Leg, StyleNoise

FOLDER = Path(__file__).parent / "diffusion_in_style"
LAYOUT: dict[str, Any] = json.loads((FOLDER / "layout.json").read_text())
CASE = np.load(FOLDER / "case.npz")
SCALE = LAYOUT["hyperparameters"]["latent_scaling_factor"]


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Any) -> None:
    """The case's tolerance: 1e-5 of the largest value."""
    found, wanted = np.asarray(value), CASE[name]
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max(), name


STYLE = StyleNoise(array("small_mu"), array("small_sigma"))
STEP = Leg(int(CASE["ddim_t"]), max(0, int(CASE["ddim_t_prev"])))


def given(*outputs: Tensor) -> Any:
    """A network whose outputs are these, in turn."""
    queue = iter(outputs)
    return lambda *_: next(queue)


def normal(_: Tensor) -> Tensor:
    return array("stoch_eps")


def test_the_statistics_of_a_style() -> None:
    latents = SCALE * array("vae_latents")
    check("mu", StyleNoise.of(latents).mean)
    check("sigma_unbiased", StyleNoise.of(latents).deviation)
    check("sigma_population", StyleNoise.of(latents, unbiased=False).deviation)


def test_the_forward_process_its_target_and_its_loss() -> None:
    noise = STYLE.drawn(array("train_eps"))
    check("train_noise", noise)
    check("train_target", noise)
    check("train_xt", method.noised(array("train_x0"), noise, array("train_t")))
    check("train_loss", (array("train_pred") - noise).square().mean())


def test_the_start_and_the_steps() -> None:
    check("init_latent", STYLE.drawn(array("init_eps")))
    legs = method.legs(50)
    assert [leg.at for leg in legs] == CASE["ddim_timesteps"].tolist()
    assert legs[-1].to == 0
    check("ddim_final_alpha_bar", schedules.scaled_linear().alphas_cumprod[0])
    twice = [legs[0].at, legs[1].at, *(leg.at for leg in legs[1:])]
    assert twice == CASE["plms_timesteps"].tolist()


def test_a_guided_step_of_ddim() -> None:
    led = method.guided(
        array("ddim_noise_uncond"), array("ddim_noise_cond"), float(CASE["ddim_guidance_scale"])
    )
    check("ddim_noise", led)
    (made,) = method.ddim(array("ddim_x"), [STEP], given(led), STYLE, normal)
    check("ddim_pred_x0", made.clean)
    check("ddim_x_prev", made.latent)


def test_plms() -> None:
    outputs = array("plms_noise")
    walk = method.plms(array("plms_x_first"), method.legs(50), given(*outputs), STYLE, normal)
    check("plms_x", torch.stack([next(walk).latent for _ in outputs]))


@pytest.mark.parametrize(("name", "eta"), [("eta05", 0.5), ("eta10", 1.0)])
def test_ddim_that_draws_noise(name: str, eta: float) -> None:
    walk = method.ddim(array("stoch_x"), [STEP], given(array("stoch_noise")), STYLE, normal, eta)
    check(f"stoch_x_prev_{name}", next(walk).latent)


def test_a_step_of_the_ancestral_sampler() -> None:
    time = int(CASE["ancestral_t"])
    walk = method.ancestral(
        array("stoch_x"), [Leg(time, time - 1)], given(array("stoch_noise")), STYLE, normal
    )
    check("ancestral_x_prev", next(walk).latent)


def test_the_published_numbers_of_the_training() -> None:
    published = LAYOUT["hyperparameters"]
    fields = method.DiffusionInStyle.Training.model_fields
    assert fields["steps"].default == published["fine_tuning_iterations"]
    assert fields["crop"].default == 8 * published["latent_shape"][1]
