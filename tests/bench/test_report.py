"""The report: one folder that opens from disk, with every picture and number of the grid."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier import images
from atelier.bench.report import BUDGET, build, bytes_per_pixel, long_side, page
from atelier.core.errors import InputError
from atelier.images import Picture

from .browsing import Page, opened
from .conftest import PROTOCOL, Bench


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r"^const data = (.*);$", page.read_text(), re.MULTILINE)
    assert found is not None
    return dict(json.loads(found[1]))


def test_a_report_holds_the_grid_and_asks_nobody(bench: Bench) -> None:
    bench.write(PROTOCOL.replace("photos/*.png", "photos/photos0.png"))
    bench.run()
    written = build(bench.root / "out")
    data, site = data_of(written), written.parent
    assert [method["name"] for method in data["methods"]] == [
        "identity",
        "style_copy",
        "histogram",
        "posterised",
    ]
    assert [method["baseline"] for method in data["methods"]] == [True, True, True, False]
    assert data["methods"][0]["values"]["psnr"]["mean"] == "Infinity"
    assert len(data["cells"]) == 8
    for cell in data["cells"]:
        assert (site / cell[6]).is_file()
    assert all((site / one["file"]).is_file() for one in (*data["contents"], *data["styles"]))
    recipe = json.loads((site / "recipes" / "3.js").read_text().partition(" = ")[2].rstrip(";\n"))
    assert {one["method"] for one in recipe.values()} == {"filters"}
    text = written.read_text()
    assert set(re.findall(r"https?://[^\"'` ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert len((site / "cells.csv").read_text().splitlines()) == 9
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*.jpg")}
    build(bench.root / "out")
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*.jpg")} == before
    # What was moved away is left out, and the rest is still shown.
    shutil.rmtree(bench.root / "photos")
    shutil.rmtree(site / "inputs")
    again = data_of(build(bench.root / "out"))
    assert again["contents"][0]["file"] == ""
    assert again["styles"][0]["file"]


def test_names_cannot_break_out_of_the_page() -> None:
    name = "</script><script>alert(1)</script>"
    text = page({"name": name, "cells": [float("nan"), float("-inf")]})
    assert text.count("<script>") == text.count("</script>") == 1
    assert '"cells":[null,"-Infinity"]' in text
    assert f"<title>{name}" not in text


def test_many_pictures_are_small_enough(tmp_path: Path) -> None:
    assert long_side(10, 512, 0.5) == 512
    assert long_side(10, 4096, 0.5) == 1024
    for count in (500, 2000, 8000):
        assert 0.9 * BUDGET < count * long_side(count, 1024, 0.5) ** 2 * 0.5 <= BUDGET
    assert long_side(100_000, 1024, 0.5) == 160
    noise = np.random.default_rng(0).random((300, 200, 3)).astype(np.float32)
    for name, pixels in (("noise", noise), ("flat", 0 * noise)):
        images.write(Picture.of(pixels), tmp_path / f"{name}.png")
    assert bytes_per_pixel([tmp_path / "flat.png"]) < 0.1
    assert bytes_per_pixel([tmp_path / "noise.png", tmp_path / "absent.png"]) > 0.4


def test_a_folder_without_a_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds no grid \(grid.sqlite\): run `atelier bench PROTOCOL` first"
    ):
        build(tmp_path)


@pytest.mark.slow
def test_the_page_works_in_a_browser(bench: Bench) -> None:
    """Needs playwright and a Chromium: `pip install playwright`, and Debian's package chromium."""
    bench.run()
    with opened(build(bench.root / "out").as_uri()) as page:
        _sorts(page)
        _filters(page.tab)
        _compares(page.tab)


def _sorts(page: Page) -> None:
    usual, tab = page.column(), page.tab
    tab.locator("#means th button", has_text="histogram").click()
    assert page.column()[0] == "style_copy"
    tab.locator("#means th button", has_text="histogram").click()
    assert page.column()[-1] == "style_copy"
    assert sorted(page.column()) == sorted(usual)
    assert tab.locator("#means th[aria-sort=descending]").count() == 1
    assert tab.locator("#pareto circle").count() == 4
    assert tab.locator("#bars rect").count() == 4
    assert tab.locator("#part-bars figure").count() == 2
    assert tab.locator("#part-bars figcaption").all_inner_texts() == ["paintings0", "paintings1"]
    assert tab.locator("#part-bars rect").count() == 8
    tab.locator("#by").select_option("c")
    assert tab.locator("#part-bars rect").count() == 12


def _filters(tab: Any) -> None:
    assert tab.locator("#shown").inner_text() == "24 of 24 cells"
    tab.locator("#search").fill("posterised photos1")
    assert tab.locator("#shown").inner_text() == "2 of 24 cells"
    assert tab.locator("#cells button").count() == 2


def _compares(tab: Any) -> None:
    tab.locator("#cells button").first.click()
    assert "posterised: photos1" in tab.locator("#cell-title").inner_text()
    tab.locator("#slider").fill("20")
    split = tab.evaluate("getComputedStyle(document.getElementById('over')).clipPath")
    assert "80%" in split
    assert tab.evaluate("document.getElementById('under').naturalWidth") == 40
    tab.locator("#cell-title").click()
    tab.keyboard.press("ArrowRight")
    assert "(2 of 2)" in tab.locator("#cell-title").inner_text()
    tab.locator("#recipe summary").click()
    tab.wait_for_function("document.querySelector('#recipe pre').textContent.includes('filters')")
    tab.keyboard.press("Escape")
    assert not tab.locator("#cell").is_visible()
