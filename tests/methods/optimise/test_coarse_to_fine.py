"""Coarse to fine: order of sizes, event numbers, initial pictures, and stopping."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from atelier.core.errors import UsageError
from atelier.core.progress import Event, Listener, Progress
from atelier.images import Picture, write
from atelier.images.resize import resize
from atelier.methods.base import Job
from atelier.methods.optimise.coarse_to_fine import (
    DescentKnobs,
    coarse_to_fine,
    followed,
    shares,
    size_of,
    stages,
    start_picture,
    style_at,
)

CONTENT = torch.rand(1, 3, 30, 44, generator=torch.Generator().manual_seed(1))
STYLE = torch.rand(1, 3, 26, 44, generator=torch.Generator().manual_seed(2))


def job(listener: Listener | None = None, seed: int = 0, **more: Any) -> Job:
    device, progress = torch.device("cpu"), Progress(listener)
    return Job(CONTENT, [STYLE], [1.0], device, torch.float32, seed=seed, progress=progress, **more)


def knobs(**values: Any) -> DescentKnobs:
    return DescentKnobs(**({"smallest": 16, "iterations": 4, "coarse_iterations": 3} | values))


class Grey:
    """Pulls towards grey; remembers at which sizes it was asked."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, content: Tensor) -> Callable[[Tensor], dict[str, Tensor]]:
        self.sizes.append(tuple(content.shape[-2:]))
        return lambda picture: {"grey": (picture - 0.5).square().mean()}


def test_sizes_and_events() -> None:
    events: list[Event] = []
    objective = Grey()
    made = coarse_to_fine(job(events.append), knobs(), objective)  # type: ignore[arg-type]
    assert objective.sizes == [(11, 16), (30, 44)]
    assert made.shape == CONTENT.shape
    assert [event.done for event in events] == list(range(1, 8))
    assert {event.total for event in events} == {7}
    assert [event.stage for event in events] == ["16 x 11"] * 3 + ["44 x 30"] * 4
    assert all(event.losses.keys() == {"grey"} for event in events)


def test_stages_hold_the_options_of_each_descent() -> None:
    events: list[Event] = []
    seen = []
    for stage in stages(job(events.append), knobs(step_size=0.5, average=0.25), [(15, 22), (30, 44)], done=2):
        assert size_of(stage.content) == stage.size
        assert (stage.options["step_size"], stage.options["average"]) == (0.5, 0.25)
        assert stage.options["report"](1, {"loss": 0.5}, lambda: CONTENT)
        seen.append((stage.size, stage.final, stage.options["iterations"]))
    assert seen == [((15, 22), False, 3), ((30, 44), True, 4)]
    assert [(event.done, event.total) for event in events] == [(2 + 1, 2 + 7), (2 + 3 + 1, 2 + 7)]


def test_stages_end_when_the_listener_stops() -> None:
    seen = []
    for stage in stages(job(lambda event: False), knobs(), [(15, 22), (30, 44)]):
        assert not stage.options["report"](1, {}, lambda: CONTENT)
        seen.append(stage.size)
    assert seen == [(15, 22)]


@pytest.mark.parametrize("last", [1, 3, 5])
def test_stopping_returns_a_full_size_picture(last: int) -> None:
    events: list[Event] = []

    def listen(event: Event) -> bool:
        events.append(event)
        return event.done < last

    objective = Grey()
    made = coarse_to_fine(job(listen), knobs(), objective)
    assert made.shape == CONTENT.shape
    assert len(events) == last
    assert len(objective.sizes) == (1 if last <= 3 else 2)


def test_optimiser_knobs_reach_the_descent() -> None:
    far = [
        (coarse_to_fine(job(), knobs(smallest=99, average=0, **more), Grey()) - CONTENT).abs().max()
        for more in ({"step_size": 0.001}, {"step_size": 0.1}, {"optimiser": "lbfgs", "iterations": 9})
    ]
    assert far[0] < 0.005 < far[1]
    assert far[2] > 0


