"""OpenAI's guided diffusion: the UNet, its checkpoints' layouts, schedules, samplers, guidance and losses."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.losses import diffusion as losses
from atelier.maths import diffusion, samplers, schedules
from atelier.maths.diffusion import Process
from atelier.networks.unet import UNet, UNetPlan, from_state, plan_of, time_embedding

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "guided_diffusion" / "layout.json").read_text())
CASE = np.load(HERE / "guided_diffusion" / "case.npz")
PLAN = UNetPlan(32, (1, 2, 2), blocks=2, attention=(2, 4), head=16, out=6)
SPACED = schedules.respaced(schedules.linear(), "5")


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Tensor | np.ndarray) -> None:
    fill.check(CASE, LAYOUT, name, value if isinstance(value, np.ndarray) else value.detach().numpy())


def filled() -> dict[str, Tensor]:
    found = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model="unet_small")
    assert fill.state_dict_sha256(found) == LAYOUT["models"]["unet_small"]["fill_sha256"]
    return {name: torch.from_numpy(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def network() -> UNet:
    return from_state(filled(), PLAN).eval().requires_grad_(False)


@pytest.fixture
def process(network: UNet) -> Process:
    return Process(network, SPACED, variance="learned")


# the network


def test_published_layout_is_recognised_from_names_and_shapes() -> None:
    layout = LAYOUT["models"]["unet_256_uncond"]["official_layout"]
    state = {name: torch.empty(entry["shape"], device="meta") for name, entry in layout.items()}
    plan = plan_of(state)
    assert plan == UNetPlan(256, (1, 1, 2, 2, 4, 4), blocks=2, attention=(8, 16, 32), out=6)
    with torch.device("meta"):
        mine = UNet(plan).state_dict()
    assert {name: tensor.shape for name, tensor in mine.items()} == {
        name: tensor.shape for name, tensor in state.items()
    }
    assert plan_of(filled()) == replace(PLAN, head=64)


def test_class_conditional_layout_is_recognised() -> None:
    extra = LAYOUT["models"]["unet_256_uncond"]["class_conditional_extra_keys"]
    layout = LAYOUT["models"]["unet_256_uncond"]["official_layout"] | extra
    state = {name: torch.empty(entry["shape"], device="meta") for name, entry in layout.items()}
    assert plan_of(state).classes == 1000


def test_embedding() -> None:
    check("embedding.out256", time_embedding(array("embedding.t"), 256))


@pytest.mark.parametrize(("name", "split_first"), [("unet.y", False), ("unet.y_new_attention_order", True)])
def test_output(name: str, split_first: bool) -> None:
    network = from_state(filled(), replace(PLAN, split_first=split_first)).eval()
    with torch.no_grad():
        check(name, network(array("unet.x"), array("unet.t")))


# schedules

TABLES: dict[str, Callable[[schedules.Schedule], np.ndarray]] = {
    "betas": lambda one: one.betas,
    "alphas_cumprod": lambda one: one.alphas_cumprod,
    "sqrt_alphas_cumprod": lambda one: np.sqrt(one.alphas_cumprod),
    "sqrt_one_minus_alphas_cumprod": lambda one: np.sqrt(1 - one.alphas_cumprod),
    "log_one_minus_alphas_cumprod": lambda one: np.log(1 - one.alphas_cumprod),
    "sqrt_recip_alphas_cumprod": lambda one: np.sqrt(1 / one.alphas_cumprod),
    "sqrt_recipm1_alphas_cumprod": lambda one: np.sqrt(1 / one.alphas_cumprod - 1),
    "posterior_variance": lambda one: one.posterior_variance,
    "posterior_log_variance_clipped": lambda one: one.posterior_log_variance,
    "posterior_mean_coef1": lambda one: one.posterior_mean_clean,
    "posterior_mean_coef2": lambda one: one.posterior_mean_noisy,
}


@pytest.mark.parametrize("name", [name for name in LAYOUT["arrays"] if name.startswith("schedule.")])
def test_schedule(name: str) -> None:
    _, schedule, count, table = name.split(".")
    check(name, TABLES[table](schedules.named(schedule, int(count))))


@pytest.mark.parametrize("name", [name for name in LAYOUT["arrays"] if name.startswith("respace.")])
def test_respacing(name: str) -> None:
    _, count, spacing, table = name.split(".")
    spaced = schedules.respaced(schedules.linear(int(count)), spacing)
    check(name, spaced.steps if table == "steps" else spaced.betas)


# single steps: each picture is at a step of its own


def noisy() -> Tensor:
    return diffusion.noised(SPACED, array("x_start"), array("t"), array("noise")[0])


def pull(guide: Tensor, picture: Tensor, _: diffusion.Prediction, index: int) -> Tensor:
    return (guide - picture) * (0.5 + float(SPACED.steps[index]) / 1000)


def single(sampler: Any, process: Process, pictures: Tensor, *, guided: bool = False) -> samplers.State:
    """The first step of a sampler for every picture, with noise 1."""
    found = []
    for row, index in enumerate(array("t").tolist()):
        one = slice(row, row + 1)
        guide = partial(pull, array("guide")[one]) if guided else None
        fresh = array("noise")[1][one]
        steps = sampler(process, pictures[one], noise=lambda _, fresh=fresh: fresh, start=index, guide=guide)
        found.append(next(iter(steps)))
    return samplers.State(0, torch.cat([one.picture for one in found]), torch.cat([one.x0 for one in found]))


def test_noise_is_added() -> None:
    check("q_sample", noisy())


def test_predictions(process: Process) -> None:
    clipped, free = (replace(process, clip=clip)(noisy(), array("t")) for clip in (True, False))
    check("p_mean_variance.clip.mean", clipped.mean)
    check("p_mean_variance.clip.variance", clipped.variance)
    check("p_mean_variance.clip.log_variance", clipped.log_variance)
    check("p_mean_variance.clip.pred_xstart", clipped.x0)
    check("p_mean_variance.noclip.mean", free.mean)
    check("p_mean_variance.noclip.pred_xstart", free.x0)


def test_ancestral_step(process: Process) -> None:
    check("p_sample.plain", single(samplers.ancestral, process, noisy()).picture)
    guided = single(samplers.ancestral, process, noisy(), guided=True)
    check("p_sample.guided", guided.picture)
    check("p_sample.guided.pred_xstart", guided.x0)


def test_ddim_step(process: Process) -> None:
    plain = single(samplers.ddim, process, noisy())
    check("ddim.eta0.0.plain", plain.picture)
    check("ddim.eta0.0.plain.pred_xstart", plain.x0)
    guided = single(samplers.ddim, process, noisy(), guided=True)
    check("ddim.eta0.0.guided", guided.picture)
    check("ddim.eta0.0.guided.pred_xstart", guided.x0)
    random = partial(samplers.ddim, eta=0.6)
    check("ddim.eta0.6.plain", single(random, process, noisy()).picture)
    check("ddim.eta0.6.guided", single(random, process, noisy(), guided=True).picture)


def test_ddim_inversion(process: Process) -> None:
    free, pictures = replace(process, clip=False), noisy()
    found = [
        list(samplers.ddim_inversion(free, pictures[row : row + 1], start=index, stop=index + 1))[-1].picture
        for row, index in enumerate(array("t").tolist())
    ]
    check("ddim_reverse", torch.cat(found))


def test_rescaled_steps(network: UNet) -> None:
    spaced = schedules.respaced(schedules.linear(500), "5")
    process = Process(network, spaced, variance="learned", rescale=True)
    pictures = diffusion.noised(spaced, array("x_start"), array("t"), array("noise")[0])
    check("rescaled500.p_sample", single(samplers.ancestral, process, pictures).picture)


# whole loops


@pytest.mark.parametrize(
    ("name", "sampler", "guided"),
    [
        ("loop.ancestral.plain", samplers.ancestral, False),
        ("loop.ancestral.guided", samplers.ancestral, True),
        ("loop.ddim.plain", samplers.ddim, False),
    ],
)
def test_loop(process: Process, name: str, sampler: samplers.Sampler, guided: bool) -> None:
    fresh = iter(array("noise")[1:])
    guide = partial(pull, array("guide")) if guided else None
    *_, last = sampler(process, array("noise")[0], noise=lambda _: next(fresh), guide=guide)
    check(name, last.picture)


# losses


def terms(process: Process, pictures: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The square error and the variational bound of each picture."""
    noise = array("noise")[0]
    noised = diffusion.noised(process.schedule, pictures, index, noise)
    output = process.network(noised, process.times(index))
    error = losses.squared_error(output[:, :3], noise)
    return error, losses.variational_bound(process, pictures, noised, output, index)


def test_losses(process: Process) -> None:
    error, bound = terms(process, array("x_start"), array("t"))
    check("loss.mse.mse", error)
    check("loss.mse.vb", bound)
    check("loss.mse.loss", error + bound)
    check("loss.rescaled_mse.mse", error)
    check("loss.rescaled_mse.vb", bound * len(SPACED) / 1000)
    check("loss.rescaled_mse.loss", error + bound * len(SPACED) / 1000)
    check("loss.rescaled_kl.loss", bound * len(SPACED))


def test_losses_on_the_cosine_schedule(network: UNet) -> None:
    process = Process(network, schedules.cosine(), variance="learned")
    error, bound = terms(process, array("x_start"), torch.tensor([0, 500, 999]))
    check("loss.cosine1000.mse", error)
    check("loss.cosine1000.vb", bound)
    check("loss.cosine1000.loss", error + bound)
