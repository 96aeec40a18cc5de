"""The grid: every cell once, resumed to the same rows, failures as rows, baselines in every table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest

from atelier import images
from atelier.bench import summary
from atelier.bench.grid import Outcome
from atelier.bench.table import Table
from atelier.core.errors import InputError, OutputError, UsageError
from atelier.core.progress import Event
from atelier.images import Picture
from atelier.methods import registry

from .conftest import PROTOCOL, Bench, Here


def test_a_grid_has_every_cell_once_with_the_baselines(bench: Bench) -> None:
    bench.write(PROTOCOL.replace('"histogram"]', '"histogram", "frechet"]'))
    events: list[Event] = []
    found = bench.run(progress=events.append)
    assert found == Outcome(cells=24, before=0, done=24, failed=0, stopped=False)
    assert [event.done for event in events] == list(range(1, 25))
    assert all("left" in event.stage for event in events)
    table = Table(bench.root / "out")
    lines = {line.method: line for line in summary.lines(table)}
    assert list(lines) == ["identity", "style_copy", "histogram", "posterised"]
    assert lines["identity"].values["psnr"].mean == float("inf")
    assert lines["style_copy"].values["histogram"].mean < lines["identity"].values["histogram"].mean
    assert lines["identity"].values["frechet"].count == 6
    assert "below 2048" in lines["identity"].values["frechet"].note
    (column,) = [one for one in summary.columns(table) if one.name == "frechet"]
    assert len(column.features["encoder.atelier"]) == 64
    assert "224" in column.resize
    cell = table.rows("SELECT * FROM plan JOIN cells USING (key) WHERE method = 'posterised' LIMIT 1")[0]
    recipe = json.loads(cell["recipe"])
    assert recipe["method"] == "filters"
    assert (cell["peak"] or 1) > 0
    assert (bench.root / "out" / cell["file"]).is_file()
    # The style's work is shared by the contents of a style: all but the first of each are warm.
    assert [row["n"] for row in table.rows("SELECT count(*) AS n FROM cells WHERE warm = 0")] == [8]
    table.close()


def test_a_quality_whose_knobs_have_changed_is_painted_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(PROTOCOL)
    first = bench.run()
    assert bench.run().before == first.cells
    kind = registry.find("filters")
    monkeypatch.setattr(kind, "qualities", {**kind.qualities, "good": {"lines": 0.5}})
    again = bench.run()
    assert 0 < again.done < first.cells
    assert again.before == first.cells - again.done


def test_a_mask_limits_the_painting_and_is_part_of_the_cell(bench: Bench) -> None:
    """Outside of the mask the photo stays; another mask makes another cell."""
    mask = np.zeros((50, 60, 3), np.float32)
    mask[:, 30:] = 1
    entry = '[{ file = "photos/photos0.png", name = "half", mask = "mask.png" }]'
    bench.write(PROTOCOL.replace('["photos/*.png"]', entry))
    keys = []
    for shown in (mask, 1 - mask):
        images.write(Picture.of(shown), bench.root / "mask.png", overwrite=True)
        bench.run()
        table = Table(bench.root / "out")
        (row,) = table.rows("SELECT * FROM plan WHERE method = 'style_copy' AND style = 'paintings0'")
        keys.append(row["key"])
        made, photo = (
            Picture.open(path).pixels
            for path in (
                bench.root / "out" / row["file"],
                bench.root / "out/pictures/identity/half__paintings0.png",
            )
        )
        left, right = slice(0, made.shape[1] // 2 - 12), slice(made.shape[1] // 2 + 12, None)
        kept, painted = (left, right) if shown is mask else (right, left)
        assert np.abs(made - photo)[:, kept].max() < 0.02
        assert np.abs(made - photo)[:, painted].max() > 0.2
        table.close()
    assert keys[0] != keys[1]


def test_a_stopped_grid_goes_on_and_has_the_same_rows(bench: Bench) -> None:
    bench.run("whole")
    Here.painted.clear()
    for _ in range(3):
        count = iter(range(5))
        assert bench.run(progress=lambda event, count=count: next(count) < 4).stopped
    found = bench.run()
    assert (found.before, found.done, found.stopped) == (15, 9, False)
    assert len(Here.painted) == len(set(Here.painted)) == 24
    assert bench.rows() == bench.rows("whole")
    assert bench.run() == Outcome(24, 24, 0, 0, False)


def test_a_new_metric_is_measured_without_painting(bench: Bench) -> None:
    bench.run()
    Here.painted.clear()
    bench.write(PROTOCOL.replace('"histogram"', '"light", "ssim"'))
    found = bench.run()
    assert (found.done, Here.painted) == (24, [])
    numbers = [row[8] for row in bench.rows() if row[7] == "ssim"]
    assert len(numbers) == 24
    bench.write(PROTOCOL.replace("size = 40", "size = 36"))
    bench.run()
    assert len(Here.painted) == 24


def test_what_fails_is_a_row_and_is_done_again_only_when_asked(bench: Bench) -> None:
    program = [sys.executable, "-c", "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"]
    external = [
        {"name": "copies", "command": [*program, "{style}", "{output}"]},
        {"name": "fails", "command": [sys.executable, "-c", "import sys; sys.exit('no paint is left')"]},
        {"name": "absent", "command": ["no-such-program", "{content}"]},
        {"name": "silent", "command": [sys.executable, "-c", "pass"]},
        {"name": "slow", "command": [sys.executable, "-c", "import time; time.sleep(9)"], "seconds": 0.2},
    ]
    tables = "\n".join(
        "[[external]]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in one.items())
        for one in external
    )
    text = PROTOCOL.replace("photos/*.png", "photos/photos0.png").replace("paintings/*", "paintings/*1")
    bench.write(text + tables)
    assert bench.run().failed == 4
    errors = {row[1]: row[5] for row in bench.rows() if row[4] == "failed"}
    assert errors["fails"] == "fails ended with code 1: no paint is left"
    assert errors["absent"].startswith("the program 'no-such-program' of absent cannot be started")
    assert errors["silent"] == "silent wrote no picture to {output}: check its command"
    assert errors["slow"] == "slow took longer than 0.2 seconds and was ended"
    copied = [row for row in bench.rows() if row[1] == "copies"]
    assert {row[4] for row in copied} == {"done"}
    table = Table(bench.root / "out")
    (times,) = table.rows("SELECT cells.* FROM plan JOIN cells USING (key) WHERE method = 'copies'")
    assert times["cpu"] > 0
    assert 1 < times["peak"] < 150, "the program's own memory, not that of this process"
    assert "absent failed on 1 cell: the program 'no-such-program'" in "\n".join(summary.gaps(table))
    table.close()
    assert bench.run().done == 0
    assert bench.run(retry=True).done == 4


def test_methods_get_the_styles_that_they_take(bench: Bench) -> None:
    """Words reach methods that read words, and the photo itself; others have no cell for them."""
    text = PROTOCOL.replace('["paintings/*.png"]', '[{ text = "a red sea" }, "paintings/paintings0.png"]')
    bench.write(text)
    bench.run()
    found = {(row[1], row[3]) for row in bench.rows() if len(row) > 6}
    assert ("identity", "a-red-sea") in found
    assert ("style_copy", "a-red-sea") not in found
    words = [row for row in bench.rows() if row[3] == "a-red-sea" and row[7] == "histogram"]
    assert {row[8] for row in words} == {None}
    assert "the style is in words" in words[0][9]


@pytest.mark.parametrize(
    ("before", "after", "error", "sentence"),
    [
        ("photos/*", "phots/*", InputError, r"there is no file 'phots/\*\.png' in "),
        ("size = 40", "size = 8", UsageError, "not allowed in 'size': it should be greater than"),
        ("size = 40", "sice = 40", UsageError, "has an unknown entry 'sice': did you mean 'size'"),
        ("size = 40", "size = ", InputError, "is not TOML"),
        ("filters", "filtres", UsageError, "did you mean 'filters'"),
        ('"psnr"', '"fid"', UsageError, "the metric fid cannot be computed here: the weights inception.fid"),
        ('"psnr"', '"psn"', UsageError, "did you mean 'psnr'"),
        ("posterised", "identity", None, ""),
        (
            "methods = [",
            'methods = ["filters", "filters", ',
            UsageError,
            "two methods called 'filters'",
        ),
        (
            '["photos/*.png"]',
            '[{ file = "photos/photos0.png", sha256 = "' + "0" * 64 + '" }]',
            InputError,
            "is another file: it has sha256",
        ),
    ],
)
def test_protocols_that_are_wrong(
    bench: Bench, before: str, after: str, error: type[Exception] | None, sentence: str
) -> None:
    assert before in PROTOCOL
    bench.write(PROTOCOL.replace(before, after))
    if error is None:
        assert len(bench.protocol.methods) == 3  # a method in the place of a baseline of its name
        return
    with pytest.raises(error, match=sentence):
        bench.run()
    assert not (bench.root / "out" / "pictures").exists()


def test_only_one_process_runs_a_grid(bench: Bench) -> None:
    (bench.root / "out").mkdir()
    with (
        filelock.FileLock(bench.root / "out" / "grid.lock"),
        pytest.raises(OutputError, match="another process is running the grid"),
    ):
        bench.run()
    (bench.root / "out" / "grid.sqlite").write_bytes(b"not a database, although it has the name" * 99)
    with pytest.raises(InputError, match="is damaged"):
        bench.run()


def test_tables_for_papers(bench: Bench) -> None:
    bench.run()
    table = Table(bench.root / "out")
    lines = summary.as_csv(table).splitlines()
    assert len(lines) == 25
    assert lines[0].startswith("method,content,style,state,error,seconds,")
    latex = summary.as_latex(table)
    assert r"identity & \textbf{inf}" in latex
    assert r"style\_copy" in latex
    assert latex.count(r"\textbf") == 2
    bounds = summary.mean_with_bounds([0.0] * 50 + [1.0] * 50)
    assert 0.38 < bounds.low < 0.45 < 0.55 < bounds.high < 0.62
    table.close()


DEADLY = '''
import os, signal
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.methods.base import Method, Paper

class Deadly(Method):
    """Ends its own process where the photo is dark."""
    name = "deadly"
    paper = Paper("Nobody", 2026, "None", "https://example.org")
    class Knobs(AnyKnobs):
        """None."""
    def transfer(self, job, knobs):
        if job.content.mean() < 0.2:
            os.kill(os.getpid(), signal.SIGKILL)
        return job.content
'''


@pytest.mark.slow
def test_a_process_that_dies_costs_one_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from atelier import images
    from atelier.bench.pool import Pool
    from atelier.images import Picture
    from atelier.methods import registry

    (bench.root / "methods").mkdir()
    (bench.root / "methods" / "deadly.py").write_text(DEADLY)
    monkeypatch.setenv("ATELIER_METHODS", str(bench.root / "methods"))
    registry.list_methods.cache_clear()
    dark = Picture.open(bench.root / "photos" / "photos1.png")
    images.write(Picture(0.1 * dark.pixels), bench.root / "photos" / "photos1.png", overwrite=True)
    bench.write(
        PROTOCOL.replace(
            'method = "filters", name = "posterised", knobs = { look = "oil" }', 'method = "deadly"'
        )
    )
    try:
        found = bench.run(engine=Pool, jobs=2)
    finally:
        registry.list_methods.cache_clear()
    assert (found.done, found.failed) == (24, 2)
    errors = [(row[1], row[2], row[5]) for row in bench.rows() if row[4] == "failed"]
    sentence = "the process was ended by SIGKILL: memory may have run out"
    assert errors == [("deadly", "photos1", sentence)] * 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_three_times_it_equals_an_undisturbed_run(bench: Bench) -> None:
    text = PROTOCOL.replace("size = 40", "size = 96").replace("methods = [", 'methods = ["adain", "colour", ')
    bench.write(text)
    command = [
        sys.executable,
        "-m",
        "atelier",
        "bench",
        str(bench.root / "small.toml"),
        "--jobs",
        "2",
        "--out",
    ]
    subprocess.run([*command, str(bench.root / "whole")], check=True, capture_output=True)
    for rows in (5, 14, 26):
        process = subprocess.Popen([*command, str(bench.root / "out")], stderr=subprocess.DEVNULL)
        while _count(bench.root / "out") < rows and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = {row["key"]: row["seconds"] for row in _cells(bench.root / "out")}
    subprocess.run([*command, str(bench.root / "out")], check=True, capture_output=True)
    assert bench.rows() == bench.rows("whole")
    after = {row["key"]: row["seconds"] for row in _cells(bench.root / "out")}
    assert 5 <= len(before) < len(after)
    assert {key: after[key] for key in before} == before, "a cell with a row is not done again"


def _cells(folder: Path) -> list[dict[str, float]]:
    table = Table(folder)
    found = table.rows("SELECT key, seconds FROM cells")
    table.close()
    return found


def _count(folder: Path) -> int:
    return len(_cells(folder)) if (folder / "grid.sqlite").is_file() else 0
