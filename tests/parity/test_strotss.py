"""STROTSS with VGG-16: columns, terms, gradients and the recorded run of the published code.

Where the product draws places of its own, the test feeds those that the code drew. What is not compared: how
the code draws them (with NumPy's global generator), how it reduces the inputs (without antialiasing), and
point guidance, which its command line cannot reach and the product does not offer.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.features.columns import columns, layers
from atelier.features.vgg import VGG, from_official, recognise
from atelier.losses.transport import (
    PALETTE,
    ColumnMomentLoss,
    PaletteLoss,
    SelfSimilarityLoss,
    TransportLoss,
    rotated,
    squared_distances,
    unit,
)
from atelier.methods.optimise import strotss
from atelier.methods.optimise.strotss import Region, Strotss, StrotssObjective, first_picture, merge, split

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "strotss" / "layout.json").read_text())
CASE = np.load(HERE / "strotss" / "case.npz")
TAPS = Strotss.qualities["published"]["layers"]


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def table(name: str, *, padded: int = 0) -> Tensor:
    """Recorded columns (1, C, N, 1) as (N, C), without appended positions."""
    values = array(name)[0, :, :, 0].T
    return values[:, : values.shape[1] - padded]


def check(name: str, value: Tensor) -> None:
    fill.check(CASE, LAYOUT, name, value.detach().numpy())


@pytest.fixture(scope="module")
def eyes() -> VGG:
    filled = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"])
    assert fill.state_dict_sha256(filled) == LAYOUT["models"]["vgg16"]["fill_sha256"]
    state = {key: torch.from_numpy(value) for key, value in filled.items()}
    return from_official(recognise(state), state, padding="zeros")


@pytest.fixture(scope="module")
def exact_encoder(eyes: VGG) -> VGG:
    """The encoder in float64, for gradients.

    A gradient depends on choices: which side of a ReLU, which maximum, which nearest neighbour, which sign of
    a difference. In float32 the order of a sum, which is that of the threads, can turn a choice over, and the
    gradient with it. The recorded gradients are within `float64_diff` of those in float64.
    """
    return copy.deepcopy(eyes).prepare(dtype=torch.float64)


def test_the_published_settings() -> None:
    recorded, mine = LAYOUT["hyperparameters"], Strotss.qualities["published"]
    assert ["image", *TAPS] == recorded["layer_names"]
    assert np.allclose(PALETTE, recorded["palette_matrix"], atol=1e-6)
    assert (mine["iterations"], mine["coarse_iterations"]) == (recorded["iterations_per_scale"],) * 2
    knobs = Strotss.Knobs(**mine)
    assert knobs.step_size == recorded["lr"] == 2 * recorded["lr_last_scale"]
    assert knobs.content_weight == recorded["alpha_default"]
    assert knobs.smallest == recorded["smallest_long_side"]
    assert knobs.places == recorded["content_samples_per_iteration"]
    assert len(split(torch.zeros(1, 3, 64, 64))) == recorded["pyramid_levels"]


# columns


def test_layers(eyes: VGG) -> None:
    found = layers(eyes, array("image"), TAPS)
    assert torch.equal(found[0], array("image"))
    for index in range(1, 10):
        check(f"vgg.image.layer{index}", found[index])
    again = eyes(array("image"), TAPS)
    assert all(torch.equal(value, again[tap]) for tap, value in zip(TAPS, found[1:], strict=True))


def test_a_thin_picture_goes_on_without_pooling(eyes: VGG) -> None:
    found = layers(eyes, array("thin"), TAPS)
    check("vgg.thin.layer8", found[8])
    check("vgg.thin.layer9", found[9])


@pytest.mark.parametrize(
    ("name", "picture", "places", "smooth"),
    [
        ("hyper.image", "image", "coords", True),
        ("hyper.content", "content", "coords", True),
        ("hyper.style", "style", "style_coords", False),
        ("hyper.thin", "thin", "thin_coords", True),
        ("hyper.thin_style", "thin", "thin_coords", False),
    ],
)
def test_columns(eyes: VGG, name: str, picture: str, places: str, smooth: bool) -> None:
    at = array(places)
    found = layers(eyes, array(picture), TAPS)
    values = columns(found, at, smooth=smooth)
    if smooth:
        # The code appends the last layer's row and column, which no term uses.
        halvings = sum(b.shape[2] < a.shape[2] for a, b in itertools.pairwise(found))
        values = torch.cat([values, at / 2**halvings], 1)
    check(name, values.T[None, :, :, None])


# terms on given columns


@pytest.mark.parametrize(
    ("name", "loss", "x", "y"),
    [
        ("remd", TransportLoss, "terms.x", "terms.y"),
        ("remd_swapped", None, "terms.x", "terms.y"),
        ("palette", PaletteLoss, "terms.colour_x", "terms.colour_y"),
        ("selfsim", SelfSimilarityLoss, "terms.x", "terms.c"),
    ],
)
def test_terms_and_their_gradients(name: str, loss: Any, x: str, y: str) -> None:
    padded = 2 if x == "terms.x" else 0
    moved = table(x, padded=padded).clone().requires_grad_()
    other = table(y, padded=2 if y == "terms.c" else 0)
    if loss is None:  # the distance is the same in both directions
        loss = TransportLoss
    value = loss(other)(moved)
    check(f"terms.{name}", value)
    (slope,) = torch.autograd.grad(value, moved)
    if name == "selfsim":
        slope = F.pad(slope, (0, 2))
    check(f"terms.{name}_grad", slope.T[None, :, :, None])


def test_moments_and_their_gradients() -> None:
    style = table("terms.y")
    target = ColumnMomentLoss(style)
    for name in ("moment_mean", "moment_covariance", "moment"):
        moved = table("terms.x", padded=2).clone().requires_grad_()
        value = target(moved)
        if name == "moment_mean":
            value = (moved.mean(0) - style.mean(0)).abs().mean()
        elif name == "moment_covariance":
            value = value - (moved.mean(0) - style.mean(0)).abs().mean()
        check(f"terms.{name}", value)
        if name != "moment":
            (slope,) = torch.autograd.grad(value, moved)
            check(f"terms.{name}_grad", slope.T[None, :, :, None])


def test_costs() -> None:
    x, y = table("terms.x", padded=2), table("terms.y")
    check("terms.remd_cost", 1 - unit(x) @ unit(y).T)
    first, second = rotated(table("terms.colour_x")), rotated(table("terms.colour_y"))
    check("terms.colour_x_yuv", first.T)
    check("terms.colour_cost_cos", 1 - unit(first) @ unit(second).T)
    distances = (squared_distances(first, second).clamp(1e-5, 1e5) / 3).sqrt()
    check("terms.colour_cost_l2", distances)


# the pyramid and the start


def test_pyramid() -> None:
    levels = split(array("pyramid.image"))
    for index, level in enumerate(levels):
        check(f"pyramid.level{index}", level)
    factors = array("pyramid.factors")
    check("pyramid.synth", merge([level * factor for level, factor in zip(levels, factors, strict=True)]))


def test_starts() -> None:
    content, style, previous = (array(f"start.{name}") for name in ("content", "style", "previous"))
    colour = style.mean((2, 3), keepdim=True)
    check("start.laplacian", first_picture(content, torch.zeros_like(colour), None, final=False))
    check("start.first", first_picture(content, colour, None, final=False))
    check("start.middle", first_picture(content, colour, previous, final=False))
    check("start.last", first_picture(content, colour, previous, final=True))


# the objective


def objective(encoder: VGG, weight: float) -> StrotssObjective:
    content, style = (array(name).to(encoder.dtype) for name in ("content", "style"))
    found = columns(layers(encoder, style, TAPS), array("style_coords"), smooth=False)
    return StrotssObjective(encoder, TAPS, content, [Region(found, lambda: array("coords"))], weight)


NAMES = {"content": "content", "remd": "transport", "moment": "moments", "palette": "palette"}


def test_terms_of_a_picture_and_their_gradients(exact_encoder: VGG) -> None:
    picture = array("image").double().requires_grad_()
    weight = float(CASE["loss.content_weights"][0])
    terms = objective(exact_encoder, weight)(picture)
    units = {"content": (weight + 2) / weight, "palette": (weight + 2) * max(weight, 1)}
    for recorded, mine in NAMES.items():
        value = terms[mine] * units.get(mine, weight + 2)
        check(f"loss.{recorded}", value)
        check(f"loss.{recorded}_grad", torch.autograd.grad(value, picture, retain_graph=True)[0])


def test_totals_for_each_content_weight(eyes: VGG) -> None:
    with torch.no_grad():
        totals = [
            sum(objective(eyes, float(weight))(array("image")).values())
            for weight in CASE["loss.content_weights"]
        ]
    check("loss.total", torch.stack(totals))


def test_gradients_of_the_pyramid(exact_encoder: VGG) -> None:
    levels = [level.requires_grad_() for level in split(array("image").double())]
    picture = merge(levels)
    total = sum(objective(exact_encoder, float(CASE["loss.content_weights"][0]))(picture).values())
    image, *slopes = torch.autograd.grad(total, [picture, *levels])
    check("loss.image_grad", image)
    for index, slope in enumerate(slopes):
        check(f"loss.pyramid_grad{index}", slope)


# regions


def test_region_masks() -> None:
    masks = strotss.region_masks(CASE["regions.content_u8"], CASE["regions.style_u8"], smallest=10_001)
    for side, name in enumerate(("content", "style")):
        found = torch.stack([pair[side].T for pair in masks]).to(torch.uint8)
        check(f"regions.{name}_masks", found)


# the run


def at_size(name: str, long_side: int) -> Tensor:
    """A recorded picture, reduced as the published code reduces it."""
    picture = torch.from_numpy(CASE[name]).permute(2, 0, 1)[None] / 255
    factor = long_side / max(picture.shape[-2:])
    size = tuple(int(side * factor) for side in picture.shape[-2:])
    return F.interpolate(picture, size, mode="bilinear", align_corners=False)


class Recorder:
    """A descent's totals and pictures, and the gradients of its first step."""

    def __init__(self, objective: StrotssObjective, **options: Any) -> None:
        self.objective, self.totals, self.pictures = objective, list[float](), list[Tensor]()
        self.slopes = list[Tensor]()
        self.descent = strotss.pyramid_descent(self, average=0.0, **options)

    def __call__(self, picture: Tensor) -> dict[str, Tensor]:
        if len(self.pictures) == 1:
            self.slopes = [level.grad.clone() for level in self.descent.levels]
        terms = self.objective(picture)
        self.pictures.append(picture.detach().clone())
        self.totals.append(float(sum(terms.values()).detach()))
        return terms


