"""Elad-Milanfar: weight of the photo, colours of the style, and invalid settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import atelier
from atelier.core.errors import UsageError
from atelier.core.progress import Event

FEW = {"iterations": 2, "votes": 3, "smallest": 28}


def made(photo: np.ndarray, style: np.ndarray, **settings: Any) -> np.ndarray:
    return atelier.stylize(photo, style, method="elad_milanfar", **FEW | settings).pixels


def likeness(result: np.ndarray, photo: np.ndarray) -> float:
    return float(np.corrcoef(result.mean(axis=2).ravel(), photo.mean(axis=2).ravel())[0, 1])


def test_a_higher_content_weight_keeps_more_of_the_photo(photo: np.ndarray, painting: np.ndarray) -> None:
    none, some, much = (
        likeness(made(photo, painting, content_weight=weight, background=1), photo) for weight in (0, 1, 50)
    )
    assert none < some < much
    assert much > none + 0.2


def test_salient_areas_keep_more_of_the_photo() -> None:
    y, x = np.mgrid[:96, :128]
    photo = np.stack([0.55 + x / 900, 0.6 + y / 900, 0.7 - x / 900], axis=2).astype(np.float32)
    ball = (x - 60) ** 2 + (y - 48) ** 2 < 20**2
    photo[ball] = (0.8, 0.25, 0.2)
    photo[(x // 6 + y // 6) % 2 == 0] *= 0.8
    style = np.random.default_rng(0).random((96, 128, 3), dtype=np.float32)
    everywhere, there = (
        made(photo, style, content_weight=5, background=share, smoothing=0) for share in (1, 0)
    )
    inside = (x - 60) ** 2 + (y - 48) ** 2 < 14**2
    change = np.abs(everywhere - there).mean(axis=2)
    assert change[inside].mean() < change[~ball].mean()


def test_the_result_has_the_styles_colours(photo: np.ndarray, painting: np.ndarray) -> None:
    dark = 0.5 * painting
    result = made(photo, dark)
    np.testing.assert_allclose(result.mean(axis=(0, 1)), dark.mean(axis=(0, 1)), atol=0.03)


def test_the_style_as_content_is_reproduced(painting: np.ndarray) -> None:
    # A picture of the style's own patches is already what they want.
    result = made(painting, painting, content_weight=20, background=1, smoothing=0)
    assert np.abs(result - painting).mean() < 0.06


def test_each_knob_changes_the_picture(photo: np.ndarray, painting: np.ndarray) -> None:
    base = made(photo, painting)
    for knob, value in (
        ("robustness", 2.0),
        ("smoothing", 2.0),
        ("energy", 0.4),
        ("patches", (5,)),
        ("smallest", 500),
    ):
        more = {"gaps": (3,)} if knob == "patches" else {}
        assert np.abs(made(photo, painting, **{knob: value}, **more) - base).mean() > 1e-3, knob


def test_every_round_reports_progress(photo: np.ndarray, painting: np.ndarray) -> None:
    events: list[Event] = []
    made(photo, painting, progress=events.append)
    # 28 x 20 takes patches of 13 and 9; 56 x 40 takes all.
    assert [event.stage for event in events] == ["28 x 20"] * 4 + ["56 x 40"] * 8
    assert events[-1].done == events[-1].total == 12


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patches": (9,)}, "there are 1 patch sizes but 4 gaps"),
        ({"patches": (), "gaps": ()}, "there are 0 patch sizes but 0 gaps"),
        ({"patches": (9,), "gaps": (10,)}, "at most its patch size"),
        ({"patches": (9,), "gaps": (0,)}, "at least 1 pixel"),
        ({"patches": (2,), "gaps": (1,)}, "patch sizes must be 3 to 99 pixels"),
    ],
)
def test_invalid_patches_are_errors(
    photo: np.ndarray, painting: np.ndarray, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        made(photo, painting, **settings)
