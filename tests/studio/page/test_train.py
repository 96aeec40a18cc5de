"""Train in a browser: measured, started, found again, paused, resumed, stopped, downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: One server and one browser for all.
pytestmark = [pytest.mark.xdist_group("studio page"), pytest.mark.slow]

pytest.importorskip("accelerate", reason="the extra 'train' is not installed")


def test_a_run_is_measured_started_found_again_and_downloaded(
    opened: Callable[..., Any], small_photo: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    hand = opened()
    hand.go_to("Train")
    hand.page.locator("#train-method input").click()
    hand.page.locator("#train-method [role=option]", has_text="texture_nets").click()
    hand.page.locator("#train-sources [data-name=style] input[type=file]").set_input_files(str(small_photo))
    photos = hand.page.locator("#train-sources [data-name=photos] input:not([webkitdirectory])")
    photos.set_input_files(str(small_photo))
    hand.page.wait_for_selector("#train-sources [data-name=style] :text('1 file')")
    hand.page.wait_for_selector("#train-sources [data-name=photos] :text('1 file')")
    hand.set_number("train-main", "steps", 100000)
    hand.set_number("train-main", "batch", 1)
    hand.set_number("train-main", "crop", 32)
    hand.page.locator("#train-measure").click()
    hand.page.wait_for_selector("#train-note :text('in all on this machine')")
    hand.page.locator("#train-name textarea, #train-name input").fill("disc")
    hand.page.locator("#train-go").click()
    hand.page.wait_for_selector("#train-status :text('disc · texture_nets')")
    hand.page.wait_for_selector("#train-curve svg path")

    hand.page.context.close()
    hand = opened()
    hand.go_to("Train")
    hand.page.wait_for_selector("#train-status :text('running')")
    hand.page.locator("#train-pause").click()
    hand.page.wait_for_selector("#train-status :text('paused')")
    hand.page.locator("#train-resume").click()
    hand.page.wait_for_selector("#train-status :text('running')")
    hand.page.locator("#train-stop").click()
    network = hand.download("#train-status a", tmp_path)
    assert network.name == "texture_nets.safetensors"
    assert load_file(network)