def run(
    eyes: VGG, regions: Sequence[Region], content: Tensor, start: Tensor, weight: float, **options: Any
) -> Recorder:
    recorder = Recorder(StrotssObjective(eyes, TAPS, content, regions, weight), **options)
    recorder.descent.run(start)
    return recorder


def region(eyes: VGG, style: Tensor, prefix: str) -> Region:
    style_places = torch.from_numpy(CASE[f"{prefix}.style_coords"].reshape(-1, 2).astype(np.int64))
    drawn: Iterator[Tensor] = iter(torch.from_numpy(CASE[f"{prefix}.coords"].astype(np.int64)))
    found = columns(layers(eyes, style, TAPS), style_places, smooth=False)
    return Region(found, partial(next, drawn))


@pytest.mark.parametrize("scale", [1, *(pytest.param(scale, marks=pytest.mark.slow) for scale in (2, 3))])
def test_the_recorded_run(eyes: VGG, scale: int) -> None:
    settings = LAYOUT["fixture_hyperparameters"]
    long_side = settings["smallest_long_side"] * 2 ** (scale - 1)
    content, style = (at_size(f"run.{name}_u8", long_side) for name in ("content", "style"))
    name = f"run.scale{scale}"
    before = array(f"run.scale{scale - 1}.image3") if scale > 1 else None
    start = first_picture(content, style.mean((2, 3), keepdim=True), before, final=scale == 3)
    recorded = array(f"{name}.start")
    assert (start - recorded).abs().max() < 1e-5
    weight = 16 * settings["alpha"] / 2 ** (scale - 1)
    step = 1e-3 if scale == 3 else 2e-3
    some = region(eyes, style, name)
    found = run(eyes, [some], content, recorded, weight, iterations=settings["iterations"], step_size=step)
    for index, slope in enumerate(found.slopes):
        check(f"{name}.grad{index}", slope)
    check(f"{name}.loss_first", torch.tensor(found.totals[0]))
    check(f"{name}.loss", torch.tensor(found.totals))
    for index in (1, 2, 3):
        check(f"{name}.image{index}", found.pictures[index])
    if scale == 3:
        check("run.result", found.pictures[3][0].clamp(0, 1))


def test_the_recorded_run_with_regions(eyes: VGG) -> None:
    settings = LAYOUT["fixture_hyperparameters"]
    content, style = (
        at_size(f"guided.{name}_u8", settings["guided_smallest_long_side"]) for name in ("content", "style")
    )
    masks = strotss.region_masks(CASE["regions.content_u8"], CASE["regions.style_u8"], smallest=10_001)
    height, width = content.shape[-2:]
    for index, (of_content, _) in enumerate(masks):
        mask = strotss.mask_at(of_content, (height, width))
        check(f"guided.scale1.region{index}.mask", mask.T.to(torch.uint8))
    some = [region(eyes, style, f"guided.scale1.region{index}") for index in range(2)]
    start, steps = array("guided.scale1.start"), settings["guided_iterations"]
    weight = 16 * settings["guided_alpha"]
    found = run(eyes, some, content, start, weight, iterations=steps, step_size=1e-3)
    check("guided.scale1.loss_first", torch.tensor(found.totals[0]))
    check("guided.scale1.loss", torch.tensor(found.totals))
    for index in (1, 2):
        check(f"guided.scale1.image{index}", found.pictures[index])
