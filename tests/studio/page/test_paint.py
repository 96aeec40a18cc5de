"""Paint and the gallery in a browser: from a dropped photo to a downloaded file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atelier import Picture
from atelier.images import read_recipe

#: One server and one browser for all.
pytestmark = pytest.mark.xdist_group("studio page")

AFTER = "#paint-viewer img.over"


def test_a_photo_is_drafted_painted_downloaded_and_set_again(
    hand: Any, small_photo: Path, tmp_path: Path
) -> None:
    hand.give_photo("paint-photo", small_photo)
    hand.page.wait_for_selector(AFTER)
    first = hand.source(AFTER)
    assert first.startswith("data:image/jpeg")

    hand.page.locator("#paint-shelf [data-id='style:woodcut']").click()
    hand.wait_for(lambda: hand.source(AFTER) != first)
    hand.set_number("paint-form", "strength", 0.5)
    hand.choose("paint-form", "quality", "draft")
    hand.page.locator("#paint-go").click()
    hand.page.wait_for_selector("#paint-links a")
    assert "/api/gallery/" in hand.source(AFTER)

    wide = hand.download("#paint-links a:has-text('TIFF')", tmp_path)
    recipe = read_recipe(wide)
    assert recipe is not None
    assert (recipe["method"], recipe["controls"]["strength"]) == ("adain", 0.5)
    assert Picture.open(wide).size == (96, 72)
    narrow = hand.download("#paint-links a:has-text('PNG')", tmp_path)
    assert np.abs(Picture.open(narrow).pixels - Picture.open(wide).pixels).max() <= 0.5 / 255 + 1e-6
    assert Picture.open(hand.download("#paint-links a:has-text('JPEG')", tmp_path)).size == (96, 72)

    hand.set_number("paint-form", "strength", 1)
    hand.page.locator("#paint-shelf [data-id='style:nocturne']").click()
    hand.page.locator(".label-wrap", has_text="Same again").click()
    hand.page.locator("#paint-again input[type=file]").set_input_files(str(narrow))
    hand.page.wait_for_selector("#paint-note :text('Set as it was')", state="attached")
    strength = hand.page.locator("#paint-form [data-name=strength] input[type=number]")
    hand.wait_for(lambda: strength.input_value() == "0.5")
    hand.page.wait_for_selector("#paint-shelf [data-id='style:woodcut'][aria-pressed=true]")


def test_stop_keeps_the_best_so_far(hand: Any, small_photo: Path, served: Any) -> None:
    hand.give_photo("paint-photo", small_photo)
    hand.choose_method("paint", "gatys")
    hand.set_number("paint-knobs", "iterations", 5000)
    hand.page.locator("#paint-go").click()
    hand.page.wait_for_selector("#paint-note progress[value]")
    hand.page.locator("#paint-stop").click()
    hand.page.wait_for_selector("#paint-note :text('best picture so far is kept')")
    newest = served.get("gallery?limit=1")["pictures"][0]
    assert newest["stopped"]
    assert newest["method"] == "gatys"
    assert newest["id"] in hand.source(AFTER)


def test_the_knobs_are_those_of_the_method(hand: Any) -> None:
    from atelier.methods import registry

    hand.choose_method("paint", "strokes")
    knobs = list(registry.find("strokes").Knobs.model_fields)
    hand.wait_for(lambda: hand.page.locator(f"#paint-knobs [data-name={knobs[-1]}]").count())
    shown = hand.page.locator("#paint-knobs [data-name]").evaluate_all(
        "all => all.map(one => one.dataset.name)"
    )
    assert set(knobs) <= set(shown)
    field = hand.page.locator("#paint-knobs .at-range").first
    before = field.locator("input[type=range]").input_value()
    field.locator("input[type=range]").press("ArrowRight")
    assert field.locator("input[type=range]").input_value() != before
    field.locator(".at-reset").click()
    assert field.locator("input[type=range]").input_value() == before


def test_the_styles_of_a_network_are_chosen_by_name(hand: Any, small_photo: Path, served: Any) -> None:
    hand.give_photo("paint-photo", small_photo)
    hand.choose_method("paint", "cin")
    names = hand.page.locator("#paint-knobs [data-name=style_name]")
    for name in ("scream", "phlox", "scream"):
        names.locator(".at-chip", has_text=name).click()
    assert names.locator("input").input_value() == "phlox"
    assert names.locator(".at-chip[aria-pressed=true]").all_inner_texts() == ["phlox"]
    hand.page.locator("#paint-go").click()
    hand.page.wait_for_selector("#paint-links a")
    newest = served.get("gallery?limit=1")["pictures"][0]
    assert newest["settings"]["values"]["style_name"] == ["phlox"]


def test_what_is_typed_while_the_method_changes_is_kept(hand: Any) -> None:
    held: list[Any] = []
    hand.page.route("**/queue/join*", lambda route: held.append(route))
    hand.choose_method("paint", "strokes")
    hand.set_number("paint-form", "strength", 0.25)
    hand.wait_for(lambda: held)
    for request in held:
        request.continue_()
    hand.page.unroute("**/queue/join*")
    hand.page.wait_for_selector("#paint-knobs [data-name=brush]")
    strength = hand.page.locator("#paint-form [data-name=strength] input[type=number]")
    assert strength.input_value() == "0.25"
    hand.page.wait_for_selector("#paint-form .changed[data-name=strength]")


def test_the_gallery_shows_searches_opens_and_deletes(
    opened: Any, served: Any, small_photo: Path, tmp_path: Path
) -> None:
    hand = opened()
    with Image.open(small_photo) as picture:
        picture.rotate(180).save(tmp_path / "jetty.png")
    hand.give_photo("paint-photo", tmp_path / "jetty.png")
    hand.page.locator("#paint-shelf [data-id='style:woodcut']").click()
    hand.choose_method("paint", "colour")
    hand.set_number("paint-form", "size", 64)
    hand.set_number("paint-form", "strength", 0.25)
    hand.page.locator("#paint-go").click()
    hand.page.wait_for_selector("#paint-links a")
    made = served.get("gallery?limit=1")["pictures"][0]["id"]
    hand = opened()
    hand.go_to("Gallery")
    hand.page.wait_for_selector(f"#gallery-made [data-id='{made}']")
    hand.page.locator("#gallery-search input, #gallery-search textarea").fill("jetty colour")
    hand.wait_for(lambda: hand.page.locator("#gallery-made .at-made").count() == 1)
    hand.page.locator(f"#gallery-made [data-id='{made}']").click()
    hand.page.wait_for_selector("#gallery-made .at-detail :text('woodcut')")
    hand.page.get_by_role("button", name="Set everything as it was").click()
    hand.page.wait_for_selector("#paint-photo .at-photo")
    strength = hand.page.locator("#paint-form [data-name=strength] input[type=number]")
    hand.wait_for(lambda: strength.input_value() == "0.25")
    hand.page.wait_for_selector("#paint-shelf [data-id='style:woodcut'][aria-pressed=true]")
    hand.go_to("Gallery")
    hand.page.locator(f"#gallery-made [data-id='{made}']").click()
    delete = hand.page.get_by_role("button", name="Delete this picture for good")
    delete.click()
    delete.click()
    hand.wait_for(lambda: hand.page.locator("#gallery-made .at-made").count() == 0)
    assert made not in [one["id"] for one in served.get("gallery")["pictures"]]
