"""The Inception-v3 of ArtFID and of FID: files load under their own names and give the recorded features."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.core.errors import InputError, WeightsError
from atelier.features.inception_v3 import ARTFID, InceptionV3
from atelier.metrics import Networks
from atelier.metrics.networks import ART_INCEPTION, INCEPTION

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "inception" / "layout.json").read_text())
CASE = np.load(HERE / "inception" / "case.npz")


def check(name: str, value: Tensor) -> None:
    fill.check(CASE, LAYOUT, name, value.numpy())


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    filled = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"])
    assert fill.state_dict_sha256(filled) == LAYOUT["fill_sha256"]
    return {name: torch.from_numpy(np.asarray(value)) for name, value in filled.items()}


@pytest.fixture(scope="module")
def networks(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """Files with the heads that the published ones have besides."""
    folder = tmp_path_factory.mktemp("inception")
    heads = {"fid": ["fc"], "artfid": ["fc1", "fc2", "AuxLogits1.fc", "AuxLogits2.fc"]}
    for name, more in heads.items():
        torch.save(state | {f"{head}.weight": torch.ones(2, 3) for head in more}, folder / f"{name}.pth")
    return Networks({INCEPTION: folder / "fid.pth", ART_INCEPTION: folder / "artfid.pth"})


@torch.inference_mode()
def test_artfid_sees_pictures_at_their_own_size(networks: Networks) -> None:
    pictures = torch.from_numpy(CASE["art_u8"]).float() / 255
    assert pictures.shape[-2:] == (97, 131)
    check("art_features", networks.art_inception()(pictures))


@torch.inference_mode()
def test_fid_leaves_the_padding_out_and_ends_with_a_maximum(networks: Networks, state: Any) -> None:
    small = torch.from_numpy(CASE["fid_u8"]).float() / 255
    pictures = small.repeat_interleave(13, 2).repeat_interleave(13, 3)
    check("fid_features", networks.inception()(pictures))
    with pytest.raises(AssertionError, match="fid_features"):
        check("fid_features", InceptionV3(state, ARTFID)(2 * pictures - 1))


def test_what_does_not_fit_is_one_sentence(networks: Networks, state: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match="80x74 px is too small for ArtFID's Inception-v3, which needs 75"):
        networks.art_inception()(torch.zeros(1, 3, 74, 80))
    with pytest.raises(WeightsError, match="ArtFID's Inception-v3"):
        InceptionV3({name: value for name, value in state.items() if "Mixed_7c" not in name}, ARTFID)
