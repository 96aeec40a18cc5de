"""Dumoulin et al.'s checkpoint loads under its own names and gives the recorded pictures."""

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
from atelier.methods.base import Job
from atelier.methods.feedforward.cin import Cin
from atelier.networks.conditional import load_pastiche
from atelier.store.checkpoints import converter

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "dumoulin" / "layout.json").read_text())
ARRAYS = np.load(HERE / "dumoulin" / "case.npz")


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    arrays = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"])
    assert fill.state_dict_sha256(arrays) == LAYOUT["models"]["dumoulin"]["fill_sha256"]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def weights_file(official: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> str:
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("cin") / "cin.safetensors"
    save_file(converter("cin")(official), path)
    return str(path)


def test_every_variable_is_used(official: dict[str, Tensor]) -> None:
    found = converter("cin")(official)
    assert sum(value.numel() for value in found.values()) == sum(value.numel() for value in official.values())
    for name in official:
        with pytest.raises(WeightsError, match="missing"):
            converter("cin")({key: value for key, value in official.items() if key != name})


@pytest.mark.parametrize("styles", [10, 32])
def test_the_published_sizes_load(styles: int) -> None:
    tensors = LAYOUT["models"]["dumoulin"]["official_layout"]
    state = {
        name: torch.zeros(()).expand([styles, *spec["shape"][1:]] if "Norm" in name else spec["shape"])
        for name, spec in tensors.items()
    }
    assert load_pastiche(state).styles == styles


@pytest.mark.parametrize(
    ("name", "numbers", "shares"),
    [
        ("stylized_label0", (0,), ()),
        ("stylized_label2", (2,), ()),
        ("stylized_weights", (0, 1, 2, 3), tuple(ARRAYS["weights"].tolist())),
    ],
)
def test_pictures(weights_file: str, name: str, numbers: Any, shares: Any) -> None:
    content = torch.from_numpy(ARRAYS["content"])
    job = Job(content, [torch.zeros(1, 3, 1, 1)], [1.0], torch.device("cpu"), torch.float32)
    knobs = Cin.Knobs(weights=weights_file, numbers=numbers, shares=shares)
    fill.check(ARRAYS, LAYOUT, name, Cin().picture(job, knobs).numpy())


def test_another_style_is_far_outside(weights_file: str) -> None:
    job = Job(
        torch.from_numpy(ARRAYS["content"]),
        [torch.zeros(1, 3, 1, 1)],
        [1.0],
        torch.device("cpu"),
        torch.float32,
    )
    made = Cin().picture(job, Cin.Knobs(weights=weights_file, numbers=(1,)))
    with pytest.raises(AssertionError, match="stylized_label0"):
        fill.check(ARRAYS, LAYOUT, "stylized_label0", made.numpy())
