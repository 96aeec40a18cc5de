"""Frames of a clip painted at the same time are those painted one after another."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from atelier import Stylizer
from atelier.images import Floats
from atelier.methods import registry
from atelier.video.motion import Motion
from atelier.video.pipeline import Next, Pipeline, Relay
from atelier.video.source import Pixels
from atelier.video.steady import Painter

from .conftest import Kind

AT_ONCE = [kind for kind in map(registry.find, registry.list_methods()) if kind.frames_at_once]


def frames() -> list[Pixels]:
    """Three frames of a moving scene, and three of another."""
    scenes = np.random.default_rng(0).integers(0, 255, (2, 12, 12, 3), np.uint8).repeat(6, 1).repeat(6, 2)
    return [np.roll(scene, 2 * step, 1) for scene in scenes for step in range(3)]


def steps(clip: list[Pixels]) -> list[Next]:
    motions = [None, *(Motion.between(before, now) for before, now in pairwise(clip))]
    return [Next(index, None, *one) for index, one in enumerate(zip(clip, motions, strict=True))]  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", AT_ONCE, ids=lambda kind: kind.name)
def test_at_the_same_time_as_one_after_another(kind: Kind, tiny: dict[str, Any], painting: Floats) -> None:
    style = painting if kind.takes.styles else None
    painter = Painter(Stylizer(style, method=kind.name, threads=1, **tiny), 0.9)
    clip = steps(frames())
    assert [one.follows is None for one in clip] == [True, False, False, True, False, False]
    one, two = (
        list(Pipeline(painter, count, lambda index: lambda event: True).painted(iter(clip), None))
        for count in (1, 3)
    )
    # A run that was ended after the second frame goes on from its state.
    rest = Pipeline(painter, 2, lambda index: lambda event: True).painted(iter(clip[2:]), two[1][2])
    two = [*two[:2], *rest]
    assert [now.index for now, _, _ in two] == list(range(len(clip)))
    for (_, picture, state), (_, other, same) in zip(one, two, strict=True):
        assert np.array_equal(picture.pixels, other.pixels)
        assert state.flicker == same.flicker
        assert state.scenes == same.scenes
        assert state.memory.keys() == same.memory.keys()
        assert all(bool((value == same.memory[name]).all()) for name, value in state.memory.items())


def test_what_goes_wrong_in_a_frame_ends_the_clip() -> None:
    def stylize(content: Any, memory: Relay, **context: Any) -> Any:
        if memory.get("number", 0) == 2:
            raise RuntimeError("the third")
        memory["number"] = memory.get("number", 0) + 1
        return content

    pipeline = Pipeline(Painter(stylize, 0.9), 2, lambda index: lambda event: True)
    painted = pipeline.painted(iter(steps(frames()[:3])), None)
    assert [dict(next(painted)[2].memory) for _ in range(2)] == [{"number": 1}, {"number": 2}]
    with pytest.raises(RuntimeError, match="the third"):
        next(painted)
