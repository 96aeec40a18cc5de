"""Folders, patterns and several photos in one command, and pictures through the standard streams."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier.apps import cli
from atelier.images import Picture, read_recipe, write
from atelier.session.stylizer import Stylizer

from .conftest import Run

QUICK = "--method colour --threads 1"


@pytest.fixture
def photos(folder: Path, photo: Any) -> Path:
    """Photos of several kinds in a folder with a subfolder, two of them broken."""
    place = folder / "in"
    (place / "sea").mkdir(parents=True)
    for number, name in enumerate(("b.jpg", "a.png", "a.webp", "sea/c.tif")):
        write(Picture.of(np.roll(photo, number, 1)), place / name)
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (place / "sea" / "empty.png").write_bytes(b"")
    (place / "notes.txt").write_text("no picture")
    (place / ".hidden.png").write_bytes(b"")
    return place


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_gives_a_folder_and_lists_what_failed(run: Run, photos: Path) -> None:
    shown = run(f"stylize in -s style.png -o out {QUICK}")
    assert shown.code == 3
    assert names(Path("out")) == {"a-png.png", "a-webp.png", "b.png", "sea/c.png"}
    assert "4 of 6 pictures, 2 failed" in shown.err
    assert [line[:30] for line in shown.err.splitlines() if "failed: " in line] == [
        "failed: 'in/broken.jpg' cannot",
        "failed: 'in/sea/empty.png' is ",
    ]
    alone = run(f"stylize in/b.jpg -s style.png -o alone.png {QUICK}")
    assert alone.code == 0
    together, single = Picture.open("out/b.png"), Picture.open("alone.png")
    assert np.array_equal(together.pixels, single.pixels)
    assert read_recipe("out/b.png") == read_recipe("alone.png")


def test_a_second_run_paints_only_what_is_missing(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(f"stylize in -s style.png -o out {QUICK}")
    Path("out/b.png").unlink()
    painted = []
    plain = Stylizer.__call__

    def counted(self: Stylizer, content: Any, **inputs: Any) -> Picture:
        painted.append(content.name)
        return plain(self, content, **inputs)

    monkeypatch.setattr(Stylizer, "__call__", counted)
    shown = run(f"stylize in -s style.png -o out {QUICK} --json")
    assert painted == ["in/b.jpg"]
    facts = json.loads(shown.out)
    assert (facts["total"], facts["written"], facts["kept"]) == (6, 1, 3)
    assert set(facts["failed"]) == {"in/broken.jpg", "in/sea/empty.png"}
    other = run(f"stylize in/b.jpg in/a.png -s style.png -o out {QUICK} --strength 0.5")
    assert other.code == 5
    assert "made with other settings" in other.err
    again = run(f"stylize in/*.jpg in/a.png -s style.png -o out --overwrite {QUICK} --strength 0.5")
    assert "2 of 3 pictures, 1 failed" in again.err


def test_each_style_has_its_folder(run: Run, photos: Path, painting: Any) -> None:
    write(Picture.of(painting[:, ::-1]), "other.png")
    shown = run(f"stylize in/sea -s style.png -s other.png --each -o out --format jpg {QUICK}")
    assert shown.code == 3
    assert names(Path("out")) == {"style/c.jpg", "other/c.jpg"}
    recipes = [read_recipe(f"out/{name}/c.jpg") or {} for name in ("style", "other")]
    assert [recipe["styles"][0]["name"] for recipe in recipes] == ["style.png", "other.png"]
    default = run(f"stylize in/sea -s style.png {QUICK}")
    assert default.code == 3
    assert names(Path("sea-style")) == {"c.png"}


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("stylize empty -s style.png -o out", 3, "there is no picture in 'empty'"),
        ("stylize empty/*.jpg -s style.png -o out", 3, "there is no picture in 'empty/*.jpg'"),
        ("stylize in --each -o out", 2, "--each needs styles"),
        ("stylize in -s style.png -o photo.png", 2, "'photo.png' is a file: several pictures need a folder"),
        ("stylize in -s style.png -o new.png", 2, "'new.png' is a file: several pictures need a folder"),
        ("stylize in -s style.png -o out --format gif", 2, "--format gif is not a format: allowed: png, jpg"),
        ("stylize in -s none.png -o out", 3, "'none.png' does not exist"),
        ("stylize - -s style.png", 3, "standard input is empty"),
        ("stylize photo.png -s style.png -o - --json", 2, "both need standard output"),
    ],
)
def test_lines_that_cannot_run(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, line: str, code: int, says: str
) -> None:
    Path("empty").mkdir()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    shown = run(f"{line} {QUICK}")
    assert (shown.code, says in shown.err) == (code, True), shown.err
    assert not names(Path("out")) if Path("out").exists() else True


def test_a_picture_through_the_streams(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path("photo.png").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr("sys.stdout", out)
    assert cli.main(f"stylize - -s style.png --format webp {QUICK}".split()) == 0
    piped = out.buffer.getvalue()  # type: ignore[attr-defined]
    assert piped[8:12] == b"WEBP"
    Path(folder / "piped.webp").write_bytes(piped)
    made = Picture.open(folder / "piped.webp")
    assert made.size == (56, 40)
    assert (read_recipe(folder / "piped.webp") or {})["content"]["name"] == "-"


# the engine ray


def test_an_engine_is_for_many_photos(run: Run, photos: Path) -> None:
    shown = run(f"stylize in/b.jpg -s style.png -o b.png --engine ray {QUICK}")
    assert (shown.code, "--engine ray is for many photos" in shown.err) == (2, True)
    shown = run(f"stylize in -s style.png -o out --engine dask {QUICK}")
    assert (shown.code, "is not allowed: local, ray, auto or ray://HOST:PORT" in shown.err) == (2, True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_machine_makes_the_same_files(
    run: Run, folder: Path, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines with one processor each; one is killed after a third of the pictures."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers stand still on a busy machine
    from ray.cluster_utils import Cluster

    from atelier.apps import spread

    (folder / "in" / "sea").mkdir(parents=True)
    for number in range(12):
        write(Picture.of(np.roll(photo, number, 1)), f"in/{'sea/' if number % 2 else ''}{number}.png")
    Path("in/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    assert run(f"stylize in -s style.png -o whole {QUICK}").code == 3
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second: Any = cluster.add_node(num_cpus=1)
    plain, written = spread.SpreadRun._write, []

    def losing(self: Any, picture: Picture, job: Any) -> None:
        plain(self, picture, job)
        written.append(job)
        if len(written) == 4:
            cluster.remove_node(second, allow_graceful=False)

    monkeypatch.setattr(spread.SpreadRun, "_write", losing)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    try:
        shown = run(f"stylize in -s style.png -o out --engine auto {QUICK}")
    finally:
        cluster.shutdown()
    assert (shown.code, len(written)) == (3, 12), shown.err
    assert "12 of 13 pictures, 1 failed" in shown.err
    assert names(Path("out")) == names(Path("whole"))
    for name in names(Path("whole")):
        assert (Path("out") / name).read_bytes() == (Path("whole") / name).read_bytes(), name
