"""The start page in a browser: what is chosen there is taken over by the full page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

#: A server of its own, but one at a time with the others.
pytestmark = [pytest.mark.xdist_group("studio page"), pytest.mark.slow]


def test_photo_and_style_are_taken_over(just_started: Any, small_photo: Path) -> None:
    page = just_started
    page.locator("#start-photo input[type=file]").set_input_files(str(small_photo))
    page.locator("#start-shelf [data-id='style:woodcut']").click()
    page.wait_for_selector("#paint-photo .at-photo :text('96 × 72')")
    page.wait_for_selector("#paint-shelf [data-id='style:woodcut'][aria-pressed=true]")
    page.wait_for_selector("#paint-viewer img.over")
    page.wait_for_function("location.search === ''")
    assert page.locator(".at-cover").count() == 0
