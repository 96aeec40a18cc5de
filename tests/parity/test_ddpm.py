"""The linear schedule, single steps and whole chains give the numbers of the DDPM of Ho et al. (2020)."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.losses.diffusion import squared_error
from atelier.maths import diffusion, samplers, schedules

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "ddpm" / "layout.json").read_text())
CASE = np.load(HERE / "ddpm" / "case.npz")
SCHEDULE = schedules.linear()
TABLES = {
    "betas": SCHEDULE.betas,
    "alphas_cumprod": SCHEDULE.alphas_cumprod,
    "posterior_variance": SCHEDULE.posterior_variance,
    "posterior_log_variance_clipped": SCHEDULE.posterior_log_variance,
    "posterior_mean_coef1": SCHEDULE.posterior_mean_clean,
    "posterior_mean_coef2": SCHEDULE.posterior_mean_noisy,
    "sqrt_recip_alphas_cumprod": np.sqrt(1 / SCHEDULE.alphas_cumprod),
    "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / SCHEDULE.alphas_cumprod - 1),
}


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Tensor | np.ndarray) -> None:
    fill.check(CASE, LAYOUT, name, value if isinstance(value, np.ndarray) else value.numpy())


@pytest.mark.parametrize("name", [name for name in LAYOUT["arrays"] if name.startswith("schedule.")])
def test_schedule(name: str) -> None:
    check(name, TABLES[name.removeprefix("schedule.")])


@pytest.mark.parametrize(
    "name", [name for name in LAYOUT["arrays"] if name.startswith("table.") and name != "table.t"]
)
def test_table(name: str) -> None:
    check(name, TABLES[name.removeprefix("table.")][CASE["table.t"]])


def test_noise_is_added_and_its_prediction_judged() -> None:
    noisy = diffusion.noised(SCHEDULE, array("x_start"), array("t"), array("noise"))
    check("x_t", noisy)
    check("training_loss_per_image", squared_error(array("eps_predicted"), array("noise")))
    mean = diffusion.posterior_mean(SCHEDULE, array("x_start"), noisy, array("t"))
    check("posterior_mean_of_true_x_start", mean)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("clip", [True, False])
def test_one_step(variance: diffusion.Variance, clip: bool) -> None:
    name = "clip" if clip else "noclip"
    process = diffusion.Process(lambda *_: array("eps_predicted"), SCHEDULE, variance=variance, clip=clip)
    found = process(array("x_t"), array("t"))
    check(f"step.pred_xstart.{name}", found.x0)
    fresh = array("z") * (array("t") > 0).view(-1, 1, 1, 1)
    check(f"step.fixed{variance}.{name}", found.mean + torch.exp(0.5 * found.log_variance) * fresh)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_chain_of_a_thousand_steps(variance: diffusion.Variance) -> None:
    def network(picture: Tensor, times: Tensor) -> Tensor:
        left = schedules.at(np.sqrt(1 - SCHEDULE.alphas_cumprod), times, picture)
        return 0.9 * left * picture + 0.1 * torch.sin(3 * picture)

    process = replace(diffusion.Process(network, SCHEDULE), variance=variance)
    fresh = iter(array("chain.z"))
    states = samplers.ancestral(process, array("chain.x_T"), noise=lambda _: next(fresh))
    found = {state.step: state.picture for state in states}
    recorded = [found[step] for step in CASE["chain.recorded_after_t"].tolist()]
    check(f"chain.fixed{variance}", torch.stack(recorded))
