"""StyleID: what its knobs change, its memory plan, and what it does where weights or memory are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import atelier
from atelier.core import memory
from atelier.core.errors import ResourceError, UsageError, WeightsError
from atelier.core.progress import Event
from atelier.methods.diffusion.styleid import Styleid
from atelier.methods.registry import knobs_for

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

Floats = npt.NDArray[np.float32]


@pytest.fixture
def settings(tiny_pipeline: Path) -> dict[str, Any]:
    small = {"steps": 3, "blocks": (2, 3), "device": "cpu"}
    return {"method": "styleid", "pipeline": str(tiny_pipeline), **small}


def test_features_that_are_computed_again_give_the_same_picture(
    settings: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    kept, again = (
        atelier.stylize(photo, painting, **settings, features=how).pixels for how in ("keep", "recompute")
    )
    assert np.array_equal(kept, again)


def test_the_painting_is_seen_by_attention(settings: dict[str, Any], photo: Floats, painting: Floats) -> None:
    """With the photo's own statistics at the start, only attention can tell two paintings apart."""
    first, second, blind, blind_too = (
        atelier.stylize(photo, style, **settings | {"start": "content", "blocks": blocks}).pixels
        for blocks in ((2, 3), ())
        for style in (painting, 1 - painting)
    )
    assert np.abs(first - second).max() > 1e-3
    assert np.array_equal(blind, blind_too)


def test_the_share_of_queries_falls_along_a_curve() -> None:
    """Kulkarni 2026: from 0.75 to 0.375; the cosine is at the middle there, and the square root lower."""
    shares = {
        shape: Styleid.Knobs(gamma_shape=shape).shares(5)
        for shape in ("constant", "linear", "cosine", "sqrt")
    }
    assert shares["constant"] == [0.75] * 5
    for shape in ("linear", "cosine", "sqrt"):
        assert shares[shape][0] == 0.75
        assert shares[shape][-1] == pytest.approx(0.375)
    assert shares["linear"][1] == pytest.approx(0.65625)
    assert shares["cosine"][2] == pytest.approx(0.5625)
    assert shares["sqrt"][1] == pytest.approx(0.5625)
    published = knobs_for(Styleid, "published", {})
    assert Styleid.Knobs(**published).shares(49) == [0.75] * 49


def test_the_plan_is_told_before_the_work(settings: dict[str, Any], photo: Floats, painting: Floats) -> None:
    events: list[Event] = []
    atelier.stylize(photo, painting, **settings, progress=events.append)
    assert events[0].note.startswith("memory: ")
    assert "features kept" in events[0].note
    assert not any(event.note for event in events[1:])
    assert [event.done for event in events] == list(range(3 + 3 + 2 + 1))


def test_a_second_photo_inverts_the_style_no_more(
    settings: dict[str, Any], photo: Floats, painting: Floats
) -> None:
    paint = atelier.Stylizer(painting, **settings)
    first = paint(photo)
    events: list[Event] = []
    again = paint(photo, progress=events.append)
    assert events[-1].total == 3 + 2
    assert np.array_equal(first.pixels, again.pixels)


def test_what_cannot_be_done_is_one_sentence(
    settings: dict[str, Any], photo: Floats, painting: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="block 1 has no self-attention: use blocks from 2 to 3"):
        atelier.stylize(photo, painting, **settings | {"blocks": (1, 2)})
    with pytest.raises(WeightsError, match=r"`atelier weights pull stable_diffusion\.v1_5`"):
        atelier.stylize(photo, painting, method="styleid")
    monkeypatch.setattr(memory, "available", lambda device: 1 << 20)
    with pytest.raises(ResourceError, match=r"needs at least .* GiB of memory on cpu"):
        atelier.stylize(photo, painting, **settings)
