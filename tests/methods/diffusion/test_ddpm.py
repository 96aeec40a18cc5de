"""DDPM as a method: tiles, noise, files with their conventions, and generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import atelier
from atelier.core.errors import UsageError, WeightsError
from atelier.core.progress import Event
from atelier.methods.diffusion import model
from atelier.networks.unet import UNet

CPU = torch.device("cpu")
SETTINGS = model.NetworkSettings(width=16, multiples=(1, 2), highest=0.5)


def saved(path: Path, settings: model.NetworkSettings = SETTINGS, **more: Any) -> str:
    """A network whose layers that start at zero do something, as `atelier train ddpm` writes it."""
    torch.manual_seed(0)
    network = UNet(settings.plan)
    for weight in network.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    facts = {"settings": settings.model_dump() | more}
    metadata = {"network": "ddpm", "training": json.dumps(facts)}
    save_file(network.state_dict(), path, metadata=metadata)
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return saved(tmp_path / "tiny.safetensors")


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).random((40, 56, 3), dtype=np.float32)


def test_a_file_keeps_the_conventions_of_its_training(file: str) -> None:
    denoiser = model.load(file, CPU, torch.float32)
    assert denoiser.settings == SETTINGS
    assert denoiser.network.plan == SETTINGS.plan


def test_tiles_equal_the_whole(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = model.load(file, CPU, torch.float32)
    picture = torch.randn(1, 3, 130, 203, generator=torch.Generator().manual_seed(1))
    whole = denoiser.predict(picture, torch.tensor([100]))
    monkeypatch.setattr(model, "_CORE", 64)
    tiled = denoiser.predict(picture, torch.tensor([100]))
    assert torch.allclose(tiled, whole, atol=1e-5)


def test_less_noise_keeps_more_of_the_photo(file: str, photo: np.ndarray) -> None:
    settings: dict[str, Any] = {"method": "ddpm", "weights": file, "half": False, "steps": 4}
    errors = [
        np.abs(atelier.stylize(photo, noise=noise, **settings).pixels - photo).mean()
        for noise in (0.005, 0.1, 0.5)
    ]
    assert errors[0] < 0.02
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_as_many_steps_as_asked(file: str, photo: np.ndarray, sampler: str) -> None:
    events: list[Event] = []
    atelier.stylize(
        photo, method="ddpm", weights=file, sampler=sampler, steps=7, noise=0.2, progress=events.append
    )
    assert [(event.done, event.total) for event in events] == [(done, 7) for done in range(1, 8)]


def test_more_noise_than_the_network_knows_is_refused(file: str, photo: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"noise of 0\.8 is more than this network removes.*up to 0\.5"):
        atelier.stylize(photo, method="ddpm", weights=file, noise=0.8)
    with pytest.raises(UsageError, match="noise of 1 is more"):
        atelier.generate("ddpm", weights=file, size=16)


def test_pictures_from_noise_alone_differ_by_seed(tmp_path: Path) -> None:
    file = saved(tmp_path / "whole.safetensors", SETTINGS.model_copy(update={"highest": 1.0}))
    first, second = (
        atelier.generate("ddpm", weights=file, size=(24, 16), steps=3, seed=seed) for seed in (0, 1)
    )
    assert first.size == (24, 16)
    assert not np.array_equal(first.pixels, second.pixels)


def test_weights_of_other_networks_are_refused(tmp_path: Path, photo: np.ndarray) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layer.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"other\.safetensors: these 1 tensors"):
        atelier.stylize(photo, method="ddpm", weights=str(path))


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({"target": "eps", "min_snr": 0.0}, {"error"}),
        ({"target": "v", "learned": True}, {"error", "bound"}),
        ({"target": "x0", "groups": 8, "attention": (2,), "head": 8}, {"error"}),
    ],
)
def test_training_terms(settings: dict[str, Any], terms: set[str]) -> None:
    from atelier.methods.base import Batch
    from atelier.methods.diffusion.ddpm import Ddpm

    training = Ddpm.Training(width=16, multiples=(1, 2), **settings)
    method = Ddpm()
    network = method.network(training)
    pictures = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = Batch({"pictures": pictures}, 0, torch.Generator().manual_seed(0))
    found = method.losses(network, batch, training)
    assert found.keys() == terms
    sum(found.values()).backward()
    weight = network.out[2].weight
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_shares_of_a_batch_add_up_to_the_whole() -> None:
    """The noise and steps of a row do not depend on how the batch is divided among processes."""
    from atelier.methods.base import Batch
    from atelier.methods.diffusion.ddpm import Ddpm

    training = Ddpm.Training(width=16, multiples=(1, 2))
    method = Ddpm()
    torch.manual_seed(0)
    network = method.network(training)
    pictures = torch.rand(4, 3, 16, 16)

    def loss(rows: torch.Tensor, part: tuple[int, int]) -> float:
        batch = Batch({"pictures": rows}, 0, torch.Generator().manual_seed(3), part)
        return float(method.losses(network, batch, training)["error"].detach())

    halves = [loss(pictures[index::2], (index, 2)) for index in (0, 1)]
    assert sum(halves) / 2 == pytest.approx(loss(pictures, (0, 1)), rel=1e-5)
