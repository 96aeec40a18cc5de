"""The studio without a page: pictures, jobs, the gallery, folders, comparisons."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import atelier
from atelier import examples
from atelier.core.errors import AtelierError, InputError, OutputError, UsageError
from atelier.core.progress import Event
from atelier.session.run import Setup
from atelier.studio.ahead import Ahead
from atelier.studio.jobs import Job, Queue
from atelier.studio.limits import BusyError, Limits, NotHereError, TooLargeError, WeightsFolder
from atelier.studio.pictures import Upload
from atelier.studio.requests import Inputs, Settings
from atelier.studio.service import Studio

from .conftest import LIMITS, encoded, png

COLOUR, SAME = Settings("colour"), Settings("identity")


def finished(job: Job) -> Job:
    assert job.wait(60)
    return job


def inputs(studio: Studio) -> Inputs:
    return Inputs(studio.pictures.add(png(), "harbour.png"), [studio.pictures.add(png(seed=1), "waves.png")])


# pictures that are made


def test_a_picture_is_kept_with_a_receipt_that_makes_it_again(studio: Studio, tmp_path: Path) -> None:
    job = finished(studio.paint(inputs(studio), COLOUR))
    assert (job.state, job.error, job.title) == ("done", "", "harbour · colour")
    (made,) = job.made
    path = tmp_path / "downloaded.tif"
    path.write_bytes(studio.gallery.file(made.id, "tif"))
    (tmp_path / "harbour.png").write_bytes(png())
    (tmp_path / "waves.png").write_bytes(png(seed=1))
    again = atelier.replay(path)
    assert np.abs(again.pixels - atelier.Picture.open(path).pixels).max() < 1 / 65535
    for kind, magic in (("png", b"\x89PNG"), ("jpg", b"\xff\xd8"), ("webp", b"RIFF")):
        data = studio.gallery.file(made.id, kind)
        assert data.startswith(magic)
        _, settings, missing = studio.request_in(data, f"a.{kind}")
        assert (settings.method, missing) == ("colour", [])
    assert Image.open(io.BytesIO(studio.gallery.thumbnail(made.id))).size == (24, 16)


def test_the_request_of_a_picture_is_given_back(studio: Studio) -> None:
    asked = inputs(studio)
    settings = Settings("colour", "draft", {"strength": 0.5, "seed": 3})
    made = finished(studio.paint(asked, settings)).made[0]
    kept, same = studio.request_of(made.id)
    assert (kept.content, list(kept.styles), same) == (asked.content, list(asked.styles), settings)
    pixels = [studio.gallery.open(finished(studio.paint(kept, same)).made[0].id).pixels for _ in range(2)]
    np.testing.assert_array_equal(*pixels)


def test_a_receipt_from_elsewhere_names_what_is_missing(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(png())
    (tmp_path / "style.png").write_bytes(png(seed=1))
    made = atelier.stylize(tmp_path / "photo.png", tmp_path / "style.png", method="colour", strength=0.25)
    atelier.images.write(made, tmp_path / "made.png")
    data = (tmp_path / "made.png").read_bytes()
    studio.pictures.add(png(seed=1))
    found, settings, missing = studio.request_in(data)
    assert (found.content, len(found.styles), missing) == (None, 1, ["photo.png"])
    assert settings.values["strength"] == 0.25
    with pytest.raises(InputError, match="carries no atelier recipe"):
        studio.request_in(png())


def test_arrays_masks_and_regions_are_inputs_too(studio: Studio) -> None:
    flat = Settings("style_copy", values={"feather": 0})
    photo = np.zeros((16, 24, 3), np.uint8)
    white = np.full((16, 24, 3), 255, np.uint8)
    left = np.zeros((16, 24), np.uint8)
    left[:, :12] = 255
    job = finished(studio.paint(Inputs(photo, [white], mask=left), flat))
    pixels = studio.gallery.open(job.made[0].id).pixels
    assert (pixels[:, 2].min(), pixels[:, -2].max()) == (1, 0)
    both = Inputs(photo, [white, photo], regions=[left, 255 - left])
    pixels = studio.gallery.open(finished(studio.paint(both, flat)).made[0].id).pixels
    assert (pixels[:, 1].min(), pixels[:, -1].max()) == (1, 0)


def test_a_picture_without_a_photo_has_the_size_that_is_asked_for(studio: Studio) -> None:
    asked = Settings("quilting", values={"size": [40, 24], "block": 8})
    job = finished(studio.paint(Inputs(styles=[png(48, 48)]), asked))
    assert (job.error, job.made[0].size) == ("", (40, 24))
    with pytest.raises(TooLargeError, match="the limit of this studio is 256"):
        studio.paint(Inputs(styles=[png(48, 48)]), Settings("quilting", values={"size": [257, 8]}))


def test_extra_outputs_are_kept_beside_the_picture(studio: Studio) -> None:
    asked = Settings("strokes", "draft", {"svg": ".svg", "size": 32})
    made = finished(studio.paint(Inputs(png(32, 32)), asked)).made[0]
    data, suffix = studio.gallery.artifact(made.id, "svg")
    assert (suffix, data.lstrip()[:4]) == (".svg", b"<svg")


# warm


def test_a_style_is_looked_at_once_whatever_the_strength(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    prepare = Setup.prepare
    monkeypatch.setattr(Setup, "prepare", lambda self, *a: looks.append(1) or prepare(self, *a))
    asked = inputs(studio)
    for strength in (1.0, 0.5, 0.0):
        for _ in range(2):
            job = finished(studio.paint(asked, Settings("colour", values={"strength": strength})))
    assert looks == [1]
    photo = studio.pictures.open(asked.content)
    np.testing.assert_allclose(studio.gallery.open(job.made[0].id).pixels, photo.pixels, atol=1e-5)
    finished(studio.paint(asked, Settings("colour", values={"seed": 1})))
    assert looks == [1, 1]


def test_a_preview_is_small_and_is_not_kept(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "large")
    large = Image.new("RGB", (1500, 600), (200, 40, 40))
    photo = studio.pictures.add(encoded(large, "JPEG"), "large.jpg")
    job = finished(studio.paint(Inputs(photo), SAME, preview=True))
    assert job.made[0].picture is not None
    assert (job.made[0].picture.size, job.made[0].id) == ((512, 205), "")
    assert not studio.gallery.list()
    studio.close()


def test_pictures_of_old_previews_do_not_stay_in_memory(studio: Studio) -> None:
    for number in range(14):
        finished(studio.paint(Inputs(png(seed=number)), SAME, preview=True))
        finished(studio.paint(Inputs(png(seed=number)), SAME))
    held = [job for job in studio.queue.all() if any(one.picture is not None for one in job.made)]
    assert 1 <= len(held) <= 8


def test_a_newer_preview_replaces_older_ones_and_does_not_wait_for_the_queue(
    studio: Studio, dim: str
) -> None:
    long = studio.paint(Inputs(png()), Settings(dim, values={"steps": 10_000}))
    first = studio.paint(Inputs(png()), Settings(dim, values={"steps": 9_999}), preview=True, group="page")
    second = studio.paint(Inputs(png()), SAME, preview=True, group="page")
    assert finished(second).state == "done"
    assert finished(first).state == "stopped"
    assert long.state == "running"
    long.cancel()
    assert finished(long).state == "stopped"


# jobs


def test_stopping_keeps_the_best_picture_so_far(studio: Studio, dim: str) -> None:
    white = encoded(Image.new("RGB", (16, 16), "white"))
    job = studio.paint(Inputs(white), Settings(dim, values={"steps": 100_000}))
    while job.now.done < 20:
        assert job.wait(10, after=job.now.number)
    studio.cancel(job.id)
    finished(job)
    assert job.state == "stopped"
    entry = studio.gallery.get(job.made[0].id)
    assert entry.stopped
    done = (studio.gallery.receipt(entry.id) or {})["stopped_after"]
    assert done >= 20
    np.testing.assert_allclose(studio.gallery.open(entry.id).pixels, 0.99**done, atol=1e-4)
    assert job.preview is not None
    assert job.preview.shape == (16, 16, 3)


def test_a_job_tells_how_far_it_is(studio: Studio, dim: str) -> None:
    job = studio.paint(Inputs(png()), Settings(dim, values={"steps": 60}))
    finished(job)
    notes = job.notes()
    assert [note.number for note in notes] == list(range(len(notes)))
    assert [*(note.state for note in notes[:2]), notes[-1].state] == ["waiting", "running", "done"]
    middle = [note for note in notes if 20 <= note.done < 60]
    assert middle
    for note in middle:  # even steps: what is left follows from what has passed
        assert note.left == pytest.approx(note.seconds / note.done * (60 - note.done), rel=0.5, abs=0.3)
    assert notes[-1].left == 0
    assert not job.notes(after=notes[-1].number)


def test_a_job_ends_at_the_time_limit_with_what_it_has(tmp_path: Path, dim: str) -> None:
    studio = Studio(tmp_path / "quick", limits=Limits(seconds=0.3))
    job = finished(studio.paint(Inputs(png()), Settings(dim, values={"steps": 100_000})))
    assert (job.state, len(job.made)) == ("stopped", 1)
    assert "stopped at the limit of 0.3 s" in job.now.text
    studio.close()


def test_jobs_run_one_after_the_other_in_order_and_the_queue_has_an_end() -> None:
    running, most, order = [0], [0], []
    gate = threading.Event()

    def work(number: int) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        gate.wait(10)
        order.append(number)
        running[0] -= 1

    queue = Queue(Limits(queue=200))
    first = queue.put(Job("test", "first", lambda _: work(0)))
    first.wait(5, after=0)
    jobs = [queue.put(Job("test", str(n), lambda _, n=n: work(n))) for n in range(1, 201)]
    assert [queue.ahead(job) for job in (jobs[0], jobs[-1])] == [1, 200]
    with pytest.raises(BusyError, match="200 jobs are waiting, which is the limit"):
        queue.put(Job("test", "one too many", lambda _: None))
    jobs[99].cancel()
    assert jobs[99].state == "stopped"
    gate.set()
    assert all(job.wait(20) for job in jobs)
    assert order == [n for n in range(201) if n != 100]
    assert most == [1]
    queue.close()


def test_a_failure_is_a_sentence_and_the_next_job_runs(studio: Studio) -> None:
    queue = studio.queue
    broken = finished(queue.put(Job("test", "broken", lambda _: [][0])))
    assert (broken.state, "internal error" in broken.error) == ("failed", True)
    known = finished(queue.put(Job("test", "known", lambda _: (_ for _ in ()).throw(UsageError("a \x00 b")))))
    assert known.error == r"a \x00 b"
    full = finished(queue.put(Job("test", "full", lambda _: (_ for _ in ()).throw(MemoryError()))))
    assert full.error == "not enough memory: ask for a smaller size"
    assert finished(studio.paint(Inputs(png()), SAME)).state == "done"
    with pytest.raises(NotHereError, match="there is no job 'nothing'"):
        studio.job("nothing")


# many at once


def test_a_folder_lists_errors_by_file_and_packs_the_rest(studio: Studio) -> None:
    contents = [
        Upload("a.png", png()),
        Upload("broken.png", png()[:99]),
        Upload("text.png", b"text"),
        Upload("a.png", png(seed=5)),
        Upload("huge.png", bytes(2**21)),
    ]
    job = finished(studio.folder_of(contents, Inputs(styles=[png(seed=1)]), COLOUR))
    assert job.state == "done"
    assert [(row.label, bool(row.id)) for row in job.made] == [
        ("a.png", True),
        ("broken.png", False),
        ("text.png", False),
        ("a.png", True),
        ("huge.png", False),
    ]
    assert "cut short" in job.made[1].error
    assert "is not a picture" in job.made[2].error
    assert "the limit of this studio is 1 MiB" in job.made[4].error
    with zipfile.ZipFile(studio.zip(job, format="jpg")) as packed:
        assert packed.namelist() == ["a.jpg", "a-2.jpg", "errors.txt"]
        assert packed.read("errors.txt").decode().count("\n") == 3
        assert packed.read("a.jpg") != packed.read("a-2.jpg")
    with pytest.raises(UsageError, match="did you mean 'strength'"):
        studio.folder_of(contents, Inputs(styles=[png()]), Settings("colour", values={"strenght": 1}))


def test_a_comparison_has_time_and_memory_for_each_cell(studio: Studio) -> None:
    variants = [COLOUR, SAME, Settings("colour", values={"strength": 0}), Settings("gatis")]
    job = finished(studio.compare(inputs(studio), variants))
    assert [cell.label for cell in job.made] == [
        "colour good",
        "identity good",
        "colour good, strength 0",
        "gatis good",
    ]
    assert [bool(cell.id) for cell in job.made] == [True, True, True, False]
    # Quick cells can take less than the millisecond to which the time is rounded.
    assert job.made[0].seconds > 0
    assert all((cell.memory or 0) > 50 for cell in job.made[:3])
    assert "did you mean 'gatys'" in job.made[3].error
    same, none = (studio.gallery.open(job.made[n].id).pixels for n in (1, 2))
    np.testing.assert_allclose(same, none, atol=1e-4)


# the gallery


def test_the_gallery_is_newest_first_and_can_be_searched_and_emptied(studio: Studio) -> None:
    for name in ("harbour", "mountain", "harbour at night"):
        photo = studio.pictures.add(png(seed=len(name)), f"{name}.png")
        finished(studio.paint(Inputs(photo), SAME))
        time.sleep(0.002)
    gallery = studio.gallery
    titles = [entry.title for entry in gallery.list()]
    assert titles == ["harbour at night · identity", "mountain · identity", "harbour · identity"]
    assert [one.title for one in gallery.list(search="Harbour IDENTITY")] == [titles[0], titles[2]]
    first = gallery.list(limit=1)
    assert [one.title for one in gallery.list(before=first[0].id)] == titles[1:]
    gallery.delete(first[0].id)
    assert not list(gallery.folder.glob(f"{first[0].id}*"))
    with pytest.raises(NotHereError, match="it may have been deleted"):
        gallery.get(first[0].id)


def test_the_gallery_outlives_the_server_and_a_damaged_entry(tmp_path: Path) -> None:
    studio = Studio(tmp_path, limits=LIMITS)
    made = [finished(studio.paint(Inputs(png()), SAME)).made[0].id for _ in range(3)]
    studio.close()
    (tmp_path / "gallery" / f"{made[0]}.json").write_text("{")
    (tmp_path / "gallery" / f"{made[1]}.tif").unlink()
    (tmp_path / "gallery" / "other.json").write_text('{"id": "../../etc"}')
    again = Studio(tmp_path, limits=LIMITS)
    assert [entry.id for entry in again.gallery.list()] == [made[2]]
    assert again.request_of(made[2])[1] == SAME
    again.close()


def test_two_studios_do_not_share_a_folder(studio: Studio) -> None:
    with pytest.raises(OutputError, match="another studio uses the folder"):
        Studio(studio.folder)


# pictures that are kept


def test_the_shelf_has_the_drawn_styles_and_ones_own(studio: Studio) -> None:
    drawn = [style.id for style in studio.pictures.shelf()]
    assert "style:woodcut" in drawn
    own = studio.pictures.keep(png(seed=9), "../my waves.png")
    assert (own.name, own.own, studio.pictures.shelf()[0]) == ("my waves.png", True, own)
    assert Image.open(io.BytesIO(studio.pictures.thumbnail(own.id, 8))).size == (8, 5)
    studio.pictures.drop(own.id)
    assert [style.id for style in studio.pictures.shelf()] == drawn
    with pytest.raises(NotHereError):
        studio.pictures.open(own.id)
    with pytest.raises(AtelierError, match="is not a picture"):
        studio.pictures.keep(b"text")


def test_the_styles_that_are_missing_are_drawn_ahead_and_the_drawing_ends_with_the_studio(
    studio: Studio,
) -> None:
    drawn = studio.pictures.drawn
    for name in set(examples.STYLES) - {"ink", "garden"}:
        (drawn / f"style-{name}.png").write_bytes(b"drawn before")
    assert studio.pictures.undrawn() == ["style:garden", "style:ink"]
    ahead = Ahead(studio.pictures)
    ahead.start()
    for _ in range(600):
        if not studio.pictures.undrawn():
            break
        time.sleep(0.1)
    found = atelier.Picture.open(drawn / "style-ink.png").pixels
    assert np.abs(found - examples.style("ink")).max() <= 0.5 / 255 + 1e-6
    assert (drawn / "style-fauve.png").read_bytes() == b"drawn before"
    (drawn / "style-abstraction.png").unlink()
    again = Ahead(studio.pictures)
    again.start()
    again.close()
    time.sleep(0.2)
    assert studio.pictures.undrawn() == ["style:abstraction"]
    ahead.close()


def test_the_oldest_uploads_make_room(tmp_path: Path) -> None:
    size = len(png())
    studio = Studio(tmp_path, limits=Limits(kept_bytes=3 * size + 40))
    ids = []
    for seed in range(5):
        ids.append(studio.pictures.add(png(seed=seed)))
        time.sleep(0.01)
    with pytest.raises(NotHereError, match="send it again"):
        studio.pictures.open(ids[0])
    assert studio.pictures.open(ids[-1]).size == (24, 16)
    studio.close()


def test_own_weights_are_named_without_a_path(tmp_path: Path, tiny_encoder: Path) -> None:
    studio = Studio(tmp_path / "studio", weights=tiny_encoder.parent)
    asked = Settings("gatys", values={"encoder": "tiny.safetensors", "iterations": 2, "size": 24})
    job = finished(studio.paint(Inputs(png(), [png(seed=1)]), asked))
    assert (job.state, job.error) == ("done", "")
    recipe = studio.gallery.receipt(job.made[0].id) or {}
    assert list(recipe["weights"]) == ["tiny.safetensors"]
    assert studio.request_of(job.made[0].id)[1] == asked
    studio.close()


def test_weights_come_from_the_named_folder_alone(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    (folder / "mine.safetensors").write_bytes(b"mine")
    (folder / "old.pth").write_bytes(b"old")
    (folder / "away.safetensors").symlink_to(tmp_path / "secret.safetensors")
    shelf = WeightsFolder(folder)
    assert shelf.names() == ["mine.safetensors"]
    assert shelf.settle("weights", "mine.safetensors") == str(folder / "mine.safetensors")
    assert shelf.settle("weights", "adain.atelier") == "adain.atelier"
    for bad in (
        "away.safetensors",
        "../secret.safetensors",
        str(tmp_path / "secret.safetensors"),
        "old.pth",
        3,
    ):
        with pytest.raises(UsageError, match=r"weights = .* is not allowed"):
            shelf.settle("weights", bad)


def test_work_that_reports_at_once_is_not_late_on_a_machine_that_has_run_for_days(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 1e6)
    heard = []
    job = studio.queue.put(Job("paint", "quick", lambda job: heard.append(job.listen(Event(1, 2)))))
    assert job.wait(10)
    assert (job.state, heard) == ("done", [True])
