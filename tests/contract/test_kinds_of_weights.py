"""Throw-away methods with weights of other kinds: two networks in training, and a folder of files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import atelier
from atelier.apps import cli

Floats = npt.NDArray[np.float32]
Add = Callable[[str], None]

RIVALS = """
from atelier.methods.trainable import Update


class Rivals(Method):
    \"\"\"Tint a photo by a painter that learns against a critic, each with an optimiser of its own.\"\"\"

    name = "rivals"
    paper = PAPER
    takes = Takes(least=0)
    data = "domains"
    averaged = ()

    class Knobs(AnyKnobs):
        weights: str = knob("", "The file of both networks.", file="weights")

    class Training(AnyKnobs):
        pull: float = knob(1.0, "Weight of the critic's score.", ge=0)

    def networks(self, training, data):
        painter = torch.nn.Conv2d(3, 3, 1)
        critic = torch.nn.Conv2d(3, 1, 1)
        for network in (painter, critic):
            torch.nn.init.constant_(network.weight, 0.5)
            torch.nn.init.zeros_(network.bias)
        return {"painter": painter, "critic": critic}

    def optimisers(self, networks, training):
        return {
            "critic": torch.optim.SGD(networks["critic"].parameters(), lr=training.learning_rate),
            "painter": torch.optim.Adam(networks["painter"].parameters(), lr=training.learning_rate),
        }

    def updates(self, networks, batch, training, state):
        painter, critic = networks["painter"], networks["critic"]
        painted = painter(batch["a"])
        yield Update("critic", {"apart": critic(painted.detach()).mean() - critic(batch["b"]).mean()})
        yield Update("painter", {"real": -training.pull * critic(painted).mean()})

    def weights(self, knobs):
        return (knobs.weights,)

    def transfer(self, job, knobs):
        from atelier.store.weights import load

        return job.content * 0 + load(knobs.weights)["painter.weight"].float().mean()
"""

PIPED = """
class Piped(Method):
    \"\"\"Tint a photo by a number in a pipeline, a folder of several files.\"\"\"

    name = "piped"
    paper = PAPER
    takes = Takes(least=0)

    class Knobs(AnyKnobs):
        pipeline: str = knob("", "Name or folder of a pipeline.", file="weights")

    def weights(self, knobs):
        return (knobs.pipeline,)

    def transfer(self, job, knobs):
        from atelier.store.weights import folder, load

        tensors = load(folder(knobs.pipeline) / "unet" / "model.safetensors")
        return torch.full_like(job.content, tensors["tint"].item())
