"""NNST with VGG-16: pyramid, hypercolumns, matching, stages, colours and whole runs of the published program.

What is not compared: how the program loads and writes pictures, which every method shares here.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.colour import oklab
from atelier.features.corner_columns import CornerColumns, neighbours, rows
from atelier.features.vgg import VGG, from_official, recognise
from atelier.losses.contrast import ContrastLoss
from atelier.losses.feature_splitting import SplittingLoss
from atelier.methods.base import Job
from atelier.methods.optimise.nnst import NNST
from atelier.methods.optimise.nnst_published import Programme, halved, joined

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "nnst" / "layout.json").read_text())
CASE = np.load(HERE / "nnst" / "case.npz")
SETTINGS = LAYOUT["hyperparameters"]


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def exact(name: str) -> Tensor:
    return array(name).double()


def check(name: str, value: Any) -> None:
    fill.check(CASE, LAYOUT, name, value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value))


def blocks(image: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(image, side)


@pytest.fixture(scope="module")
def eyes() -> VGG:
    filled = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"])
    state = {key: torch.from_numpy(value) for key, value in filled.items()}
    return from_official(recognise(state), state, padding=NNST.qualities["published"]["padding"])


@pytest.fixture(scope="module")
def exact_encoder(eyes: VGG) -> VGG:
    """The encoder in float64, for gradients.

    A gradient depends on choices: which side of a ReLU, which maximum, which nearest neighbour, which sign of
    a difference. In float32 the order of a sum, which is that of the threads, can turn a choice over, and the
    gradient with it. The recorded gradients are within `float64_diff` of those in float64.
    """
    return copy.deepcopy(eyes).prepare(dtype=torch.float64)


@pytest.fixture(scope="module")
def columns(eyes: VGG) -> CornerColumns:
    return CornerColumns(eyes)


def programme(eyes: VGG, content: Tensor, style: Tensor, **settings: Any) -> Programme:
    """A program with the settings of layout.json, which names them as the program does."""
    knobs = NNST.Knobs(
        **NNST.qualities["published"]
        | {
            "iterations": settings["max_iter"],
            "step_size": settings["lr"],
            "keep": 1 - settings.get("content_weight", 0.25),
            "turned": "all" if settings["flip_aug"] else "no",
            "contrast": float(settings.get("content_loss", False)),
        }
    )
    job = Job(
        content=content,
        styles=[style],
        style_weights=[1.0],
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=settings.get("random_seed", 0),
    )
    scales, depth = settings.get("max_scls"), settings["pyramid_depth"]
    return Recorder(job, knobs, eyes, style, scales=scales, depth=depth)


class Recorder(Programme):
    """A program that notes what the published one was watched for."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self.seen: dict[str, Tensor] = {}
        self.losses: list[list[float]] = []

    def targets(self, level: int) -> tuple[Tensor, Tensor, Tensor]:
        style, index, distance = super().targets(level)
        self.seen |= {f"style_s{level}": joined(self.style[level:]), f"mixed_s{level}": self.mixed(level)}
        self.seen |= {f"match_index_s{level}": index, f"match_distance_s{level}": distance}
        return style, index, distance

    def descend(self, level: int, loss: Callable[..., Tensor], done: int) -> Tensor:
        self.losses.append([])

        def noted(image: Tensor, iteration: int) -> Tensor:
            value = loss(image, iteration)
            self.losses[-1].append(float(value.detach()))
            return value

        image = super().descend(level, noted, done)
        if len(self.losses) <= self.scales:
            self.seen[f"image_s{level}"] = image
        return image


