"""Training of a method: held-out pictures are never trained on, previews are written, resuming is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from atelier.core.errors import TrainingError
from atelier.core.knobs import Knobs, knob
from atelier.core.progress import Progress
from atelier.methods import registry
from atelier.methods.base import Batch, Job, Method, Paper
from atelier.training.loop import Run
from atelier.training.settings import settings_of
from atelier.training.task import MethodTask


class Tint(Method):
    """Learn one colour that is added."""

    name = "tint"
    paper = Paper("Nobody", 2024, "Tints", "https://example.org")

    class Knobs(Knobs):
        weights: str = knob("", "The colour's file.")

    class Training(Knobs):
        crop: int = knob(16, "Side of the crops.", ge=8)
        pull: float = knob(2.0, "Weight of the paintings' mean.", ge=0)

    def network(self, training: Any) -> torch.nn.Module:
        network = torch.nn.Module()
        network.colour = torch.nn.Parameter(torch.rand(1, 3, 1, 1))
        return network

    def losses(self, network: Any, batch: Batch, training: Any) -> dict[str, torch.Tensor]:
        shift = torch.rand((), generator=batch.generator) * 0.01
        apart = batch.photos.mean((2, 3)) + network.colour[..., 0, 0] - batch.paintings.mean((2, 3)) + shift
        return {"apart": training.pull * apart.square().mean(), "size": 0.01 * network.colour.square().mean()}

    def transfer(self, job: Job, knobs: Any) -> torch.Tensor:
        return (job.content + load_file(knobs.weights)["colour"].float()).clamp(0, 1)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Photos all of one grey, paintings all of another; numbered, so that they can be told apart."""
    random = np.random.default_rng(0)
    for name, level in (("photos", 60), ("paintings", 140)):
        (tmp_path / name).mkdir()
        for index in range(9):
            pixels = random.integers(level - 20, level + 20, (24 + index, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return {name: tmp_path / name for name in ("photos", "paintings")}


def task(folders: dict[str, Path], **more: Any) -> MethodTask:
    given = {"photos": (str(folders["photos"]),), "paintings": (str(folders["paintings"]),)}
    small = {"steps": 40, "batch": 4, "held_back": 3, "half": False, "device": "cpu", "warmup": 0}
    often = {"evaluate_every": 1000, "save_every": 1000}
    return MethodTask(Tint, settings_of(Tint)(**given | small | often | more))


def trained(one: MethodTask, folder: Path, steps: int | None = None) -> Run:
    run = Run(one, one.settings, folder)
    run.resume()
    stop = (lambda event: event.done < steps) if steps else None
    run.go(Progress(stop))
    return run


def test_settings_combine_the_run_and_the_method() -> None:
    fields = settings_of(Tint).model_fields
    assert {"photos", "paintings", "steps", "learning_rate", "pull"} <= fields.keys()
    assert fields["crop"].default == 16  # the method's default, not that of all runs
    with pytest.raises(TrainingError, match="gatys has no network to train"):
        settings_of(registry.find("gatys"))


def test_held_out_pictures_are_never_trained_on(folders: dict[str, Path]) -> None:
    one = task(folders)
    for learn, judge in zip(one.data.learn, one.data.judge, strict=True):
        learnt, judged = ({entry.path for entry in part.sources[0].entries} for part in (learn, judge))
        assert (len(learnt), len(judged)) == (6, 3)
        assert learnt | judged == set(folders[learn.name].iterdir())


def test_training_learns_the_map_from_photos_to_paintings(folders: dict[str, Path], tmp_path: Path) -> None:
    run = trained(task(folders, steps=150, learning_rate=0.02), tmp_path / "run")
    colour = run.judged["network"].colour
    assert torch.allclose(colour, torch.full_like(colour, 80 / 255), atol=0.03)
    assert run.judge()["judged_loss"] < 0.02


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_is_bit_identical(folders: dict[str, Path], tmp_path: Path, accumulate: int) -> None:
    more = {"accumulate": accumulate}
    whole = trained(task(folders, **more), tmp_path / "whole").networks["network"].colour
    trained(task(folders, **more), tmp_path / "parts", steps=17)
    parts = trained(task(folders, **more), tmp_path / "parts").networks["network"].colour
    assert torch.equal(whole, parts)


def test_worker_processes_draw_the_same_pictures(folders: dict[str, Path], tmp_path: Path) -> None:
    found = []
    for workers in (0, 1):
        run = trained(task(folders, steps=5, workers=workers), tmp_path / str(workers))
        found.append(run.networks["network"].colour)
    assert torch.equal(*found)


def test_accumulation_gives_the_same_step(folders: dict[str, Path], tmp_path: Path) -> None:
    found = []
    for accumulate in (1, 2, 4):
        one = task(folders, accumulate=accumulate, steps=10)
        found.append(trained(one, tmp_path / str(accumulate)).networks["network"].colour)
    assert torch.allclose(found[0], found[1], rtol=1e-5)
    assert torch.allclose(found[0], found[2], rtol=1e-5)


def test_an_indivisible_batch_is_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    one = task(folders, accumulate=3)
    with pytest.raises(TrainingError, match=r"batch = 4 cannot be split evenly .*: choose a multiple of 3"):
        Run(one, one.settings, tmp_path / "run")


def test_a_picture_damaged_during_the_run_is_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    for workers in (0, 1):
        one = task(folders, workers=workers)
        for file in folders["photos"].iterdir():
            Image.new("RGB", (30, 30)).save(file)
        one = task(folders, workers=workers, cache=0)
        for file in folders["photos"].iterdir():
            file.write_bytes(file.read_bytes()[:50])
        with pytest.raises(TrainingError, match=r"^\S+\.png cannot be decoded as a picture") as caught:
            trained(one, tmp_path / f"run{workers}")
        assert "\n" not in str(caught.value)


def test_the_sheet_shows_photo_painting_and_result(folders: dict[str, Path], tmp_path: Path) -> None:
    names = (str(folders["photos"] / "0.png"), str(folders["paintings"] / "8.png"))
    one = task(folders, steps=6, evaluate_every=3, sheet=names)
    trained(one, tmp_path / "run")
    sheets = sorted(path.name for path in (tmp_path / "run").glob("sheet-*.jpg"))
    assert sheets == ["sheet-0000003.jpg", "sheet-0000006.jpg"]
    sheet = np.asarray(Image.open(tmp_path / "run" / sheets[-1]))
    photo, made = sheet[:24, :30].mean(), sheet[:24, -30:].mean()
    assert photo == pytest.approx(60, abs=4)
    assert made > photo + 20


def test_an_odd_sheet_and_too_few_pictures_are_errors(folders: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match="the sheet has 1 pictures: list them in pairs"):
        task(folders, sheet=(str(folders["photos"] / "0.png"),))
    with pytest.raises(TrainingError, match="9 pictures are too few to hold out 9"):
        task(folders, held_back=9)


def test_the_export_metadata_has_no_folder_names(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors import safe_open

    one = task(folders)
    run = Run(one, one.settings, tmp_path / "run")
    run.export(tmp_path / "tint.safetensors")
    with safe_open(tmp_path / "tint.safetensors", "pt") as file:
        facts = file.metadata()["training"]
        assert file.get_tensor("colour").dtype == torch.float16
    assert '"paintings"' in facts
    assert str(tmp_path) not in facts


def test_a_run_starts_from_the_export_of_an_earlier_one(folders: dict[str, Path], tmp_path: Path) -> None:
    first = trained(task(folders), tmp_path / "first", 30)
    first.export(tmp_path / "first.safetensors")
    wanted = load_file(tmp_path / "first.safetensors")["colour"].float()
    network = task(folders, start=str(tmp_path / "first.safetensors")).networks()["network"]
    assert torch.equal(network.colour.detach(), wanted)
    assert network.colour.requires_grad
    assert not torch.equal(task(folders).networks()["network"].colour, wanted)


def test_starting_from_weights_of_another_network_is_an_error(
    folders: dict[str, Path], tiny_encoder: Path
) -> None:
    with pytest.raises(TrainingError, match=r"tiny\.safetensors does not hold a network of tint"):
        task(folders, start=str(tiny_encoder)).networks()
