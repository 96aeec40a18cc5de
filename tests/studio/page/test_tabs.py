"""The other tabs in a browser, each from its inputs to a downloaded file."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atelier import Picture

#: One server and one browser for all.
pytestmark = pytest.mark.xdist_group("studio page")

#: The share of a canvas that is painted on.
_SHARE = """canvas => {
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, index) => index % 4 === 3 && value > 0).length / (data.length / 4);
}"""


#: Headless Chromium cannot ask for a folder: the browser's own stands for it.
_SAVING = """() => {
    window.showDirectoryPicker = () => navigator.storage.getDirectory();
    document.getElementById("at-no-folders")?.remove();
}"""
#: The width of a picture in the browser's own folder, 0 where there is none.
_WIDTH = """async name => {
    const folder = await navigator.storage.getDirectory();
    try { return (await createImageBitmap(await (await folder.getFileHandle(name)).getFile())).width; }
    catch { return 0; }
}"""


def _made(served: Any) -> dict[str, Any]:
    found: dict[str, Any] = served.get("gallery?limit=1")["pictures"][0]
    return found


def test_compare_paints_side_by_side_and_exports(hand: Any, small_photo: Path, tmp_path: Path) -> None:
    from atelier.bench.protocol import read

    hand.go_to("Compare")
    hand.page.locator("#compare-photo .at-samples button").nth(2).click()
    hand.page.wait_for_selector("#compare-photo .at-photo")
    hand.page.locator("#compare-methods [title^='Remove']").last.click()
    hand.page.locator("#compare-methods input").click()
    hand.page.locator("#compare-methods [role=option]", has_text="colour ·").first.click()
    hand.set_number("compare-form", "size", 64)
    hand.page.locator("#compare-go").click()
    sheet = hand.download("#compare-sheet", tmp_path)
    protocol = read(hand.download("#compare-protocol", tmp_path))
    assert [one.method for one in protocol.methods if one.name.startswith(("adain", "colour draft"))] == [
        "adain",
        "colour",
    ]
    assert (protocol.size, protocol.contents[0].file, protocol.styles[0].file) == (
        64,
        "example:coffee",
        "example:nocturne",
    )
    with Image.open(sheet) as picture:
        assert picture.size[0] > 2 * 64
    panes = hand.page.locator("#compare-grid .at-sheet")
    assert panes.count() == 2
    hand.page.get_by_role("button", name="One picture pixel on one screen pixel (1)").click()
    styles = panes.evaluate_all("all => all.map(one => one.getAttribute('style'))")
    assert styles[0] == styles[1]
    assert "width: 64px" in styles[0] or "width:64px" in styles[0]


def test_regions_are_painted_and_selected_with_the_mouse(
    hand: Any, served: Any, small_photo: Path, tmp_path: Path
) -> None:
    hand.go_to("Regions")
    hand.give_photo("regions-photo", small_photo)
    hand.page.wait_for_selector("#regions-mask .at-mask-stage")
    hand.page.get_by_role("button", name="Click to select a part; Shift-click takes it away (S)").click()
    stage = hand.page.locator("#regions-mask .at-mask-stage")
    box = stage.bounding_box()
    hand.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    view = hand.page.locator("#regions-mask canvas.at-mask-view")
    disc = np.pi * 20**2 / (96 * 72)
    selected = hand.wait_for(lambda: view.evaluate(_SHARE))
    assert abs(selected - disc) < 0.1

    hand.page.get_by_role("button", name="Add a region").click()
    hand.page.wait_for_selector("#regions-mask .at-layer >> nth=1")
    hand.page.get_by_role("button", name="Paint with the brush (B)").click()
    box = stage.bounding_box()
    hand.page.mouse.move(box["x"] + 10, box["y"] + 10)
    hand.page.mouse.down()
    hand.page.mouse.move(box["x"] + 10, box["y"] + box["height"] - 10, steps=4)
    hand.page.mouse.up()
    assert view.evaluate(_SHARE) > selected + 0.02

    hand.choose("regions-form", "quality", "draft")
    hand.set_number("regions-form", "feather", 0)
    hand.page.locator("#regions-go").click()
    made = Picture.open(hand.download("#regions-links a:has-text('TIFF')", tmp_path)).pixels
    changed = np.abs(made - Picture.open(small_photo).pixels).max(axis=2) > 1e-3
    assert changed[30:42, 42:54].mean() > 0.9
    assert changed[10:60, 0].mean() > 0.9
    assert not changed[:, 76:].any()
    assert len(_made(served)["inputs"]["regions"]) == 2


def test_a_folder_is_painted_and_a_broken_file_is_told(hand: Any, small_photo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(small_photo.read_bytes()[:300])
    hand.go_to("Folder")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    shutil.copy(small_photo, tmp_path / "photos" / "more" / "disc.png")
    shutil.move(broken, tmp_path / "photos" / "broken.png")
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    hand.page.locator("#folder-photos input[webkitdirectory]").set_input_files(str(tmp_path / "photos"))
    hand.page.wait_for_selector("#folder-photos :text('2 files')")
    assert hand.page.locator("#folder-photos .at-strip img").count() > 0
    hand.choose("folder-form", "quality", "draft")
    hand.page.locator("#folder-go").click()
    hand.page.wait_for_selector("#folder-table .at-error:has-text('broken.png')")
    with zipfile.ZipFile(hand.download("#folder-zip a", tmp_path)) as packed:
        assert sorted(packed.namelist()) == ["disc.png", "errors.txt"]
        assert b"broken.png" in packed.read("errors.txt")
    hand.page.evaluate(_SAVING)
    for saved in ("disc.png", "disc-2.png"):  # nothing is written over
        hand.page.locator("#folder-zip .at-save").click()
        hand.wait_for(lambda saved=saved: hand.page.evaluate(_WIDTH, saved) == 96)
    hand.page.wait_for_selector("#folder-zip .at-save:has-text('Saved: 1 in')")


def test_words_are_painted_and_an_unknown_one_is_told(
    hand: Any, served: Any, small_photo: Path, tmp_path: Path
) -> None:
    hand.go_to("Words")
    hand.page.wait_for_selector("#words-text .at-chip")
    asked: list[str] = []
    hand.page.on("request", lambda request: asked.append(request.url))
    hand.give_photo("words-photo", small_photo)
    hand.page.wait_for_selector("#words-viewer img")
    # A late answer to a question about the new photo wiped out the finished picture: there is no question.
    assert not [url for url in asked if "queue/join" in url]
    hand.page.locator("#words-text .at-chip", has_text="hokusai").click()
    hand.page.locator("#words-go").click()
    path = hand.download("#words-links a:has-text('PNG')", tmp_path)
    assert Picture.open(path).size == (96, 72)
    assert _made(served)["inputs"]["texts"] == ["hokusai"]
    hand.page.locator("#words-text textarea").fill("a pointilist lake")
    hand.page.wait_for_timeout(600)
    hand.page.locator("#words-go").click()
    hand.page.wait_for_selector("#words-note .at-error:has-text('pointillism')")


def test_an_object_is_cut_out_placed_and_harmonised(
    hand: Any, served: Any, small_photo: Path, tmp_path: Path
) -> None:
    hand.go_to("Harmonise")
    painting = tmp_path / "painting.png"
    ramp = np.linspace(40, 220, 96, dtype=np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (80, 1))] * 3, axis=2)).save(painting)
    hand.give_photo("harmonise-painting", painting)
    hand.give_photo("harmonise-photo", small_photo)
    hand.page.get_by_role("button", name="Click to select a part; Shift-click takes it away (S)").click()
    stage = hand.page.locator("#harmonise-mask .at-mask-stage")
    box = stage.bounding_box()
    hand.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    placed = hand.page.locator("#harmonise-place .at-placed")
    placed.wait_for()
    placed.scroll_into_view_if_needed()
    box = placed.bounding_box()
    hand.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hand.page.mouse.down()
    hand.page.mouse.move(box["x"] + box["width"] / 2 + 120, box["y"] + box["height"] / 2, steps=4)
    hand.page.mouse.up()
    assert placed.bounding_box()["x"] > box["x"] + 100
    hand.choose("harmonise-form", "quality", "draft")
    hand.page.wait_for_timeout(500)
    hand.page.locator("#harmonise-go").click()
    made = Picture.open(hand.download("#harmonise-links a:has-text('TIFF')", tmp_path)).pixels
    changed = np.abs(made - Picture.open(painting).pixels).max(axis=2) > 0.02
    assert 0.02 < changed.mean() < 0.4
    assert not changed[:, :20].any()
    assert _made(served)["method"] == "harmonise"
