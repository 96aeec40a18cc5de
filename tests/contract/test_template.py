"""The template is a method once it is copied, and none before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import atelier
from atelier.apps import cli
from atelier.core.progress import Event
from atelier.methods import TEMPLATE, registry

Floats = npt.NDArray[np.float32]


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the method that a newcomer's copy is."""
    folder = tmp_path / "classical"
    folder.mkdir()
    shutil.copy(TEMPLATE.__file__, folder / "palette.py")
    monkeypatch.setenv("ATELIER_METHODS", str(folder))
    registry.list_methods.cache_clear()
    yield "palette"
    registry.list_methods.cache_clear()


def test_the_template_itself_is_not_listed() -> None:
    registry.list_methods.cache_clear()
    assert TEMPLATE.Palette.name not in registry.list_methods()


def test_a_copy_is_listed_in_its_folders_family(copied: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.find(copied).family() == "classical"
    assert cli.main(["methods", copied, "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)
    assert facts["knobs"]["properties"]["softness"]["default"] == 2.0


def test_a_copy_makes_a_picture(copied: str, photo: Floats, painting: Floats) -> None:
    events: list[Event] = []
    painting = 0.3 + 0.4 * painting * np.float32([0.2, 0.6, 1.0])
    made = atelier.stylize(photo, painting, method=copied, softness=1.0, device="cpu", progress=events.append)
    assert made.pixels.shape == photo.shape
    # Its promise: the painting's colours, their mean and their spread.
    np.testing.assert_allclose(made.pixels.mean((0, 1)), painting.mean((0, 1)), atol=0.01)
    np.testing.assert_allclose(made.pixels.std((0, 1)), painting.std((0, 1)), atol=0.01)
    assert [(event.done, event.total) for event in events] == [(1, 1)]
    assert made.recipe is not None
    assert made.recipe["method"] == copied


def test_its_knob_softens(copied: str, photo: Floats, painting: Floats) -> None:
    def edges(softness: float) -> float:
        made = atelier.stylize(photo, painting, method=copied, softness=softness, device="cpu")
        return float(np.abs(np.diff(made.pixels, axis=1)).max())

    assert edges(4.0) < 0.5 * edges(1.0)


def test_its_knob_is_a_flag(copied: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stylize", "--method", copied, "--help"]) == 0
    assert "--softness" in capsys.readouterr().out
