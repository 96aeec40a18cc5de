"""The published WCT networks load under their own names and give the recorded features and pictures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.core.knobs import parse
from atelier.maths.whitening import colouring, whiten_and_colour
from atelier.methods.base import Job
from atelier.methods.feedforward.wct import Levels
from atelier.methods.registry import find, knobs_for
from atelier.store.checkpoints import converter
from atelier.store.weights import load, record

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "wct" / "layout.json").read_text())
CASE = np.load(HERE / "wct" / "case.npz")
METHOD = find("wct")
ALPHA = 0.6


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Tensor) -> None:
    fill.check(CASE, LAYOUT, name, value.numpy())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The filled ten networks in one file, under their official names."""
    filled = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"])
    assert fill.state_dict_sha256(filled) == LAYOUT["models"]["wct"]["fill_sha256"]
    path = tmp_path_factory.mktemp("wct") / "wct.safetensors"
    save_file(filled, path)
    return str(path)


def knobs(file: str) -> Any:
    return parse(METHOD.Knobs, knobs_for(METHOD, "published", {"encoder": file, "weights": file}))


def job(strength: float) -> Job:
    cpu = torch.device("cpu")
    return Job(array("content"), [array("style")], [1.0], cpu, torch.float32, strength=strength)


@pytest.fixture(scope="module")
def levels(file: str) -> Levels:
    with torch.inference_mode():
        return Levels(job(ALPHA), knobs(file))


def rows(name: str) -> Tensor:
    return array(name)[None, :, None]


@pytest.mark.parametrize("ending", ["", "_lowrank"])
def test_whitening_and_colouring(ending: str) -> None:
    style = colouring(rows(f"sF{ending}"))
    check(f"wct_feat{ending}", whiten_and_colour(rows("cF"), style)[0, :, 0])
    if not ending:
        check("transform_feat_alpha0.6", whiten_and_colour(rows("cF"), style, strength=ALPHA))


def test_every_level_and_the_result(levels: Levels) -> None:
    picture = array("content")
    with torch.inference_mode():
        for level in levels.order:
            found = levels.look(picture, level)
            check(f"cF{level}", found[0])
            moved = levels.transformed(found, level, ALPHA)
            check(f"csF{level}", moved)
            picture = levels.paint(moved, level, picture)
            check(f"Im{level}", picture)


def test_the_result_at_full_strength(file: str) -> None:
    with torch.inference_mode():
        levels, picture = Levels(job(1.0), knobs(file)), array("content")
        for level in levels.order:
            picture = levels.step(picture, level, 1.0)
        check("Im1_alpha1", picture)
    # What a caller gets is the same, clamped.
    torch.testing.assert_close(METHOD().transfer(job(1.0), knobs(file)), picture.clamp(0, 1))


# sides that are no multiple of 16


def published(state: dict[str, Tensor], names: list[str], picture: Tensor) -> Tensor:
    """A published network of one level in plain operations: reflected borders, pooling that floors."""
    functional = torch.nn.functional
    for position, name in enumerate(names):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if weight.shape[-1] == 3:
            picture = functional.pad(picture, (1, 1, 1, 1), mode="reflect")
        picture = functional.conv2d(picture, weight, bias)
        last = position == len(names) - 1
        encoder = name.startswith("e")
        if weight.shape[-1] == 3 and (encoder or not last):
            picture = picture.relu()
        if encoder and position in _POOLED and not last:
            picture = functional.max_pool2d(picture, 2)
        if not encoder and len(names) - 1 - position in _ENLARGED and not last:
            picture = functional.interpolate(picture, scale_factor=2, mode="nearest")
    return picture


#: Behind which convolutions of VGG-19 the encoder pools, counted from its 1x1 one, and in front of which of a
#: decoder's the picture is doubled, counted from its last.
_POOLED, _ENLARGED = (2, 4, 8, 12), (1, 3, 7, 11)


def moved(content: Tensor, style: Tensor) -> Tensor:
    """Li et al.'s eqs. 2 and 3 by eigenvectors in float64, with the identity that their code adds."""

    def parts(features: Tensor) -> tuple[Tensor, Tensor]:
        rows = features[0].flatten(1).double()
        mean = rows.mean(1, keepdim=True)
        return rows - mean, mean

    def power(matrix: Tensor, exponent: float) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        kept = values > 1e-5
        return (vectors[:, kept] * values[kept] ** exponent) @ vectors[:, kept].T

    (own, _), (other, mean) = parts(content), parts(style)
    identity = torch.eye(len(own), dtype=torch.float64)
    white = power(own @ own.T / (own.shape[1] - 1) + identity, -0.5) @ own
    coloured = power(other @ other.T / (other.shape[1] - 1), 0.5) @ white + mean
    return coloured.view(content.shape).float()


def test_sides_that_are_no_multiple_of_16(file: str) -> None:
    state = load(file)
    layers = {
        side: sorted(
            {key.split(".")[1] for key in state if key.startswith(side)}, key=lambda name: int(name[4:])
        )
        for side in [f"{s}{n}" for s in "ed" for n in range(1, 6)]
    }
    content, style = array("content")[..., :37, :45], array("style")[..., :35, :50]
    picture = content
    for level in (5, 4, 3, 2, 1):
        encoder, decoder = ([f"{side}{level}.{name}" for name in layers[f"{side}{level}"]] for side in "ed")
        found, wanted = (published(state, encoder, one) for one in (picture, style))
        picture = published(state, decoder, moved(found, wanted))
    assert picture.shape[-2:] == (32, 32)
    cpu = torch.device("cpu")
    made = METHOD().transfer(Job(content, [style], [1.0], cpu, torch.float32), knobs(file))
    assert made.shape == content.shape
    apart = (made[..., :32, :32] - picture.clamp(0, 1)).abs()
    assert apart.max() < 0.01, apart.max()
    assert torch.equal(made[..., 32:, :32], made[..., 31:32, :32].expand(1, 3, 5, 32))


def test_the_converter_keeps_every_tensor_once(file: str) -> None:
    official = LAYOUT["models"]["wct"]["official_layout"]
    stored = converter(record("wct.published").converter)(load(file))
    assert sum(name.startswith("encoder.") for name in stored) == sum(
        name.startswith("e5.") for name in official
    )
    assert sum(name.startswith("level") for name in stored) == sum(name.startswith("d") for name in official)
    assert not [name for name in stored if name in official]
    assert converter("wct")(stored).keys() == stored.keys()


def test_encoders_that_differ_are_refused(file: str) -> None:
    state = load(file)
    state["e3.conv2.weight"] = state["e3.conv2.weight"] + 1
    with pytest.raises(WeightsError, match=r"e3\.conv2\.weight differs between levels"):
        converter("wct")(state)