@pytest.fixture
def split_terms(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The terms of feature splitting, and at its end the places that were drawn."""
    terms: list[Tensor] = []
    plain = SplittingLoss.__call__

    def noted(self: SplittingLoss, maps: Any) -> Tensor:
        found = plain(self, maps)
        terms.append(found.detach())
        return found

    monkeypatch.setattr(SplittingLoss, "__call__", noted)
    return terms


# the pieces


def test_the_published_settings() -> None:
    theirs, mine = SETTINGS["script_defaults"], NNST.Knobs(**NNST.qualities["published"])
    assert mine.keep == theirs["alpha"] == 1 - theirs["content_weight"]
    assert mine.iterations == theirs["max_iter"]
    assert mine.step_size == theirs["lr"]
    assert (mine.turned != "no", mine.hues == "photo") == (theirs["flip_aug"], theirs["colour"])
    assert (mine.contrast, mine.seed if "seed" in mine.model_fields_set else 0) == (0, theirs["random_seed"])


@pytest.mark.parametrize(("side", "name"), [(512, ""), (1024, "_high_res")])
def test_the_published_scales(columns: CornerColumns, side: int, name: str) -> None:
    picture = torch.rand((1, 3, side, 256), generator=torch.Generator().manual_seed(0))
    settings = {"max_iter": 1, "lr": 0.002, "flip_aug": True, "pyramid_depth": SETTINGS["pyramid_depth"]}
    made = programme(columns.encoder, picture, picture, **settings)
    assert made.scales == SETTINGS["script_defaults"][f"max_scls{name}"]
    assert len(made.levels) == SETTINGS["pyramid_depth"] + 1
    zeros = [not bool(level.any()) for level in made.levels]
    assert zeros.index(False) == (3 if side < 1024 else 2)


def test_pyramid() -> None:
    levels = halved(array("pyramid_image"), SETTINGS["unit"]["pyramid_depth"])
    for index, level in enumerate(levels):
        check(f"pyramid_{index}", level)
    gained = [gain * one for gain, one in zip(SETTINGS["unit"]["pyramid_gain"], levels, strict=True)]
    check("pyramid_collapsed", joined(gained))


def test_matching() -> None:
    content, style = array("match_src"), array("match_ref")
    index, distance = neighbours(rows(content), rows(style))
    check("match_index", index)
    assert torch.allclose(distance, match_table().amin(0), atol=LAYOUT["arrays"]["match_distance"]["atol"])
    check("match_features", rows(style)[index].T.view_as(content))


def match_table() -> Tensor:
    """All distances, style x content, by the notes' formula; the recorded ones are some of them."""
    left, right = (rows(array(f"match_{name}")) for name in ("ref", "src"))
    left, right = left - left.mean(0), right - right.mean(0)
    table = 1 - F.normalize(left, dim=1) @ F.normalize(right, dim=1).T
    check("match_distance", table)
    return table


def test_matching_in_blocks() -> None:
    """The style is repeated until the rule gives blocks of 1024; its mean stays the same."""
    content, style = array("block_src"), array("block_ref")
    index, _ = neighbours(rows(content), rows(style), block=SETTINGS["unit"]["block_rows"])
    check("block_index", index)
    check("block_features", rows(style)[index].T.view_as(content))
    repeated = rows(style).repeat(32 * 32, 1)
    ruled, _ = neighbours(rows(content), repeated)
    assert torch.equal(ruled % len(rows(style)), index)
    assert not torch.equal(neighbours(rows(content), rows(style))[0], index)


def test_colours() -> None:
    content, style, output = (array(f"colour_{name}") for name in ("content", "style", "output"))
    lab = {name: oklab.rgb_to_oklab(one) for name, one in (("content", content), ("output", output))}
    style_lab = oklab.rgb_to_oklab(style)
    check("oklab_content", lab["content"])
    check("oklab_output", lab["output"])
    check("oklab_back", oklab.oklab_to_rgb(1.4 * lab["content"] - 0.1))
    hues = oklab.moved(lab["content"][:, 1:], style_lab[:, 1:])
    check("transfer_ab", hues)
    check("transfer_lab", oklab.moved(lab["output"], style_lab))
    check("filter_lab", oklab.smooth_chroma(torch.cat([lab["output"][:, :1], hues], 1)))
    check("colour_match", oklab.photo_hues(content, style, output))
    check("colour_match_moment", oklab.photo_hues(content, style, output, own=True))
    check("colour_match_grey", oklab.photo_hues(content, array("colour_grey_style"), output))


def test_hypercolumns(columns: CornerColumns) -> None:
    content, style = columns(array("image_c")), columns(array("image_s"), rotated=True)
    check("hyper_content", content)
    check("hyper_style", columns(array("image_s")))
    check("hyper_style_flip", style)
    index, distance = neighbours(rows(content), rows(style))
    check("hyper_index", index)
    check("hyper_distance", distance)
    check("hyper_target", rows(style)[index].T.view_as(content))


def test_content_loss() -> None:
    loss = ContrastLoss(array("cl_content"))
    check("cl_selfsim", loss.target)
    check("cl_term", loss(array("cl_current"))[None])


# one stage


def stage(
    made: Recorder, loss: Callable[[], Callable[[Tensor, int], Tensor]], image: Tensor, level: int = 0
) -> tuple[list[Tensor], Tensor]:
    """The first gradients of a stage's levels, and its image; `loss` makes it anew, so that it draws anew."""
    depth = len(made.levels) - 1 - level
    levels = [one.requires_grad_() for one in halved(image, depth)]
    slopes = torch.autograd.grad(loss()(joined(levels), 0), levels)
    made.levels[level:] = halved(image, depth)
    return list(slopes), made.descend(level, loss(), 0)


@pytest.mark.slow
def test_a_stage_of_hypercolumns(exact_encoder: VGG) -> None:
    made = programme(exact_encoder, exact("image_c"), exact("image_s"), **SETTINGS["eval"])
    made.scales = 1  # so that nothing is mixed
    slopes, image = stage(made, lambda: made.matching(0), exact("image_o"))
    for index, slope in enumerate(slopes):
        check(f"hm_grad_{index}", slope)
    check("hm_losses", made.losses[0])
    check("hm_image", image)
    check("hm_image_blocks", blocks(image, SETTINGS["eval_block_mean"]))


@pytest.mark.slow
def test_a_stage_of_feature_splitting(exact_encoder: VGG, split_terms: list[Tensor]) -> None:
    made = programme(exact_encoder, exact("image_c"), exact("image_s"), **SETTINGS["eval"])
    slopes, image = stage(made, made.splitting, exact("image_o"))
    check("fs_grad_0", slopes[0])
    check("fs_grad_4", slopes[4])
    check("fs_losses", made.losses[0])
    check("fs_layer_losses", torch.stack(split_terms[1:]))
    check("fs_image", image)
    check("fs_image_blocks", blocks(image, SETTINGS["eval_block_mean"]))


def test_a_stage_with_the_content_loss(exact_encoder: VGG, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SETTINGS["cl"]
    made = programme(exact_encoder, exact("cl_content"), exact("image_s"), content_loss=True, **settings)
    # The recorded stage has the content at half its size and the style at the whole.
    style = rows(made.columns(exact("image_s")))
    found = neighbours(rows(made.columns(joined(made.content[settings["k"] :]))), style)
    monkeypatch.setattr(made, "targets", lambda level: (style, *found))
    slopes, _ = stage(made, lambda: made.matching(settings["k"]), exact("cl_current"), settings["k"])
    check("cl_grad_0", slopes[0])
    check("cl_losses", made.losses[0])


# whole runs


def whole(eyes: VGG, name: str, content: Tensor, style: Tensor, split_terms: list[Tensor]) -> Recorder:
    made = programme(eyes, content, style, **SETTINGS[name])
    raw = made.run()
    check(f"{name}_losses", made.losses)
    check(f"{name}_fs_layer_losses", torch.stack(split_terms))
    check(f"{name}_raw", raw)
    for key, value in made.seen.items():
        if f"{name}_{key}" in LAYOUT["arrays"]:
            check(f"{name}_{key}", value)
    compared = {key for key in made.seen if f"{name}_{key}" in LAYOUT["arrays"]}
    recorded = {key for key in LAYOUT["arrays"] if key.startswith(f"{name}_") and key[-2:-1] == "s"}
    assert {f"{name}_{key}" for key in compared} == recorded
    if f"{name}_output" in LAYOUT["arrays"]:
        output = oklab.photo_hues(content, style, raw)
        side = SETTINGS[name]["block_mean"]
        check(f"{name}_output", output)
        for key, value in (("output", output), ("raw", raw), ("image_s0", made.seen["image_s0"])):
            check(f"{name}_{key}_blocks", blocks(value, side))
    return made


@pytest.mark.parametrize("name", [pytest.param("still", marks=pytest.mark.slow), "small"])
def test_a_small_run(eyes: VGG, split_terms: list[Tensor], name: str) -> None:
    whole(eyes, name, array("small_content"), array("small_style"), split_terms)


@pytest.mark.slow
def test_the_recorded_run(eyes: VGG, split_terms: list[Tensor]) -> None:
    content, style = (array(f"run_{name}_u8") / 255 for name in ("content", "style"))
    whole(eyes, "run", content, style, split_terms)
