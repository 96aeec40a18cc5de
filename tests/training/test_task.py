"""Training on pairs: what is held back is never learnt, sheets are painted, resume is no stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from atelier.training.pairs import PairTask, settings_of
from PIL import Image
from safetensors.torch import load_file

from atelier.core.errors import TrainingError
from atelier.core.knobs import Knobs, knob
from atelier.core.progress import Progress
from atelier.methods import registry
from atelier.methods.base import Batch, Job, Method, Paper
from atelier.training.loop import Run


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


def task(folders: dict[str, Path], **more: Any) -> PairTask:
    given = {"photos": (str(folders["photos"]),), "paintings": (str(folders["paintings"]),)}
    small = {"steps": 40, "batch": 4, "held_back": 3, "half": False, "device": "cpu", "warmup": 0}
    often = {"evaluate_every": 1000, "save_every": 1000}
    return PairTask(Tint, settings_of(Tint)(**given | small | often | more))


def trained(one: PairTask, folder: Path, steps: int | None = None) -> Run:
    run = Run(one, one.settings, folder)
    run.resume()
    stop = (lambda event: event.done < steps) if steps else None
    run.go(Progress(stop))
    return run


def test_settings_hold_the_runs_and_the_methods_own() -> None:
    fields = settings_of(Tint).model_fields
    assert {"photos", "paintings", "steps", "learning_rate", "pull"} <= fields.keys()
    assert fields["crop"].default == 16  # the method's default, not that of all runs
    with pytest.raises(TrainingError, match="no network of its own"):
        settings_of(registry.find("gatys"))


def test_what_is_held_back_is_never_learnt(folders: dict[str, Path]) -> None:
    one = task(folders)
    assert (len(one.photos), len(one.judged_photos)) == (6, 3)
    heights = {len(picture) for picture in one.photos}
    assert not heights & {len(picture) for picture in one.judged_photos}
    assert heights | {len(picture) for picture in one.judged_photos} == set(range(24, 33))


def test_it_learns_what_leads_from_photos_to_paintings(folders: dict[str, Path], tmp_path: Path) -> None:
    run = trained(task(folders, steps=150, learning_rate=0.02), tmp_path / "run")
    colour = run.average.module.colour
    assert torch.allclose(colour, torch.full_like(colour, 80 / 255), atol=0.03)
    assert run.judge()["judged_loss"] < 0.02


def test_resume_is_no_stop(folders: dict[str, Path], tmp_path: Path) -> None:
    whole = trained(task(folders), tmp_path / "whole").network.colour
    trained(task(folders), tmp_path / "parts", steps=17)
    parts = trained(task(folders), tmp_path / "parts").network.colour
    assert torch.equal(whole, parts)


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


def test_an_odd_sheet_and_too_few_pictures_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(TrainingError, match="photo and painting in turn"):
        task(folders, sheet=(str(folders["photos"] / "0.png"),))
    with pytest.raises(TrainingError, match="9 pictures are too few with 9 held back"):
        task(folders, held_back=9)


def test_the_export_names_its_recipe_without_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors import safe_open

    one = task(folders)
    run = Run(one, one.settings, tmp_path / "run")
    run.export(tmp_path / "tint.safetensors")
    with safe_open(tmp_path / "tint.safetensors", "pt") as file:
        facts = file.metadata()["training"]
        assert file.get_tensor("colour").dtype == torch.float16
    assert '"paintings"' in facts
    assert str(tmp_path) not in facts
