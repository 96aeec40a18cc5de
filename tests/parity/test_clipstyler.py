"""CLIPstyler: its style network, losses, views and first updates give the numbers of the official code."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from atelier.core.knobs import parse
from atelier.core.progress import Event, Progress
from atelier.features import views
from atelier.features.clip import normalised
from atelier.features.vgg import VGG, VGG19, from_official
from atelier.losses import ContentLoss
from atelier.losses.directions import directional, rejected, unit
from atelier.losses.smoothness import NeighbourNorm
from atelier.methods import guided
from atelier.methods.base import Frame, Styles
from atelier.methods.registry import knobs_for
from atelier.methods.text import clipstyler
from atelier.methods.text.clipstyler import Clipstyler
from atelier.networks.clipstyler import StyleUNet

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "clipstyler" / "layout.json").read_text())
CASE = np.load(HERE / "clipstyler" / "case.npz")


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Any) -> None:
    fill.check(CASE, LAYOUT, name, value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value))


def filled(model: str) -> dict[str, Tensor]:
    found = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(found) == LAYOUT["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(value) for name, value in found.items()}


class Stub:
    """The case's stand-in for CLIP: a linear map of the averages of 8 x 8 squares."""

    side = 224

    def __init__(self) -> None:
        self.weight = filled("stub_clip")["stub_clip.weight"]

    def image(self, pictures: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(normalised(pictures), 8).flatten(1) @ self.weight.T

    def text(self, prompts: Sequence[str]) -> Tensor:
        assert len(prompts) == 79
        return array(
            "train.source_embeddings" if "a photo of a a Photo." in prompts else "train.prompt_embeddings"
        )


# the views


def test_what_clip_sees() -> None:
    check("clip.embedding", Stub().image(views.fitted(array("clip.x"), 224)))


def test_perspective_coefficients() -> None:
    ends = array("aug.endpoints")
    check("aug.coefficients", torch.stack([views.perspective_coefficients(one, (32, 32)) for one in ends]))


def test_perspective() -> None:
    image, ends = array("aug.image"), array("aug.endpoints")[0]
    warped = views.perspective(image, ends)
    check("aug.perspective", warped)
    # Newer versions of torchvision fade to black at the border, by the warped picture of where it is.
    check("aug.perspective_new_torchvision", warped * views.perspective(torch.ones_like(image), ends))
    check("aug.resized_224_of_first", views.resized(warped[:1], 224))


def test_another_convention_is_far_outside() -> None:
    with pytest.raises(AssertionError, match=r"aug\.perspective"):
        check("aug.perspective", views.perspective(array("aug.image"), array("aug.endpoints")[0] + 1))


# the network and its losses


def filled_network() -> StyleUNet:
    network = StyleUNet()
    network.load_state_dict(filled("unet"))
    return network


@pytest.fixture(scope="module")
def eyes() -> VGG:
    return from_official(VGG19, filled("vgg19"))


def test_network() -> None:
    network = filled_network()
    for which in ("0", "1"):
        check(f"unet.y{which}", network(array(f"unet.x{which}")))
        check(f"unet.y{which}_no_sigmoid", network.logits(array(f"unet.x{which}")))


def test_content_and_smoothness(eyes: VGG) -> None:
    taps = ("relu4_2", "relu5_2")
    a, b = (eyes(array(f"content.{one}"), taps) for one in "ab")
    for tap in taps:
        check(f"content.a.{tap.replace('relu', 'conv')}", a[tap])
    check("content.loss", torch.stack([ContentLoss(b[tap])(a[tap]) for tap in taps]).sum())
    check("tv.loss_of_content_a", NeighbourNorm()(array("content.a")))


# the training


@pytest.fixture(scope="module")
def knobs() -> Clipstyler.Knobs:
    """The published settings, with the case's number and size of patches."""
    chosen = {"patches": 8, "patch_size": 0.5, "iterations": 3, "batch": 3}
    return parse(Clipstyler.Knobs, knobs_for(Clipstyler, "published", chosen))


class Recorded(clipstyler.Objective):
    """The method's losses with the recorded patches; it keeps what the training shows and asks."""

    def __call__(self, picture: Tensor) -> dict[str, Tensor]:
        iteration = len(self.shown)
        tops, lefts = (array(f"aug.{edge}")[iteration].tolist() for edge in ("top", "left"))
        patches = views.Patches(32, tops, lefts, array("aug.endpoints")[iteration])
        found = self.terms(picture, patches)
        self.shown.append((picture.detach(), patches, found))
        return found

    shown: list[tuple[Tensor, views.Patches, dict[str, Tensor]]]


def recorded(knobs: Clipstyler.Knobs, eyes: VGG) -> Recorded:
    content, tower = array("train.content_image"), Stub()
    goals = guided.text_goals(tower, Styles(texts=["a style"], text_weights=[1.0]), knobs.source)
    led = guided.guidance(tower, content, goals, knobs.sight())
    objective = Recorded(knobs, led, eyes, content, seed=0)
    objective.shown = []
    return objective


@pytest.fixture(scope="module")
def run(knobs: Clipstyler.Knobs, eyes: VGG) -> tuple[Recorded, list[Event], Tensor]:
    content, events, objective = array("train.content_image"), list[Event](), recorded(knobs, eyes)
    picture = clipstyler.trained(
        filled_network(), content, objective, knobs, Frame(content, progress=Progress(events.append))
    )
    return objective, events, picture


def test_training(run: tuple[Recorded, list[Event], Tensor], knobs: Clipstyler.Knobs) -> None:
    objective, events, picture = run
    losses = [event.losses for event in events]
    check("train.patch", [one["patches"] / knobs.patch_weight for one in losses])
    check("train.content", [one["content"] / knobs.content_weight for one in losses])
    check("train.dir", [one["direction"] / knobs.direction_weight for one in losses])
    check("train.tv", [one["smoothness"] for one in losses])
    check("train.total", [sum(one.values()) for one in losses])
    check("train.target_first", objective.shown[0][0])
    # The result is the last picture that was judged.
    assert torch.equal(picture, objective.shown[-1][0])


def test_patches_before_and_after_rejection(run: tuple[Recorded, list[Event], Tensor]) -> None:
    objective, *_ = run
    (wanted,), before = objective.guidance.patch.wanted, objective.guidance.patch.before
    found = []
    for picture, patches, _ in objective.shown:
        encodings = objective.guidance.tower.image(views.patch_views(picture, patches, 224))
        found.append(directional(unit(encodings), before, wanted))
    check("train.patch_terms", torch.stack(found))
    check("train.patch_terms_after_threshold", rejected(torch.stack(found), 0.7))


def test_first_gradients(knobs: Clipstyler.Knobs, eyes: VGG) -> None:
    content, slopes, norms = array("train.content_image"), list[Tensor](), list[Tensor]()
    objective, network = recorded(knobs, eyes), filled_network()

    def listened(picture: Tensor) -> dict[str, Tensor]:
        picture.register_hook(slopes.append)
        return objective(picture)

    def listen(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        norms.extend(weight.grad.norm() for weight in network.parameters() if weight.grad is not None)

    handle = register_optimizer_step_pre_hook(listen)
    try:
        once = knobs.model_copy(update={"iterations": 1})
        clipstyler.trained(network, content, listened, once, Frame(content))
    finally:
        handle.remove()
    assert [name for name, _ in network.named_parameters()] == LAYOUT["grad_order"]["unet"]
    check("train.grad_norm_first", torch.stack(norms))
    check("train.grad_of_total_wrt_target_first", slopes[0])


def test_learning_rates(knobs: Clipstyler.Knobs) -> None:
    check("train.lr", list(clipstyler.rates(knobs.model_copy(update={"iterations": 201}))))
    assert parse(Clipstyler.Knobs, {}).iterations == 201


def test_finish() -> None:
    raised = clipstyler.contrasted(array("post.x").clamp(0, 1), 1.5)
    check("post.contrast", raised)
    check("post.stretched", clipstyler.stretched(raised))
