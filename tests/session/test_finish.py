"""The `finish` control: a last pass of a diffusion network over the picture of any method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import atelier
from atelier.core.progress import Event
from atelier.methods.diffusion.model import NetworkSettings
from atelier.networks.unet import UNet
from atelier.session import run

SETTINGS = NetworkSettings(width=16, multiples=(1, 2), highest=0.5)


@pytest.fixture
def finisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny network in place of the bundled one."""
    torch.manual_seed(0)
    metadata = {"network": "ddpm", "training": json.dumps({"settings": SETTINGS.model_dump()})}
    path = tmp_path / "finisher.safetensors"
    save_file(UNet(SETTINGS.plan).state_dict(), path, metadata=metadata)
    monkeypatch.setattr(run, "FINISHER", str(path))
    return str(path)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).random((24, 32, 3), dtype=np.float32)


def made(photo: np.ndarray, **settings: Any) -> atelier.Picture:
    return atelier.stylize(photo, photo[::-1].copy(), method="colour", **settings)


def test_it_changes_the_picture_and_is_in_the_receipt(finisher: str, photo: np.ndarray) -> None:
    plain, finished = made(photo), made(photo, finish=0.1)
    difference = np.abs(plain.pixels - finished.pixels)
    assert 0.01 < difference.mean() < 0.3
    assert finished.recipe is not None
    assert finished.recipe["controls"]["finish"] == 0.1
    assert list(finished.recipe["weights"]) == ["finisher.safetensors"]
    assert finished.recipe["source_type"].endswith("compositeWithTrainedAlgorithmicMedia")
    assert plain.recipe is not None
    assert not plain.recipe["weights"]


def test_strength_0_is_the_photo_and_the_mask_is_kept(finisher: str, photo: np.ndarray) -> None:
    assert np.array_equal(made(photo, finish=0.3, strength=0).pixels, photo)
    mask = np.zeros(photo.shape[:2], np.float32)
    mask[:, :16] = 1
    masked = made(photo, finish=0.3, mask=mask, feather=0).pixels
    assert np.array_equal(masked[:, 16:], photo[:, 16:])


def test_events_go_on_from_those_of_the_method(finisher: str, photo: np.ndarray) -> None:
    events: list[Event] = []
    made(photo, finish=0.2, progress=events.append)
    assert events[-1].done == events[-1].total
    assert {event.stage for event in events} >= {"removing noise"}
    shares = [event.done / event.total for event in events]
    assert shares == sorted(shares)


def test_a_stop_keeps_the_methods_picture(finisher: str, photo: np.ndarray) -> None:
    stopped = made(photo, finish=0.3, progress=lambda event: False)
    assert np.array_equal(stopped.pixels, made(photo).pixels)