@pytest.mark.parametrize("start", ["content", "style", "noise", "file"])
def test_start_selects_the_initial_picture(tmp_path: Path, start: str) -> None:
    path = tmp_path / "start.png"
    write(Picture.from_tensor(CONTENT.flip(3)), path)
    opened = {"start": Picture.open(path)} if start == "file" else {}
    found = start_picture(job(files=opened), str(path) if start == "file" else start, (15, 22))
    expected = {"content": CONTENT, "style": STYLE, "file": CONTENT.flip(3)}
    assert found.shape == (1, 3, 15, 22)
    if start == "noise":
        assert found.std() == pytest.approx(12**-0.5, rel=0.1)
        assert torch.equal(found, start_picture(job(), "noise", (15, 22)))
        assert not torch.equal(found, start_picture(job(seed=1), "noise", (15, 22)))
    else:
        assert (found - resize(expected[start], (15, 22))).abs().max() < 0.5 / 255 + 1e-6


def test_files_for_the_recipe() -> None:
    assert knobs(encoder="a").files() == ("a",)
    assert knobs(encoder="a", start="noise").files() == ("a",)
    # The session records the files that it opens.
    assert knobs(encoder="a", start="b.png").files() == ("a",)


def test_the_style_is_scaled_with_the_content() -> None:
    assert style_at(job(), STYLE, (15, 22)).shape == (1, 3, 13, 22)
    assert style_at(job(), STYLE, (30, 44)) is STYLE
    assert style_at(job(), STYLE, (1, 1)).shape == (1, 3, 1, 1)


def test_shares() -> None:
    assert shares(("a", "b"), ()) == {"a": 0.5, "b": 0.5}
    assert shares(("a", "b"), (1, 3)) == {"a": 0.25, "b": 0.75}
    for names, weights, sentence in (
        ((), (), "kernels needs at least one kernel"),
        (("a", "a"), (), "none of them twice"),
        (("a", "b"), (1,), "shares has 1 numbers for 2 kernels"),
        (("a", "b"), (1, -1), "must not be negative"),
        (("a", "b"), (0, 0), "one must be above 0"),
    ):
        with pytest.raises(UsageError, match=sentence):
            shares(names, weights, knob="kernels", weights_knob="shares", what="kernel")


def test_the_initial_picture_is_not_modified() -> None:
    before: npt.NDArray[np.float32] = CONTENT.numpy().copy()
    coarse_to_fine(job(), knobs(smallest=99), Grey())
    assert np.array_equal(CONTENT.numpy(), before)


def test_the_previous_result_is_warped_by_the_flow() -> None:
    previous = torch.arange(12.0).view(1, 1, 3, 4).expand(1, 3, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 1.0  # every colour was one pixel further right
    moved = followed(previous, flow, torch.full((1, 3, 3, 4), -1.0))
    expected = torch.tensor([[1.0, 2, 3, -1], [5, 6, 7, -1], [9, 10, 11, -1]])
    torch.testing.assert_close(moved[0, 0], expected)
    flow[:, 0], flow[:, 1] = 0.0, -0.25
    assert moved.shape == previous.shape
    between = followed(previous, flow, previous)
    torch.testing.assert_close(between[0, 0, 1], torch.tensor([3.0, 4, 5, 6]))


def test_a_video_frame_starts_from_the_previous_result() -> None:
    seen: list[torch.Tensor] = []

    def objective(content: torch.Tensor) -> Any:
        def terms(picture: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(picture.detach().clone())
            return {"near": (picture - content).square().sum()}

        return terms

    content, previous = torch.full((1, 3, 64, 80), 0.5), torch.rand(1, 3, 64, 80)
    job = Job(content, [content], [1.0], torch.device("cpu"), torch.float32, previous=previous)
    coarse_to_fine(job, DescentKnobs(smallest=16, iterations=3, coarse_iterations=2), objective)
    assert [tuple(one.shape[-2:]) for one in seen] == [(64, 80)] * 3
    assert torch.equal(seen[0], previous)
