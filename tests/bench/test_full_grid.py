"""A grid of 12 contents, 12 styles and every fast method: killed, on a cluster, and as a report."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier import examples, images
from atelier.bench.cluster import RayWorkers
from atelier.bench.report import build
from atelier.bench.table import Table
from atelier.images import Picture

from .browsing import Page, opened
from .conftest import Bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.xdist_group("full_grid")]

#: Methods that paint such small pictures in a moment, besides the three baselines.
FAST = ("adain", "nnst_d", "cap_vstnet", "colour", "strokes", "filters")
SIDE, COUNT = 64, 12
CELLS = COUNT * COUNT * (len(FAST) + 3)
PROTOCOL = f"""
name = "full"
size = {SIDE}
contents = ["photos/*.png"]
styles = ["paintings/*.png"]
methods = {list(FAST)}
metrics = ["psnr"]
""".replace("'", '"')


class Full(Bench):
    """A folder with the 12 example styles and 12 pieces of the example photos."""

    def __init__(self, root: Path) -> None:
        self.root = root
        draw = np.random.default_rng(0)
        pictures = {f"photos/{name}{n}": _piece(examples.photo(name), draw) for n, name in self._photos()}
        pictures |= {f"paintings/{name}": examples.style(name, size=96) for name in examples.STYLES}
        assert len(pictures) == 2 * COUNT
        for name, pixels in pictures.items():
            path = root / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            images.write(Picture.of(pixels), path)
        self.write(PROTOCOL)

    @staticmethod
    def _photos() -> Iterator[tuple[int, str]]:
        return ((n, name) for name in examples.PHOTOS for n in range(COUNT // len(examples.PHOTOS)))

    def command(self, out: str) -> list[str]:
        words = ["bench", str(self.root / "small.toml"), "--jobs", "2", "--out", str(self.root / out)]
        return [sys.executable, "-m", "atelier", *words]

    def times(self, out: str) -> dict[str, float]:
        """The seconds of every cell with a row, which no second painting would repeat."""
        if not (self.root / out / "grid.sqlite").is_file():
            return {}
        table = Table(self.root / out)
        found = {row["key"]: row["whole"] for row in table.rows("SELECT key, whole FROM cells")}
        table.close()
        return found


def _piece(photo: Any, draw: np.random.Generator) -> Any:
    top, left = (int(draw.integers(0, side - 256)) for side in photo.shape[:2])
    return photo[top : top + 256 : 2, left : left + 256 : 2]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Full:
    """The folder, with an undisturbed run in `whole`."""
    made = Full(tmp_path_factory.mktemp("full"))
    subprocess.run(made.command("whole"), check=True, capture_output=True)
    rows = made.rows("whole")
    assert sum(len(row) > 6 for row in rows) == CELLS
    assert {row[4] for row in rows if len(row) > 6} == {"done"}
    return made


def test_killed_three_times_at_random_moments_it_equals_an_undisturbed_run(full: Full) -> None:
    draw = random.Random()
    moments = sorted(draw.randrange(1, CELLS - 100) for _ in range(3))
    known = dict[str, float]()
    for moment in moments:
        process = subprocess.Popen(full.command("killed"), stderr=subprocess.DEVNULL)
        while len(full.times("killed")) < moment and process.poll() is None:
            time.sleep(0.2)
        time.sleep(draw.random())
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        found = full.times("killed")
        assert {key: found[key] for key in known} == known, "a cell with a row is not done again"
        assert moment <= len(found) < CELLS
        known = found
    subprocess.run(full.command("killed"), check=True, capture_output=True)
    found = full.times("killed")
    assert {key: found[key] for key in known} == known
    assert full.rows("killed") == full.rows("whole"), f"killed after {moments} cells"


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_machine_has_the_same_rows(
    full: Full, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines with one processor each; one ends in the middle of its cell."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second: Any = cluster.add_node(num_cpus=1)
    moment, lost = random.randrange(CELLS // 4, CELLS // 2), []

    def listen(event: Any) -> None:
        if event.done == moment:
            cluster.remove_node(second, allow_graceful=False)
            lost.append(event.done)

    try:
        engine = partial(RayWorkers, address=cluster.address)
        found = full.run("cluster", engine=engine, jobs=2, progress=listen)
    finally:
        cluster.shutdown()
    assert lost == [moment]
    assert (found.done, found.failed) == (CELLS, 0)
    assert full.rows("cluster") == full.rows("whole")


def test_its_report_works_in_a_browser(full: Full) -> None:
    """Needs playwright and a Chromium, as the report of a small grid does."""
    page = build(full.root / "whole")
    assert sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file()) < 200 << 20
    with opened(page.as_uri()) as shown:
        assert shown.tab.locator("#shown").inner_text() == f"{CELLS} of {CELLS} cells"
        _sorts(shown)
        _filters(shown.tab)
        _slides(shown.tab)
        pictures = [url for url in shown.asked if url.endswith(".jpg")]
        assert 0 < len(set(pictures)) < 400, "pictures are read when they come into sight"


def _sorts(shown: Page) -> None:
    usual = shown.column()
    assert len(usual) == len(FAST) + 3
    heading = shown.tab.locator("#means th button", has_text="psnr")
    heading.click()
    assert shown.column()[0] == "identity"
    numbers = [float(text.replace("∞", "inf")) for text in shown.column(2)]
    assert numbers == sorted(numbers, reverse=True)
    heading.click()
    assert [float(text.replace("∞", "inf")) for text in shown.column(2)] == sorted(numbers)
    assert sorted(shown.column()) == sorted(usual)


def _filters(tab: Any) -> None:
    count = tab.locator("#shown")
    tab.locator("#search").fill("adain woodcut")
    assert count.inner_text() == f"{COUNT} of {CELLS} cells"
    tab.locator("#search").fill("")
    tab.locator("#content").select_option(label="chelsea1")
    assert count.inner_text() == f"{CELLS // COUNT} of {CELLS} cells"
    tab.locator("#style").select_option(label="ink")
    assert count.inner_text() == f"{len(FAST) + 3} of {CELLS} cells"
    tab.locator("#methods input").first.uncheck()
    assert count.inner_text() == f"{len(FAST) + 2} of {CELLS} cells"
    assert tab.locator("#cells button").count() == len(FAST) + 2


def _slides(tab: Any) -> None:
    tab.locator("#cells button", has_text="nnst_d").click()
    assert "nnst_d: chelsea1 × ink" in tab.locator("#cell-title").inner_text()
    edge = "document.getElementById('edge').getBoundingClientRect().left"
    before = tab.evaluate(edge)
    box = tab.locator("#under").bounding_box()
    tab.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 20, steps=4)
    tab.mouse.up()
    assert tab.locator("#slider").input_value() == "80"
    assert tab.evaluate(edge) - before > 0.2 * box["width"]
    tab.locator("#slider").focus()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("#slider").input_value() == "79"
    tab.keyboard.press("Escape")
    assert not tab.locator("#cell").is_visible()
