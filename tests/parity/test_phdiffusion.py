"""PHDiffusion: encoder, fusion, injection, sampling and every loss give the published program's numbers."""

from __future__ import annotations

import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

from atelier.core.errors import WeightsError  # noqa: E402
from atelier.features import vgg  # noqa: E402
from atelier.maths import diffusion, schedules  # noqa: E402
from atelier.methods.diffusion import phdiffusion as method  # noqa: E402
from atelier.methods.diffusion import phdiffusion_losses as losses  # noqa: E402
from atelier.pipelines import phdiffusion as networks  # noqa: E402
from atelier.pipelines import stable_diffusion_layout as layout  # noqa: E402
from atelier.pipelines.phdiffusion import Injection, PhDiffusion  # noqa: E402
from atelier.pipelines.stable_diffusion import StableDiffusion  # noqa: E402

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "phdiffusion" / "layout.json").read_text())
CASE = np.load(HERE / "phdiffusion" / "case.npz")
WIDTHS = tuple(LAYOUT["fixture_hyperparameters"]["adapter_channels"])
#: The arrays that tests have read or checked.
SEEN: set[str] = set()


def array(name: str) -> Tensor:
    SEEN.add(name)
    return torch.from_numpy(CASE[name])


def picture(name: str) -> Tensor:
    """A picture of the case in -1..1."""
    return array(name).float() / 255 * 2 - 1


def check(name: str, value: Any, slack: float = 1e-5) -> None:
    """The case's tolerance: 1e-5 of the largest value, for losses of the value."""
    SEEN.update(key for key in CASE.files if key.split("__")[0] == name)
    found = fill.compare(CASE, name, value.detach().numpy() if isinstance(value, Tensor) else value)
    assert max(found["rel"], found["stats_rel"]) <= slack, (name, found)


def filled(model: str) -> dict[str, Tensor]:
    found = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    return {name: torch.from_numpy(value) for name, value in found.items()}


def checkpoint() -> dict[str, Tensor]:
    """The published file's tensors, under the names that reading a file gives them."""
    return {f"{part}.{name}": value for part in ("ad", "interact") for name, value in filled(part).items()}


@pytest.fixture(scope="module")
def network() -> PhDiffusion:
    return networks.read(checkpoint(), WIDTHS, "the case")


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusion:
    state = layout.unet_names(filled("unet"))
    unet = layout.empty("unet", layout.unet_settings(state))
    unet.load_state_dict(state, assign=True)
    nothing = SimpleNamespace(config=SimpleNamespace(block_out_channels=(1,) * 4))
    return StableDiffusion(unet.requires_grad_(False), nothing, None, None, torch.device("cpu"))


@pytest.fixture(scope="module")
def encoder() -> vgg.VGG:
    """The VGG of the case; what lies above relu4_1 is not filled, and not used."""
    made = vgg.VGG(vgg.VGG_NORMALISED)
    names = vgg.VGG_NORMALISED.official_names()
    state = made.state_dict() | {names[key]: value for key, value in filled("vgg_normalised").items()}
    made.load_state_dict(state)
    return made


MASK = array("mask_u8").float()


# the networks


def test_the_encoder_with_and_without_residual_blocks(network: PhDiffusion) -> None:
    plain = networks.read(checkpoint(), WIDTHS, "the case", residual=False)
    for name, made in (("adapter", network), ("adapter_nores", plain)):
        for level, features in enumerate(made.encoder(picture("comp_u8"), MASK)):
            check(f"{name}_f{level}", features)


def test_the_fusion_of_both_encoders(network: PhDiffusion) -> None:
    fused = network.fusions[0](array("adapter_f2"), array("def_unet_feature"), MASK)
    check("def_out", fused)


def test_an_object_that_fills_the_map_looks_up_nothing(network: PhDiffusion) -> None:
    """Without a background, what is looked up is zero, and the features have no part in the result."""
    features = array("adapter_f2")
    first, second = (
        network.fusions[0](one, array("def_unet_feature"), torch.ones_like(MASK))
        for one in (features, -features)
    )
    torch.testing.assert_close(first, second)
    assert torch.isfinite(first).all()


def test_the_unet_with_what_is_injected(network: PhDiffusion, pipeline: StableDiffusion) -> None:
    noisy = diffusion.noised(schedules.scaled_linear(), array("x0"), array("t"), array("noise"))
    check("xt", noisy)
    words = array("text_context")
    injection = Injection(pipeline.unet, network)
    injection.see(picture("comp_u8"), MASK)
    found = pipeline.predict(noisy, array("t"), words)
    injection.remove()
    check("eps", found)
    check("loss_ldm", (found - array("noise")).square().mean())
    check("eps_no_adapter", pipeline.predict(noisy, array("t"), words))
    clean = diffusion.clean_of(schedules.scaled_linear(), "eps", noisy, found, array("t"))
    check("pred_x0", clean)


# the losses


@pytest.fixture(scope="module")
def published(encoder: vgg.VGG) -> losses.Losses:
    projection = losses.projection(256)
    projection.load_state_dict(filled("projection_style"))
    return losses.Losses(encoder, projection, "published")


