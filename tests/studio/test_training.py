"""Trainings: followed through their files, started without paths, found again by another studio."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from atelier.core.errors import AtelierError, TrainingError, UsageError
from atelier.methods import registry
from atelier.studio.service import Studio
from atelier.studio.training import TrainingJob
from atelier.training.settings import settings_of

from .conftest import LIMITS, png


def left_behind(folder: Path, **facts: Any) -> Path:
    """A training as a server that has ended leaves it."""
    run = folder / "trainings" / "train-0123456789ab"
    run.mkdir(parents=True)
    usual = {
        "id": run.name,
        "name": "my style",
        "method": "adain",
        "settings": {"steps": 100},
        "resolved": {},
        "steps": 100,
        "asked": 100,
        "created": 1.0,
        "state": "running",
        "wanted": "run",
        "pid": os.getpid(),
        "born": 0.0,  # another process has this number now
    }
    (run / "studio.json").write_text(json.dumps({**usual, **facts}))
    return run


def found(folder: Path) -> tuple[Studio, TrainingJob]:
    studio = Studio(folder, limits=LIMITS)
    job = studio.job("train-0123456789ab")
    job.wait(5)
    return studio, job


def test_the_curve_and_the_samples_are_read_from_the_folder(tmp_path: Path) -> None:
    run = left_behind(tmp_path, state="paused")
    lines = [{"step": step, "seconds": step / 10, "loss": 100 - step} for step in (20, 40, 60, 40)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 80, "lo')
    (run / "sheet-0000040.jpg").write_bytes(b"jpeg of 40")
    studio = Studio(tmp_path, limits=LIMITS)
    job = studio.job("train-0123456789ab")
    assert [line["step"] for line in job.curve()] == [20, 40, 60]
    assert (job.samples(), job.sample(40)) == ([40], b"jpeg of 40")
    now = job.now
    assert (now.state, now.done, now.total, now.left) == ("paused", 60, 100, pytest.approx(4.0))
    assert job.now.number == now.number
    assert job.facts()["settings"] == {"steps": 100}
    assert job in studio.jobs
    studio.close()


@pytest.mark.parametrize(
    ("wanted", "said", "files", "state", "error"),
    [
        ("run", "atelier: the loss was not finite", (), "failed", "the loss was not finite"),
        ("run", "Killed", (), "failed", "ended without a word"),
        ("pause", "", ("checkpoint-0000020.safetensors",), "paused", ""),
        ("stop", "", (), "stopped", ""),
        ("run", "", ("adain.safetensors",), "done", ""),
    ],
)
def test_a_process_that_has_ended_is_understood(
    tmp_path: Path, wanted: str, said: str, files: tuple[str, ...], state: str, error: str
) -> None:
    run = left_behind(tmp_path, wanted=wanted)
    (run / "output.txt").write_text(f"adain on cpu\n{said}\n")
    for name in files:
        (run / name).write_bytes(b"")
    studio = Studio(tmp_path, limits=LIMITS)
    job = studio.job("train-0123456789ab")
    end = time.monotonic() + 5
    while job.state == "running" and time.monotonic() < end:
        time.sleep(0.05)
    assert (job.state, error in job.error) == (state, True)
    studio.close()


def test_words_stay_words_and_several_sets_become_one_folder(studio: Studio, tmp_path: Path) -> None:
    sets = [studio.trainings.data.create(name) for name in ("one", "two")]
    for seed, one in enumerate(sets):
        studio.trainings.data.add(one.id, png(seed=seed), "a.png", caption=f"picture {seed}")
    ids = [f"data:{one.id}" for one in sets]
    words = {"trigger": "ink style", "samples": ["a castle, by night", "the sea"]}
    lora = studio.trainings.check("lora", {"pictures": ids[:1], **words}, tmp_path / "lora")
    assert (lora.trigger, lora.samples) == ("ink style", ("a castle, by night", "the sea"))
    assert lora.pictures == (str(studio.trainings.data.path(sets[0].id)),)

    named = [f"{name}={one}" for name, one in zip(("monet", "klee"), ids, strict=True)]
    given = {"photos": ids[:1], "masks": ids[1], "paintings": named}
    made = studio.trainings.check("phdiffusion", given, tmp_path / "composites")
    assert made.masks == str(studio.trainings.data.path(sets[1].id))
    pictures = sorted(Path(made.paintings).rglob("*.png"))
    assert [str(path.relative_to(made.paintings)) for path in pictures] == ["klee/a.png", "monet/a.png"]
    assert pictures[1].read_bytes() == png(seed=0)
    with pytest.raises(UsageError, match="a name of its own"):
        studio.trainings.check("phdiffusion", {**given, "paintings": [named[0]] * 2}, tmp_path / "again")


@pytest.mark.parametrize(
    "name", [name for name, kind in registry.list_methods().items() if kind.Training is not None]
)
def test_every_setting_of_a_training_has_one_field(name: str, studio: Studio) -> None:
    pytest.importorskip("gradio", reason="the extra 'studio' is not installed")
    from atelier.studio.page import train

    sources = train.source_form(studio, name)["fields"]
    main, rest = train.both_forms(name)
    shown = [field["name"] for field in (*sources, *main["fields"], *rest["fields"])]
    assert sorted(shown) == sorted(settings_of(registry.find(name)).model_fields)
    assert {field["kind"] for field in sources} <= {"pictures", "named_sets"}
    assert not {field["name"] for field in sources} & {"trigger", "samples"}


def test_settings_take_ids_and_no_paths(studio: Studio) -> None:
    train = studio.trainings.start
    photos = studio.trainings.data.create("photos")
    for seed in range(2):
        studio.trainings.data.add(photos.id, png(seed=seed), "../../a.png")
    assert [item.name for item in studio.trainings.data.items(photos.id)] == ["a-2.png", "a.png"]
    good = {"photos": [f"data:{photos.id}"], "paintings": [f"data:{photos.id}"]}
    for bad, says in (
        ({"photos": ["/etc"]}, "is not an id of a picture"),
        ({"photos": ["*"]}, "sets of pictures are data:ID"),
        ({"photos": [f"data:{photos.id}/../../gallery"]}, "there is no set of pictures"),
        ({"start": "/etc/passwd"}, "never paths"),
        ({"encoder": "../x.safetensors"}, "never paths"),
        ({"stepz": 3}, "did you mean 'steps'"),
        ({"steps": 0}, "greater than or equal to 1"),
    ):
        with pytest.raises(AtelierError, match=says):
            train("adain", {**good, **bad})
    with pytest.raises(AtelierError, match="has no network to train"):
        train("colour", good)
    assert not studio.trainings.all()
    assert not list(studio.trainings.folder.iterdir())


def test_captions_are_files_beside_the_pictures(studio: Studio) -> None:
    data = studio.trainings.data
    made = data.create("my style")
    data.add(made.id, png(), "waves.png", caption="waves,\n in blue")
    assert (data.path(made.id) / "waves.txt").read_text() == "waves, in blue\n"
    data.caption(made.id, "waves.png", "")
    assert data.items(made.id)[0].caption == ""
    for name, content, says in (
        ("a.png", b"text", "is not a picture"),
        ("a.exe", png(), "no extension of a picture"),
    ):
        with pytest.raises(AtelierError, match=says):
            data.add(made.id, content, name)
    data.remove(made.id, "waves.png")
    assert [one.count for one in data.all()] == [0]
    data.delete(made.id)
    with pytest.raises(AtelierError, match="it may have been deleted"):
        data.items(made.id)


@pytest.mark.slow
def test_a_training_goes_on_without_the_studio_and_is_paused_resumed_and_stopped(tmp_path: Path) -> None:
    """With the command itself: the network of a stopped run is that of the step it reached."""
    studio = Studio(tmp_path, limits=LIMITS)
    data = studio.trainings.data
    sets = []
    for name in ("photos", "paintings"):
        sets.append(f"data:{data.create(name).id}")
        for seed in range(3):
            data.add(sets[-1][5:], png(64, 64, seed), f"{seed}.png")
    settings = {
        "photos": sets[:1],
        "paintings": sets[1:],
        "steps": 400,
        "batch": 1,
        "crop": 32,
        "held_back": 1,
        "save_every": 20,
        "evaluate_every": 20,
        "half": False,
        "device": "cpu",
    }
    job = studio.train("adain", settings, name="short")
    until(lambda: job.now.done >= 20 or job.finished, 120)
    assert (job.state, job.error) == ("running", "")
    studio.close()
    studio = Studio(tmp_path, limits=LIMITS)
    job = studio.job(job.id)
    assert job.state == "running"
    seen = job.now.done
    until(lambda: job.now.done > seen or job.finished, 120)
    job.pause()
    until(lambda: job.state == "paused", 60)
    paused = job.now.done
    job.resume()
    until(lambda: job.now.done > paused or job.finished, 120)
    job.stop()
    until(lambda: job.finished, 120)
    assert (job.state, job.error) == ("stopped", "")
    assert job.result is not None
    assert all(tensor.isfinite().all() for tensor in load_file(job.result).values())
    with pytest.raises(TrainingError, match="there is nothing to pause"):
        job.pause()
    studio.trainings.delete(job.id)
    assert not job.folder.exists()
    studio.close()


def until(done: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_finished_network_is_offered_for_its_method_and_paints(tmp_path: Path) -> None:
    from atelier.store import weights
    from atelier.studio.page import inputs, paint
    from atelier.studio.requests import Inputs, Settings

    run = left_behind(tmp_path, state="done")
    network = run / "adain.safetensors"
    network.write_bytes(weights.locate("adain.atelier").read_bytes())
    studio, _ = found(tmp_path)
    name = "my style-89ab.safetensors"
    assert studio.trainings.networks("adain") == {name: network}
    assert studio.trainings.networks("johnson") == {}
    fields = {one["name"]: one for one in inputs.knob_form(studio, "adain", "good")["fields"]}
    assert fields["weights"]["offers"] == [name]
    assert name in fields["weights"]["suggestions"]
    assert "offers" not in fields["encoder"]
    chosen = paint.with_network(studio, "adain", name)
    assert (chosen[2], chosen[4]["values"]) == ("adain", {"weights": name})
    how = Settings("adain", "draft", {"weights": name, "size": 32})
    job = studio.paint(Inputs(png(), [png(seed=1)]), how)
    assert job.wait(60)
    assert job.state == "done", job.error
    studio.close()


def test_presets_are_kept_by_method(studio: Studio) -> None:
    presets = studio.presets
    assert presets.save("adain", "a/short one", {"steps": 10}) == "short one"
    presets.save("adain", "short one", {"steps": 20})
    assert presets.names("adain") == ["short one"]
    assert presets.load("adain", "short one") == {"steps": 20}
    assert presets.names("johnson") == []
    with pytest.raises(AtelierError, match="no preset 'long'"):
        presets.load("adain", "long")
    with pytest.raises(AtelierError, match="needs a name"):
        presets.save("adain", " ", {})
    with pytest.raises(AtelierError, match="no method"):
        presets.save("../adain", "x", {})
    presets.delete("adain", "short one")
    assert presets.names("adain") == []


def test_pictures_that_trainers_do_not_read_become_png(studio: Studio) -> None:
    import io

    from PIL import Image

    data, buffer = studio.trainings.data, io.BytesIO()
    Image.new("RGB", (40, 20), (200, 10, 10)).save(buffer, "TIFF")
    one = data.create("mixed")
    item = data.add(one.id, buffer.getvalue(), "scan.tif", "a scan")
    assert (item.name, data.read(one.id, item.name)[:4]) == ("scan.png", b"\x89PNG")
    assert data.items(one.id)[0].caption == "a scan"
    assert Image.open(io.BytesIO(data.thumbnail(one.id, "scan.png", 16))).size == (16, 8)
