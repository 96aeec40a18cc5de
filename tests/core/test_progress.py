"""Progress: events reach the listener until it says stop."""

from __future__ import annotations

import pytest
import torch

from atelier.core.progress import Event, Progress


def test_without_a_listener_work_goes_on() -> None:
    progress = Progress()
    assert progress.report(1, 3)
    assert (progress.done, progress.stopped) == (1, False)


def test_an_event_carries_everything() -> None:
    events: list[Event] = []
    image = torch.zeros(1, 3, 2, 2)
    Progress(events.append).report(2, 5, stage="coarse", losses={"style": 1.5}, preview=lambda: image)
    (event,) = events
    assert (event.done, event.total, event.stage, event.losses) == (2, 5, "coarse", {"style": 1.5})
    assert event.preview is not None
    assert event.preview() is image


@pytest.mark.parametrize("answer", [None, True, 0])
def test_only_false_stops(answer: bool | None) -> None:
    assert Progress(lambda event: answer).report(1, 2)


def test_after_a_stop_nothing_is_sent() -> None:
    events: list[Event] = []

    def listen(event: Event) -> bool:
        events.append(event)
        return event.done < 2

    progress = Progress(listen)
    assert [progress.report(done, 4) for done in (1, 2, 3)] == [True, False, False]
    assert [event.done for event in events] == [1, 2]
    assert (progress.done, progress.stopped) == (2, True)


def test_parts_count_on() -> None:
    events: list[tuple[int, int]] = []
    whole = Progress(lambda event: events.append((event.done, event.total)))
    for index in range(3):
        for done in (1, 2):
            whole.part(index, 3).report(done, 2)
    assert events == [(done, 6) for done in range(1, 7)]
    assert whole.done == 6


def test_a_stop_in_one_part_stops_the_whole_and_the_next() -> None:
    whole = Progress(lambda event: False)
    first = whole.part(0, 2)
    assert not first.report(1, 2)
    assert first.stopped
    assert whole.stopped
    assert not whole.part(1, 2).report(1, 2)
    assert whole.done == 1