def places() -> Tensor:
    """Draws that give the crops of the case."""
    most = array("contrastive_crop_max").float()
    return (array("contrastive_crop").float() + 0.5) / (most + 1)


def test_the_losses(published: losses.Losses) -> None:
    made, painting, composite = (
        published.features(picture(name)) for name in ("pred_image_u8", "style_u8", "comp_u8")
    )
    check("vgg_relu3_1_pred", made["relu3_1"][:1])
    for tap in losses.STYLE:
        mean, deviation = losses.moments(made[tap], losses.nearest(MASK, made[tap]))
        check(f"fg_mean_{tap}", mean)
        check(f"fg_std_{tap}", deviation)
    negatives = published.features(picture("negative_styles_u8").flatten(0, 1))["relu3_1"]
    draws = places()
    terms = {
        "content": losses.content(made, composite),
        "adain": losses.style(made, painting, MASK),
        "contrastive": published.contrast(
            made["relu3_1"], painting["relu3_1"], negatives.unflatten(0, (2, 3)), MASK, draws
        ),
    }
    for name, value in terms.items():
        check(f"loss_{name}", value)
    share = method.Phdiffusion.Training()
    total = (
        share.noise_weight * array("loss_ldm")
        + share.style_weight * terms["adain"]
        + share.contrast_weight * terms["contrastive"]
        + share.content_weight * terms["content"]
    )
    check("loss_total", total)


def test_the_boxes_and_places_of_the_contrast(published: losses.Losses) -> None:
    boxes, most = array("contrastive_box"), array("contrastive_crop_max")
    mask = losses.nearest(MASK, torch.empty(1, 1, 32, 32))
    for row in range(2):
        box = losses.Box.of(mask[row, 0])
        assert box is not None
        assert list(box) == boxes[row].tolist()
        assert published.most(box.swapped(), (32, 32)) == tuple(most[row].tolist())
        place = published.place(box.swapped(), (32, 32), places()[row].tolist())
        assert [place.left, place.top] == array("contrastive_crop")[row].tolist()


# the sampling


def test_the_steps_of_the_sampler() -> None:
    steps = method.calls(50, 0.7, "published")
    check("sample_timesteps", np.array([one.time for one in steps]))
    # From the third call on, the program moves from one step below the step that the latent has reached.
    assert steps[1].to - steps[2].at == 20
    mended = method.calls(50, 0.7)
    assert [one.time for one in mended[:4]] == [701, 681, 681, 661]
    assert all(before.to == after.at for before, after in pairwise(mended[1:]))
    assert method.calls(50, 1.0) == method.calls(50, 1.0, "published")


def test_the_sampling_with_the_background_held() -> None:
    """With the network's outputs of the case."""
    noise, outputs = iter(array("sample_noise")), iter(array("sample_eps"))
    held = method.Held(array("x0"), MASK, lambda _: next(noise))
    check("mask_latent", held.mask)
    steps = method.calls(50, 0.7, "published")
    walk = method.plms(held.start(steps[0].time), steps, lambda *_: next(outputs), held)
    check("sample_latents", torch.stack([next(walk).latent for _ in array("sample_latents")]))


def test_another_convention_is_far_outside(encoder: vgg.VGG, published: losses.Losses) -> None:
    correct = losses.Losses(encoder, published.projection, "correct")
    made, composite = (correct.features(picture(name)) for name in ("pred_image_u8", "comp_u8"))
    with pytest.raises(AssertionError, match="loss_content"):
        check("loss_content", losses.content(made, composite))


# files


def test_the_published_layout_loads() -> None:
    """Every tensor of the published file has its place in networks for Stable Diffusion 1.x."""
    official = {
        f"{part}.{name}": torch.empty(one["shape"], device="meta")
        for part in ("ad", "interact")
        for name, one in LAYOUT["models"][part]["official_layout"].items()
    }
    state = networks.own_names(official)
    with torch.device("meta"):
        made = PhDiffusion(networks.shape_of(state))
    assert {name: one.shape for name, one in made.state_dict().items()} == {
        name: one.shape for name, one in state.items()
    }
    assert made.shape.channels == (320, 640, 1280, 1280)


def test_a_pickle_of_the_published_kind_is_read(network: PhDiffusion, tmp_path: Path) -> None:
    from atelier.store import weights

    torch.save({part: filled(part) for part in ("ad", "interact")}, tmp_path / "PHDiffusion.pth")
    again = networks.read(weights.load(tmp_path / "PHDiffusion.pth"), WIDTHS, "it")
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in network.state_dict().items())
    with pytest.raises(WeightsError, match="another base model: its levels have 32, 64, 128, 128 channels"):
        networks.read(checkpoint(), (320, 640, 1280, 1280), "it")
    with pytest.raises(WeightsError, match="holds no networks of phdiffusion"):
        networks.read({"a": torch.zeros(1)}, WIDTHS, "it")


def test_every_array_of_the_case_was_used() -> None:
    assert set(CASE.files) <= SEEN