"""


@pytest.fixture
def _apart() -> Iterator[None]:
    """Accelerate keeps one state for the whole process; this test gets its own."""
    state = pytest.importorskip("accelerate.state")
    state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("_apart")
def test_two_networks_train_with_an_optimiser_each(
    add: Add,
    photo: Floats,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add(RIVALS)
    monkeypatch.chdir(tmp_path)
    from atelier.images import write
    from atelier.store.weights import load

    for name, grey in (("dark", 0.2), ("light", 0.8)):
        (tmp_path / name).mkdir()
        for index in range(4):
            write(
                atelier.Picture.of(np.full((20, 24, 3), grey, np.float32)), tmp_path / name / f"{index}.png"
            )
    small = (
        "--steps 3 --batch 2 --crop 16 --held-back 1 --warmup 0 --cooldown 0 --learning-rate 0.1 --clip 1e9"
    )
    flags = f"--a dark --b light {small} --no-half --device cpu --threads 1"
    assert cli.main(["train", "rivals", *flags.split()]) == 0
    assert "runs/rivals/rivals.safetensors  3 steps" in capsys.readouterr().err
    trained = load("runs/rivals/rivals.safetensors")
    # SGD on the mean score: the slope of each of the critic's weights is the grey of `a` as the painter
    # paints it less the grey of `b`. The painter's Adam moves every weight by the rate where all slopes
    # agree in sign. Both are computed here in plain numbers.
    weight, bias, critic = 0.5, 0.0, 0.5
    dark, light = round(0.2 * 255) / 255, round(0.8 * 255) / 255
    for _ in range(3):
        critic -= 0.1 * (3 * weight * dark + bias - light)
        weight, bias = weight + 0.1, bias + 0.1
    np.testing.assert_allclose(trained["critic.weight"].float().ravel(), critic, atol=1e-3)
    np.testing.assert_allclose(trained["painter.weight"].float().ravel(), weight, atol=1e-3)
    np.testing.assert_allclose(trained["painter.bias"].float(), bias, atol=1e-3)
    made = atelier.stylize(photo, method="rivals", weights="runs/rivals/rivals.safetensors", device="cpu")
    np.testing.assert_allclose(made.pixels, weight, atol=1e-3)


PIPELINE = ("model_index.json", "unet/config.json", "unet/model.safetensors")


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the layout of diffusers, in the current folder, with 0.3 as its only number."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    (folder / "unet").mkdir(parents=True)
    for name in PIPELINE[:2]:
        (folder / name).write_text(json.dumps({"name": name}))
    _tint(folder, 0.3)
    return folder


def _tint(folder: Path, value: float) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"tint": torch.tensor([value])}, folder / PIPELINE[2])


def _hash_of(folder: Path) -> str:
    """The sha256 of the names and hashes of a pipeline's files, a line each, as `sha256sum` prints them."""
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in PIPELINE]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.fixture
def installed(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same pipeline as the record `pipe.test`, installed in a cache of its own."""
    from atelier.store import records, weights

    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    records.records()
    monkeypatch.setattr(records, "_records", dict(records._records))
    files = tuple(records.File(name=name) for name in PIPELINE)
    records.register(
        records.Record(name="pipe.test", kind="pipeline", licence="MIT", paper="none", files=files)
    )
    return weights.add("pipe.test", pipeline)


def _piped(photo: Floats, path: Path, value: str) -> atelier.Picture:
    """A picture made from a file with the pipeline that `value` names, written to `path`."""
    from atelier.images import write

    write(atelier.Picture.of(photo), path.with_name("photo.png"))
    made = atelier.stylize(path.with_name("photo.png"), method="piped", pipeline=value, device="cpu")
    write(made, path)
    np.testing.assert_allclose(made.pixels, 0.3, atol=1e-6)
    return made


@pytest.mark.parametrize("value", ["mine", "pipe.test"])
@pytest.mark.parametrize("changed", PIPELINE)
def test_weights_in_a_folder_replay_until_a_file_changes(
    add: Add, photo: Floats, pipeline: Path, installed: Path, tmp_path: Path, value: str, changed: str
) -> None:
    add(PIPED)
    made = _piped(photo, tmp_path / "made.png", value)
    assert made.recipe is not None
    assert made.recipe["weights"] == {value: _hash_of(pipeline)}
    again = atelier.replay(tmp_path / "made.png")
    assert np.array_equal(again.pixels, made.pixels)
    assert again.recipe == made.recipe
    folder = pipeline if value == "mine" else installed
    if changed.endswith(".json"):
        (folder / changed).write_text(json.dumps({"name": "another"}))
    else:
        _tint(folder, 0.4)
    with pytest.raises(atelier.WeightsError, match=rf"'{value}' has changed"):
        atelier.replay(tmp_path / "made.png")


def test_a_pipeline_is_found_beside_the_picture(
    add: Add, photo: Floats, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(PIPED)
    (tmp_path / "elsewhere" / "mine").mkdir(parents=True)  # no weights, and first in the search
    monkeypatch.chdir(tmp_path / "elsewhere")
    made = _piped(photo, tmp_path / "made.png", str(pipeline))
    assert made.recipe is not None
    assert made.recipe["weights"].keys() == {"mine"}
    assert np.array_equal(atelier.replay(tmp_path / "made.png").pixels, made.pixels)
    (tmp_path / "elsewhere" / "mine").rmdir()
    _tint(pipeline, 0.4)
    with pytest.raises(atelier.WeightsError, match="'mine' has changed"):
        atelier.replay(tmp_path / "made.png")
    shutil.rmtree(pipeline)
    with pytest.raises(atelier.WeightsError, match="no weights called 'mine'"):
        atelier.replay(tmp_path / "made.png")
