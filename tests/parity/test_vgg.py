"""The official VGG checkpoints load under their own names and give the recorded activations."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.features.vgg import VGG16, VGG19, VGG_NORMALISED, Plan, from_official, recognise

HERE = Path(__file__).parent
PLANS = {"vgg16": VGG16, "vgg19": VGG19, "vgg_normalised": VGG_NORMALISED}
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)


class Case:
    def __init__(self, name: str) -> None:
        self.plan: Plan = PLANS[name]
        self.layout: dict[str, Any] = json.loads((HERE / name / "layout.json").read_text())
        self.arrays = np.load(HERE / name / "case.npz")
        (self.model,) = self.layout["models"].values()
        self.filled = fill.fill_state_dict(self.layout, self.layout["fill_seed"])
        self.state: dict[str, Tensor] = {key: torch.from_numpy(value) for key, value in self.filled.items()}

    def check(self, name: str, value: Tensor) -> None:
        fill.check(self.arrays, self.layout, name, value.numpy())

    @property
    def image(self) -> Tensor:
        return torch.from_numpy(self.arrays["image"])


@pytest.fixture(scope="module", params=list(PLANS))
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def with_classifier(case: Case) -> dict[str, Tensor]:
    # Expanded from one number: the real classifier has half a gigabyte.
    rest = {
        key: torch.zeros(()).expand(spec["shape"])
        for key, spec in case.model["official_layout"].items()
        if key.startswith("classifier.")
    }
    return case.state | rest


def stripped(case: Case) -> dict[str, Tensor]:
    return {key.removeprefix("features."): value for key, value in case.state.items()}


def own(case: Case) -> dict[str, Tensor]:
    return dict(from_official(case.plan, case.state).state_dict())


def test_fill_is_the_recorded_one(case: Case) -> None:
    assert fill.state_dict_sha256(case.filled) == case.model["fill_sha256"]


def test_layout_is_the_plans(case: Case) -> None:
    official = {
        key.removeprefix("features."): tuple(spec["shape"])
        for key, spec in case.model["official_layout"].items()
        if not key.startswith("classifier.")
    }
    shapes = case.plan.shapes()
    assert {key: shapes[name] for key, name in case.plan.official_names().items()} == official


@pytest.mark.parametrize("dress", [with_classifier, stripped, own])
def test_every_dress_is_recognised_and_loads(case: Case, dress: Any) -> None:
    state = dress(case)
    assert recognise(state) == case.plan
    plain = from_official(case.plan, case.state).state_dict()
    loaded = from_official(recognise(state), state).state_dict()
    assert loaded.keys() == plain.keys()
    assert all(torch.equal(loaded[name], plain[name]) for name in plain)


def test_activations(case: Case) -> None:
    encoder = from_official(case.plan, case.state)
    taps = [name for name in case.layout["arrays"] if name.startswith("relu")]
    assert len(taps) == 6
    for name, value in encoder(case.image, taps).items():
        case.check(name, value)


def test_what_the_first_layer_sees(case: Case) -> None:
    encoder = from_official(case.plan, case.state)
    if case.plan.colour:
        case.check("conv0", encoder(case.image, ["colour"])["colour"])
    else:
        case.check("normalised", encoder.normalise(case.image))


@pytest.mark.parametrize(("padding", "pooling"), [("replicate", "max"), (None, "average")])
def test_another_convention_is_far_outside(case: Case, padding: Any, pooling: Any) -> None:
    encoder = from_official(case.plan, case.state, padding=padding, pooling=pooling)
    with pytest.raises(AssertionError, match="relu4_1"):
        case.check("relu4_1", encoder(case.image, ["relu4_1"])["relu4_1"])


def test_missing_and_left_over_tensors_are_counted(case: Case) -> None:
    state = dict(case.state)
    first = next(iter(state))
    state["features.99.weight"] = state.pop(first)
    with pytest.raises(
        WeightsError, match=r"1 tensors are missing \((colour|conv1_1)\.weight\) and 1 .*99\.weight"
    ):
        from_official(recognise(state), state)
