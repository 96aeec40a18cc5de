"""Train in a browser: pictures reported, captioned, cropped and chosen for a run; presets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from atelier import Picture, examples

#: One server and one browser for all.
pytestmark = [pytest.mark.xdist_group("studio page"), pytest.mark.slow]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four pictures, of which one is the mirror image of another and one is blurred, with two captions."""
    folder = tmp_path_factory.mktemp("pictures")
    cat = Image.fromarray((examples.photo("chelsea") * 255).astype(np.uint8))
    made = {
        "cat": cat,
        "tac": cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "blur": cat.rotate(90, expand=True).resize((8, 8)).resize((300, 451)),
        "cup": Image.fromarray((examples.photo("coffee") * 255).astype(np.uint8)),
    }
    for name, picture in made.items():
        picture.save(folder / f"{name}.png")
    (folder / "cat.txt").write_text("a cat, fur, green eyes")
    (folder / "cup.txt").write_text("a cup, coffee")
    return sorted(map(str, folder.iterdir()))


def test_pictures_are_reported_captioned_cropped_and_chosen(
    opened: Any, pictures: list[str], served: Any
) -> None:
    hand = opened()
    page = hand.page
    hand.go_to("Train")
    page.get_by_role("tab", name="Pictures and captions").click()
    page.locator("#data-name textarea, #data-name input").fill("pets")
    page.locator("#data-files input:not([webkitdirectory])").set_input_files(pictures)
    page.wait_for_selector("#data-pictures [data-name='cup.png']")
    assert page.locator("#data-pictures .at-sample-row").count() == 4

    page.locator("#data-report").click()
    page.wait_for_selector("#data-facts meter")
    marks = "#data-pictures [data-name='{}'] .at-marks"
    assert "double" in page.locator(marks.format("tac.png")).inner_text()
    assert "blurred" in page.locator(marks.format("blur.png")).inner_text()
    assert "no caption" in page.locator(marks.format("blur.png")).inner_text()
    assert "double" not in page.locator("#data-pictures [data-name='cup.png']").inner_text()

    page.locator("#data-words [data-name=first] input").fill("mystyle")
    page.locator("#data-words [data-name=replaced] input").fill("fur = soft fur")
    page.locator("#data-words [data-name=removed] input").fill("coffee")
    page.locator("#data-words [data-name=removed] input").press("Tab")
    page.locator("#data-dry").click()
    page.wait_for_selector("#data-note :text('4 captions would change')")
    page.locator("#data-edit").click()
    page.wait_for_selector("#data-note :text('4 captions changed')")
    captions = {
        one.get_attribute("data-name"): one.locator("textarea").input_value()
        for one in page.locator("#data-pictures .at-sample-row").all()
    }
    assert captions["cat.png"] == "mystyle, a cat, soft fur, green eyes"
    assert captions["cup.png"] == "mystyle, a cup"
    assert captions["blur.png"] == "mystyle"

    box = page.locator("#data-pictures [data-name='blur.png'] textarea")
    box.fill("mystyle, haze")
    box.blur()
    page.wait_for_selector("#data-pictures .at-chip:has-text('haze')")
    files = {path.name: path.read_text().strip() for path in served.folder.glob("data/*/*.txt")}
    assert files["blur.txt"] == "mystyle, haze"
    page.get_by_role("button", name="Take tac.png out").click()
    hand.wait_for(lambda: page.locator("#data-pictures .at-sample-row").count() == 3)

    hand.set_number("data-sizes", "side", 128)
    page.locator("#data-crop").click()
    hand.wait_for(lambda: "pets cropped" in page.locator("#data-set input").input_value())
    newest = max(served.folder.glob("data/*"), key=lambda path: path.stat().st_mtime)
    sizes = {path.stem: Picture.open(path).size for path in newest.glob("*.png")}
    assert set(sizes) == {"cat", "blur", "cup"}
    assert all(
        width * height <= 128**2 and not (width % 64 or height % 64) for width, height in sizes.values()
    )
    assert (newest / "blur.txt").read_text().strip() == "mystyle, haze"

    page.get_by_role("tab", name="Runs").click()
    page.wait_for_selector("#train-sources option:has-text('pets cropped, 3 pictures')", state="attached")

    hand = opened()  # another window finds the sets
    hand.go_to("Train")
    hand.page.get_by_role("tab", name="Pictures and captions").click()
    hand.page.locator("#data-set input").click()
    hand.page.locator("#data-set [role=option]", has_text="pets ·").click()
    hand.page.wait_for_selector("#data-pictures [data-name='cup.png']")


def test_a_preset_is_kept_and_used(opened: Any) -> None:
    hand = opened()
    hand.go_to("Train")
    hand.set_number("train-main", "steps", 77)
    hand.page.locator(".label-wrap:visible", has_text="Presets").click()
    hand.page.locator("#train-preset-name textarea, #train-preset-name input").fill("short")
    hand.page.locator("#train-preset-save").click()
    hand.page.wait_for_selector("#train-preset-note :text('Saved: short')")
    hand = opened()
    hand.go_to("Train")
    hand.page.locator(".label-wrap:visible", has_text="Presets").click()
    steps = hand.page.locator("#train-main [data-name=steps] input[type=number]")
    assert steps.input_value() != "77"
    hand.page.locator("#train-preset input").click()
    hand.page.locator("#train-preset [role=option]", has_text="short").click()
    hand.wait_for(lambda: steps.input_value() == "77")
