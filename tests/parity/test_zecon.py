"""ZeCon: every term, a whole guided run, and the guidance by a style picture give the recorded numbers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.features.clip import normalised
from atelier.features.vgg import VGG, from_official, recognise
from atelier.losses import diffusion_guidance
from atelier.losses.directions import cosine, directional, spherical
from atelier.losses.patch_contrast import layers_contrast, patch_contrast
from atelier.maths import samplers, schedules
from atelier.maths.diffusion import Prediction, noised
from atelier.methods.diffusion import zecon
from atelier.methods.diffusion.model import Denoiser, NetworkSettings
from atelier.networks.unet import UNet, UNetPlan, from_state, plan_of

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "zecon" / "layout.json").read_text())
CASE = np.load(HERE / "zecon" / "case.npz")
PLAN = UNetPlan(32, (1, 1, 2, 2), blocks=2, attention=(4, 8), head=32, out=6)
WEIGHTS = LAYOUT["fixture_hyperparameters"]
BLOCKS = (0, 2, 5, 8, 11)
COUNT = WEIGHTS["n_patch"]


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Tensor | np.ndarray | float) -> None:
    value = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    fill.check(CASE, LAYOUT, name, value)


def filled(model: str) -> dict[str, Tensor]:
    found = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(found) == LAYOUT["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(value) for name, value in found.items()}


class StubTower:
    """The stand-in for CLIP: means of squares of 8 x 8 pixels, and one linear layer."""

    side = 224

    def __init__(self) -> None:
        self.weight = filled("stub_clip")["stub_clip.weight"]

    def image(self, pictures: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(normalised(pictures), 8)
        return small.flatten(1) @ self.weight.mT


class FixedViews(diffusion_guidance.Views):
    """Patches at recorded places, and no augmentation."""

    def __init__(self, given: Sequence[Any]) -> None:
        super().__init__(StubTower(), torch.Generator(), count=COUNT, area=(1, 1), chance=0)
        self.given = iter(given)

    def boxes(self, count: int, size: tuple[int, int]) -> Sequence[Sequence[int]]:
        found: list[list[int]] = next(self.given).tolist()
        assert len(found) == count
        return found


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    network: UNet = from_state(filled("unet_small"), PLAN).eval().requires_grad_(False)
    return Denoiser(network, NetworkSettings(target="eps", learned=True))


@pytest.fixture(scope="module")
def vgg() -> VGG:
    """The recorded layers, up to relu5_1; those after it are not used and stay zero."""
    state = filled("vgg19")
    for layer in (30, 32, 34):
        state[f"features.{layer}.weight"] = torch.zeros(512, 512, 3, 3)
        state[f"features.{layer}.bias"] = torch.zeros(512)
    return from_official(recognise(state), state, padding="zeros")


def test_the_face_models_layout_is_recognised() -> None:
    layout = LAYOUT["models"]["unet_ffhq"]["official_layout"]
    state = {name: torch.empty(entry["shape"], device="meta") for name, entry in layout.items()}
    assert plan_of(state) == UNetPlan(128, (1, 1, 2, 2, 4, 4), blocks=1, attention=(16,), out=6)
    with torch.device("meta"):
        mine = UNet(plan_of(state)).state_dict()
    assert {name: tensor.shape for name, tensor in mine.items()} == {
        name: tensor.shape for name, tensor in state.items()
    }


# terms


@pytest.mark.parametrize("name", ["nce0", "nce1"])
def test_patch_contrast(name: str) -> None:
    queries = array(f"{name}.feat_q").requires_grad_()
    found = patch_contrast(queries, array(f"{name}.feat_k"), array(f"{name}.patch_ids"))
    check(f"{name}.loss_per_patch", found)
    check(f"{name}.loss", found.mean())
    (gradient,) = torch.autograd.grad(found.mean(), queries)
    check(f"{name}.grad_feat_q", gradient)
    check(f"{name}.grad_norm", gradient.norm())


def test_contrast_of_the_networks_features(denoiser: Denoiser) -> None:
    maps = partial(zecon.network_maps, denoiser, BLOCKS)
    picture = array("zecon.x_in").requires_grad_()
    keys = maps(array("zecon.y_in"))
    for block, key in zip(BLOCKS, keys, strict=True):
        check(f"zecon.feat_y.block{block}", key)
    places = [array(f"zecon.patch_ids.block{block}") for block in BLOCKS]
    loss = layers_contrast(maps(picture), keys, places)
    check("zecon.loss", loss)
    (gradient,) = torch.autograd.grad(loss, picture)
    check("zecon.grad_x_in", gradient)
    check("zecon.grad_norm", gradient.norm())
    check("mse.loss_zecon_images", (array("zecon.x_in") - array("zecon.y_in")).square().mean())


def test_similarities() -> None:
    pictures, target = array("clip.image_x"), array("clip.text_target")
    check("clip.global_spherical", spherical(pictures, target))
    check("clip.global_cosine", cosine(pictures, target))
    wanted = target - array("clip.text_source")
    check("clip.directional", directional(pictures, array("clip.image_y"), wanted))


def test_values_outside_the_range() -> None:
    picture = array("range.x")
    check("range.loss", (picture - picture.clamp(-1, 1)).square().mean((1, 2, 3)))


@pytest.mark.parametrize("steps", [25, 50, 100, 250])
def test_the_guidance_sees_its_own_step(steps: int) -> None:
    """The published code finds the index from the original step; here the index itself is passed."""
    schedule = schedules.respaced(schedules.linear(), str(steps))
    check(f"unscale.{steps}", np.floor(schedule.steps.astype(np.float32) * steps / 1000).astype(np.int64))
    assert CASE[f"unscale.{steps}"].tolist() == list(range(steps))


# a whole run


def test_a_guided_run(denoiser: Denoiser, vgg: VGG) -> None:
    schedule = schedules.respaced(schedules.linear(), WEIGHTS["timestep_respacing"])
    first = len(schedule) - WEIGHTS["skip_timesteps"] - 1
    content, process = array("run.init_image"), denoiser.process(schedule, clip=False)
    *_, inverted = samplers.ddim_inversion(process, content, stop=first + 1)
    check("run.ddim_inverted_latent", inverted.picture)
    check("run.t_seen_by_guidance", schedule.steps[first::-1].astype(np.float32))

    fresh = iter(array("run.noise").flatten(0, 1))
    chosen = iter([array(f"run.patch_ids.block{block}")[step] for step in range(3) for block in BLOCKS])
    guidance = guide_of_the_run(denoiser, vgg, schedule, content, lambda _: next(fresh), chosen)
    order = {name: row for row, name in enumerate(guidance.terms)} | {"range": 7}
    seen: list[tuple[Tensor, Tensor]] = []

    def watched(picture: Tensor, prediction: Prediction, index: int) -> Tensor:
        seen.append((picture.detach(), guidance(picture, prediction, index)))
        values = np.zeros(8, np.float32)
        for name, value in guidance.values.items():
            values[order[name]] = value
        check(f"run.terms.step{len(seen) - 1}", values)
        return seen[-1][1]

    start = noised(schedule, content, torch.tensor([first]), inverted.picture)
    states = samplers.ancestral(process, start, noise=lambda _: next(fresh), start=first, guide=watched)
    for number, state in enumerate(states):
        check(f"run.x_t.step{number}", seen[-1][0])
        check(f"run.guidance.step{number}", seen[-1][1])
        check(f"run.sample.step{number}", state.picture)
    check("run.pred_xstart.last", state.x0)
    assert next(fresh, None) is None


def guide_of_the_run(
    denoiser: Denoiser,
    vgg: VGG,
    schedule: schedules.Schedule,
    content: Tensor,
    noise: samplers.Noise,
    chosen: Any,
) -> diffusion_guidance.Guidance:
    """The terms of the published editor with the recorded random numbers."""
    target, source = array("run.text_target"), array("run.text_source")
    views = FixedViews(array("run.boxes").flatten(0, 1))
    maps = partial(zecon.network_maps, denoiser, BLOCKS)
    taps = partial(zecon.encoder_maps, vgg, relative=False)
    terms = {
        "text": (WEIGHTS["l_clip_global"], diffusion_guidance.similarity(views.copies, target, COUNT)),
        "text patches": (
            WEIGHTS["l_clip_global_patch"],
            diffusion_guidance.similarity(views.patches, target, COUNT),
        ),
        "direction": (WEIGHTS["l_clip_dir"], diffusion_guidance.direction(views, target - source)),
        "patch direction": (
            WEIGHTS["l_clip_dir_patch"],
            diffusion_guidance.patch_direction(views, target - source),
        ),
        "contrast": (WEIGHTS["l_zecon"], diffusion_guidance.contrast(maps, lambda *_: next(chosen))),
        "pixels": (WEIGHTS["l_mse"], diffusion_guidance.squared_difference(lambda picture: [picture])),
        "content": (WEIGHTS["l_vgg"], diffusion_guidance.squared_difference(taps)),
    }
    return diffusion_guidance.Guidance(schedule, content, terms, noise, WEIGHTS["range_lambda"])


def test_guidance_by_a_style_picture(vgg: VGG) -> None:
    views = FixedViews([array("style.boxes")])
    style, picture = array("style.image"), array("style.x_in").requires_grad_()
    target = views.whole(style)
    (encodings,) = views.patches(picture)
    similarity = spherical(encodings, target).mean()
    check("style.c_score", similarity)
    layers = torch.stack([loss((picture + 1) / 2) for loss in _layers(vgg, (style + 1) / 2)])
    check("style.g_score_per_layer", layers)
    gram = zecon.gram_loss(vgg, (style + 1) / 2, relative=False)(picture)
    assert gram.item() == pytest.approx(layers.sum().item(), rel=1e-5)
    total = 100.0 * similarity + 200_000.0 * gram
    check("style.total", total)
    (gradient,) = torch.autograd.grad(total, picture)
    check("style.grad_x_in", gradient)
    check("style.grad_norm", gradient.norm())


def _layers(vgg: VGG, style: Tensor) -> list[Any]:
    from atelier.losses import GramLoss

    taps = [f"relu{stage}_1" for stage in range(1, 6)]
    losses = {tap: GramLoss(found) for tap, found in vgg(style, taps).items()}
    return [lambda picture, tap=tap: losses[tap](vgg(picture, [tap])[tap]) for tap in taps]
