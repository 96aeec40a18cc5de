"""The page in a narrow window, in the dark, and from the keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: One server and one browser for all.
pytestmark = pytest.mark.xdist_group("studio page")

TABS = ("Paint", "Gallery", "Compare", "Regions", "Folder", "Words", "Harmonise", "Train")
_COLOURS = """() => [
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.querySelector('.at-card')).color,
]"""


def _light(colour: str) -> float:
    return sum(float(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")[:3]) / (
        3 * 255
    )


def test_every_tab_fits_a_narrow_window_in_the_dark(opened: Callable[..., Any]) -> None:
    hand = opened(width=390, height=800, color_scheme="dark", has_touch=True)
    for name in TABS:
        hand.go_to(name)
        hand.page.wait_for_timeout(150)
        assert hand.page.evaluate("document.documentElement.scrollWidth") <= 390, name
    background, ink = hand.page.evaluate(_COLOURS)
    assert _light(background) < 0.2
    assert _light(ink) > 0.7


def test_the_page_works_from_the_keyboard_and_in_the_light(hand: Any) -> None:
    background, ink = hand.page.evaluate(_COLOURS)
    assert _light(background) > 0.9
    assert _light(ink) < 0.3
    press, focused = hand.page.keyboard.press, "() => document.activeElement"
    label = "() => document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"

    def tab_to(start: str) -> None:
        for _ in range(80):
            press("Tab")
            if hand.page.evaluate(label).startswith(start):
                return
        raise AssertionError(start)

    tab_to("A tabby cat")
    press("Enter")
    hand.page.wait_for_selector("#paint-viewer img.over")
    tab_to("woodcut")
    press("Space")
    hand.page.wait_for_selector("#paint-shelf [data-id='style:woodcut'][aria-pressed=true]")
    tab_to("Before and after")
    before = hand.page.locator("#paint-viewer [role=slider]").get_attribute("aria-valuenow")
    press("ArrowRight")
    press("ArrowRight")
    assert (
        int(hand.page.locator("#paint-viewer [role=slider]").get_attribute("aria-valuenow"))
        == int(before) + 4
    )
    assert hand.page.evaluate_handle(focused) is not None


def test_a_picture_is_pasted(hand: Any, small_photo: Path) -> None:
    paste = """async (bytes) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "pasted.png", {type: "image/png"}));
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data}));
    }"""
    hand.page.evaluate(paste, list(small_photo.read_bytes()))
    hand.page.wait_for_selector("#paint-photo .at-photo :text('96 × 72')")
