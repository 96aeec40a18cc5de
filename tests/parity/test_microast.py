"""The published MicroAST files load under their own names and give the recorded features and pictures."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.core.knobs import parse
from atelier.methods.base import Job
from atelier.methods.registry import find, knobs_for
from atelier.networks.microast import MicroAST, from_published, from_state
from atelier.store import weights
from atelier.store.records import record

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "microast" / "layout.json").read_text())
CASE = np.load(HERE / "microast" / "case.npz")
METHOD = find("microast")
#: A folder with the four published files, for the one test that needs them.
PUBLISHED = os.environ.get("ATELIER_MICROAST_FILES", "")


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Tensor) -> None:
    fill.check(CASE, LAYOUT, name, value.detach().numpy())


def filled(model: str) -> dict[str, Tensor]:
    found = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(found) == LAYOUT["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files with filled tensors, as they are published."""
    folder = tmp_path_factory.mktemp("microast")
    for model, facts in LAYOUT["models"].items():
        torch.save(filled(model), folder / facts["file"])
    return folder


@pytest.fixture(params=["as trained", "prepared"])
def network(request: pytest.FixtureRequest) -> MicroAST:
    state = {f"{model}.{name}": value for model in LAYOUT["models"] for name, value in filled(model).items()}
    made = from_state(from_published(state)).requires_grad_(False)
    return made.prepare("cpu", torch.float32) if request.param == "prepared" else made


def test_features(network: MicroAST) -> None:
    for kind, encoder in (("content", network.content_encoder), ("style", network.style_encoder)):
        for depth, found in enumerate(encoder(array(kind)), 1):
            check(f"{kind}_features_{depth}", found)


def test_modulation(network: MicroAST) -> None:
    for depth, signal in enumerate(network.signals(array("style")), 1):
        check(f"weight_{depth}", signal.weight)
        check(f"bias_{depth}", signal.bias)


@pytest.mark.parametrize(("name", "strength"), [("output_alpha1", 1.0), ("output_alpha05", 0.5)])
def test_pictures(network: MicroAST, name: str, strength: float) -> None:
    check(name, network.paint(array("content"), network.signals(array("style")), strength=strength))


def test_another_convention_is_far_outside(network: MicroAST) -> None:
    with torch.inference_mode():
        signals = network.signals(array("style"))
        for swapped in (signals[::-1], [one._replace(bias=-one.bias) for one in signals]):
            with pytest.raises(AssertionError, match="output_alpha1"):
                check("output_alpha1", network.paint(array("content"), swapped))


def made(files: str, strength: float = 1.0) -> Tensor:
    """What the method paints in float32 with the knobs of its published quality."""
    knobs = parse(METHOD.Knobs, knobs_for(METHOD, "published", {"weights": files}))
    job = Job(
        array("content"), [array("style")], [1.0], torch.device("cpu"), torch.float32, strength=strength
    )
    found: Tensor = METHOD().transfer(job, knobs)
    return found


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty home, because filled files must not be taken for installed ones by other tests."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_folder_of_published_files_is_installed_and_paints(folder: Path, strength: float) -> None:
    known = record("microast.published")
    assert [part.name for part in known.parts] == [facts["file"] for facts in LAYOUT["models"].values()]
    with pytest.raises(WeightsError, match=r"is not the published content_encoder_iter_160000\.pth\.tar"):
        weights.add(known.name, folder)
    weights.add(known.name, folder, force=True)
    assert weights.recorded(known.name) == "unverified"
    found = made(known.name, strength)
    expected = array(f"output_alpha{strength:g}".replace(".", "")).clamp(0, 1)
    assert (found - expected).abs().max() < 3e-4


@pytest.mark.usefixtures("apart")
@pytest.mark.skipif(not PUBLISHED, reason="ATELIER_MICROAST_FILES names no folder with the published files")
def test_the_published_picture() -> None:
    weights.add("microast.published", PUBLISHED)
    assert weights.verify("microast.published") == [("microast.published", "verified")]
    network = from_state(weights.load("microast.published")).prepare("cpu", torch.float32)
    check("published_output", network.paint(array("content"), network.signals(array("style"))))
    assert (made("microast.published") - array("published_output").clamp(0, 1)).abs().max() < 1e-4


def test_a_file_of_another_network_is_named(folder: Path, tmp_path: Path) -> None:
    state = {f"content_encoder.{name}": value for name, value in filled("content_encoder").items()}
    with pytest.raises(WeightsError, match=r"do not fit MicroAST: 44 of 62 tensors are missing"):
        from_published(state)
