"""Receipts and style files of earlier versions still replay and load.

A folder for each version holds pictures made by that version's command, beside their inputs:

    atelier style save style.png -o style.safetensors --size 32 --method adain
    atelier stylize photo.png --style style.png --method colour --strength 0.8 \
        --transfer monge-kantorovich --device cpu -o colour.png
    atelier stylize photo.png --style style.png --method quilting --seed 3 --device cpu -o quilting.png
    atelier stylize photo.png --style style.safetensors --size 32 --method adain --device cpu -o adain.png

A receipt names its weights by hash. When a bundled network is replaced before its version is released, the
picture is made again from its old receipt with the new hash.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import atelier
from atelier.core import recipe as recipes
from atelier.images import Picture, read_recipe, style_entries

HERE = Path(__file__).parent
VERSIONS = sorted(path for path in HERE.iterdir() if (path / "style.safetensors").is_file())
PICTURES = [path for folder in VERSIONS for path in sorted(folder.glob("*.png")) if read_recipe(path)]

#: Half a step of 8 bits, and a little for the rounding of float32.
ROUNDING = 0.5 / 255 + 1e-6

every_version = pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)


def test_every_kept_picture_is_found() -> None:
    found = {str(path.relative_to(HERE)) for path in PICTURES}
    assert {"0.1.0/adain.png", "0.1.0/colour.png", "0.1.0/quilting.png"} <= found


@pytest.mark.parametrize("made", PICTURES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_old_receipt_replays_to_the_same_pixels(made: Path) -> None:
    """To rounding: half precision, which not every processor has, is another one on each kind of them."""
    kept, again = Picture.open(made), atelier.replay(made)
    half = recipes.parse(read_recipe(made), str(made)).knobs.get("half", False)
    assert again.size == kept.size
    np.testing.assert_allclose(again.pixels, kept.pixels, atol=8 / 255 if half else ROUNDING, rtol=0)
    assert np.abs(again.pixels - kept.pixels).mean() < 1 / 255


@pytest.mark.parametrize("made", PICTURES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_replayed_picture_carries_a_receipt_of_the_present_layout(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.parent)
    old = recipes.parse(read_recipe(made), str(made))
    again = atelier.replay(made)
    assert json.loads(json.dumps(again.recipe))["schema"] == recipes.SCHEMA
    new = recipes.parse(again.recipe, "memory")
    assert (new.method, new.content, new.styles) == (old.method, old.content, old.styles)
    assert new.knobs.items() >= old.knobs.items()


@every_version
def test_an_old_style_file_holds_the_painting_and_its_entries(folder: Path) -> None:
    opened = Picture.open(folder / "style.safetensors")
    np.testing.assert_array_equal(opened.pixels, Picture.open(folder / "style.png").pixels)
    assert style_entries(folder / "style.safetensors", opened.sha256)


@every_version
def test_an_old_style_file_paints_as_its_painting_does(folder: Path) -> None:
    kept, plain = (
        atelier.stylize(
            folder / "photo.png", folder / name, method="adain", size=32, device="cpu", threads=1
        ).pixels
        for name in ("style.safetensors", "style.png")
    )
    np.testing.assert_allclose(kept, plain, atol=ROUNDING, rtol=0)
