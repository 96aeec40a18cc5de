"""Quilting: guidance, and block sizes of the passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import atelier
from atelier.core.progress import Event
from atelier.methods.classical.quilting import Quilting, _sides


def made(photo: np.ndarray, style: np.ndarray, **settings: Any) -> np.ndarray:
    # Blocks are in pixels of 512, and these pictures have 56.
    return atelier.stylize(
        photo, style, method="quilting", **{"block": 140, "smallest": 56, "passes": 3, "blur": 0} | settings
    ).pixels


def test_without_guidance_only_the_size_comes_from_the_photo(photo: np.ndarray, painting: np.ndarray) -> None:
    one, other = made(photo, painting, guidance=0), made(1 - photo, painting, guidance=0)
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert not np.array_equal(one, made(photo, painting, guidance=0, seed=1))


@pytest.mark.parametrize("guide", ["lightness", "colours"])
def test_guidance_follows_the_photo(photo: np.ndarray, painting: np.ndarray, guide: str) -> None:
    # In its colours, or its tones alone.
    aim = atelier.stylize(photo, painting, method="colour").pixels if guide == "colours" else photo

    def likeness(guidance: float) -> float:
        result = made(photo, painting, guide=guide, guidance=guidance)
        pair = [one if guide == "colours" else one.mean(axis=2) for one in (result, aim)]
        return float(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])

    free, led = likeness(0), likeness(20)
    assert led > 0.35
    assert led > free + 0.25


def test_a_style_guided_by_itself_is_reproduced(painting: np.ndarray) -> None:
    result = made(painting, painting, guidance=20, tolerance=0, passes=1, guide="lightness")
    # Pieces that the border cuts know less.
    assert np.abs(result - painting)[:33, :22].mean() < 0.02


def test_block_sizes_shrink_in_equal_ratios_and_scale_with_the_picture() -> None:
    knobs = Quilting.Knobs(block=48, smallest=6, passes=4)
    assert _sides(knobs, 1.0) == [48, 24, 12, 6]
    assert _sides(knobs, 2.0) == [96, 48, 24, 12]
    assert _sides(knobs, 0.1) == [5, 4, 4, 4]
    assert _sides(Quilting.Knobs(block=48, smallest=200, passes=2), 1.0) == [48, 48]
    assert _sides(Quilting.Knobs(block=48, passes=1), 1.0) == [48]


def test_every_row_of_every_pass_reports_progress(photo: np.ndarray, painting: np.ndarray) -> None:
    events: list[Event] = []
    made(photo, painting, progress=events.append)
    assert [event.done for event in events] == list(range(1, events[-1].total + 1))
    assert len({event.stage for event in events}) == 3


def test_stopping_in_a_later_pass_keeps_the_previous_one(photo: np.ndarray, painting: np.ndarray) -> None:
    stages: list[str] = []

    def stop(event: Event) -> bool:
        stages.append(event.stage)
        return len(set(stages)) < 2

    result = made(photo, painting, progress=stop)
    assert result.shape == photo.shape
    assert (result.max(axis=2) > 0.02).mean() > 0.95
