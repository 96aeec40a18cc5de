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
        for level in levels.knobs.levels:
            found = levels.look(picture, level)
            check(f"cF{level}", found[0])
            moved = levels.transformed(found, level, ALPHA)
            check(f"csF{level}", moved)
            picture = levels.paint(moved, level, picture)
            check(f"Im{level}", picture)


def test_the_result_at_full_strength(file: str) -> None:
    with torch.inference_mode():
        levels, picture = Levels(job(1.0), knobs(file)), array("content")
        for level in levels.knobs.levels:
            picture = levels.step(picture, level, 1.0)
        check("Im1_alpha1", picture)
    # What a caller gets is the same, clamped.
    torch.testing.assert_close(METHOD().transfer(job(1.0), knobs(file)), picture.clamp(0, 1))


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
    with pytest.raises(WeightsError, match=r"e3\.conv2\.weight is not what the other levels have"):
        converter("wct")(state)
