"""MGAN as a method: the paintings it learns from, stops between and within its stages, sizes and errors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from atelier import stylize
from atelier.core.errors import TrainingError, UsageError, WeightsError
from atelier.core.progress import Progress
from atelier.features.vgg import TINY
from atelier.images import Picture, write
from atelier.methods.base import Job
from atelier.methods.feedforward.mgan import MGan
from atelier.networks.mgan import Critic, Generator, inner
from atelier.training import checkpoint
from atelier.training.data import read_file
from atelier.training.loop import Run
from atelier.training.settings import settings_of
from atelier.training.task import MethodTask

Floats = npt.NDArray[np.float32]


@pytest.fixture
def folder(tmp_path: Path, photo: Floats, painting: Floats) -> Path:
    """Three photos, and a style."""
    (tmp_path / "photos").mkdir()
    for index, one in enumerate((photo, photo[::-1], photo[:, ::-1])):
        write(Picture.of(np.ascontiguousarray(one)), tmp_path / "photos" / f"{index}.png")
    write(Picture.of(painting), tmp_path / "style.png")
    return tmp_path


def task(folder: Path, encoder: Path, **more: Any) -> MethodTask:
    given = {"photos": (str(folder / "photos"),), "style": str(folder / "style.png"), "encoder": str(encoder)}
    small = {"width": 4, "crop": 32, "batch": 2, "steps": 4, "painted_side": 32, "held_back": 0, "warmup": 0}
    often = {"half": False, "device": "cpu", "evaluate_every": 10_000, "save_every": 10_000}
    return MethodTask(MGan, settings_of(MGan)(**(given | small | often | {"painter": "draft"} | more)))


def run(one: MethodTask, folder: Path, *, until: Any = None) -> Run:
    made = Run(one, one.settings, folder)
    made.resume()
    made.go(Progress(until))
    return made


def everything(made: Run) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    parts = {
        "networks": {name: network.state_dict() for name, network in made.networks.items()},
        "averages": {name: average.state_dict() for name, average in made.averages.items()},
        "optimisers": {name: one.state_dict()["state"] for name, one in made.optimisers.items()},
    }
    checkpoint._described(parts, "", found)
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "painted").iterdir())}


# the chain


def test_a_chain_that_is_stopped_ends_with_the_same_bits(
    folder: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    """Stopped within a painting, between two, and within the training."""
    stops = (
        lambda event: not event.stage.startswith("painting photo 1 of 2, "),
        lambda event: not event.stage.startswith("painting photo 2 of 2, "),
        lambda event: not (event.stage == "training" and event.done == 2),
    )
    small = {"painted_most": 2}
    whole = run(task(folder, tiny_encoder, **small), tmp_path / "whole")
    counts = []
    for stop in stops:
        part = run(task(folder, tiny_encoder, **small), tmp_path / "parts", until=stop)
        counts.append((len(files(tmp_path / "parts")), part.step))
        torch.manual_seed(99)
    assert counts == [(0, 0), (1, 0), (2, 2)]
    again = run(task(folder, tiny_encoder, **small), tmp_path / "parts")
    assert files(tmp_path / "whole") == files(tmp_path / "parts")
    one, other = everything(whole), everything(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


class Swapped(MGan):
    """Learns from photos whose red and blue are swapped."""

    def target(self, job: Job, training: Any) -> Tensor:
        return job.content.flip(1)


def swapped_task(folder: Path, encoder: Path, **more: Any) -> MethodTask:
    one = task(folder, encoder, **more)
    one.method = Swapped()
    return one


def test_photos_and_paintings_have_the_same_crops(folder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    one = swapped_task(folder, tiny_encoder, held_back=1)
    place = SimpleNamespace(count=1, index=0, device=torch.device("cpu"), mean=None, anyone=bool)
    assert one.make(tmp_path / "run", place, Progress())
    assert str(one) == "2 photos, 1 style; 1 held out for evaluation"
    for (batch,) in one.batches(0, place):
        assert torch.equal(batch["painted"], batch.photos.flip(1))
    for path in (tmp_path / "run" / "painted").iterdir():
        photo, painted = np.split(read_file(path), 2, 1)
        assert max(photo.shape) == 32
        assert np.array_equal(photo, painted[..., ::-1])


def test_paintings_are_made_once_and_again_for_other_settings(
    folder: Path, tiny_encoder: Path, tmp_path: Path, painting: Floats
) -> None:
    place = SimpleNamespace(count=1, index=0, device=torch.device("cpu"), anyone=bool)

    def made(**more: Any) -> None:
        assert swapped_task(folder, tiny_encoder, **more).make(tmp_path / "run", place, Progress())

    made()
    first = files(tmp_path / "run")
    assert len(first) == 3
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "run" / "painted").iterdir())]
    made()
    assert times == [path.stat().st_mtime_ns for path in sorted((tmp_path / "run" / "painted").iterdir())]
    made(painted_side=48)
    write(Picture.of(np.ascontiguousarray(painting[::-1])), folder / "style.png", overwrite=True)
    made()
    made(painter="good")
    assert len(files(tmp_path / "run")) == 12
    assert first.items() <= files(tmp_path / "run").items()


def test_it_learns_what_the_paintings_show(folder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    """The picture of a photo is far nearer to its painting than to the photo."""
    one = swapped_task(folder, tiny_encoder, steps=60, batch=4, learning_rate=0.01, average=0.5)
    made = run(one, tmp_path / "run")
    made.export(tmp_path / "made.safetensors")
    photo = torch.from_numpy(read_file(folder / "photos" / "0.png")).permute(2, 0, 1)[None] / 255
    knobs = MGan.Knobs(weights=str(tmp_path / "made.safetensors"), encoder=str(tiny_encoder))
    picture = MGan().picture(Job(photo, [], [], torch.device("cpu"), torch.float32), knobs)
    wanted, kept = ((picture - one).abs().mean() for one in (photo.flip(1), photo))
    assert wanted < 0.6 * kept, (wanted, kept)


# painting


@pytest.fixture
def weights_file(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save_file(Generator(TINY.widths[3], width=4).state_dict(), tmp_path / "made.safetensors")
    return str(tmp_path / "made.safetensors")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 9), (21, 35)])
def test_any_size(weights_file: str, tiny_encoder: Path, height: int, width: int) -> None:
    knobs = MGan.Knobs(weights=weights_file, encoder=str(tiny_encoder))
    job = Job(torch.rand(1, 3, height, width), [], [], torch.device("cpu"), torch.float32)
    made = MGan().picture(job, knobs)
    assert made.shape == job.content.shape
    assert 0 <= made.min() <= made.max() <= 1


def test_the_border_is_not_judged() -> None:
    scores = Critic(4, width=1)(torch.rand(2, 4, 16, 24))
    assert scores.shape == (2, 1, 4, 6)
    assert torch.equal(inner(scores), scores[..., 1:3, 1:5])
    assert inner(scores[..., :2, :]).shape == (2, 1, 2, 6)


# errors


def test_another_encoder_is_an_error(weights_file: str, photo: Floats) -> None:
    with pytest.raises(WeightsError, match=r"decodes 16 channels, but encoder.atelier has 256 at relu4_1"):
        stylize(photo, method="mgan", weights=weights_file, device="cpu")


def test_another_networks_file_is_an_error(tiny_encoder: Path, photo: Floats) -> None:
    with pytest.raises(WeightsError, match="are not those of an MGAN generator: use a file of"):
        stylize(photo, method="mgan", weights=str(tiny_encoder), encoder=str(tiny_encoder), device="cpu")


def test_without_a_network_it_says_how_to_train_one(photo: Floats) -> None:
    with pytest.raises(UsageError, match="needs a network of one style: train one with `atelier train mgan"):
        stylize(photo, method="mgan", device="cpu")


def test_wrong_settings_are_errors(folder: Path, tiny_encoder: Path) -> None:
    with pytest.raises(TrainingError, match=r"crop = 40 is not a multiple of 16, .*: use 32"):
        task(folder, tiny_encoder, crop=40).networks()
    with pytest.raises(TrainingError, match="learns from photos: give them with --photos"):
        task(folder, tiny_encoder, photos=())
    with pytest.raises(TrainingError, match="3 pictures are too few to hold out 3"):
        task(folder, tiny_encoder, held_back=3)
