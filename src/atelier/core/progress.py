"""Progress: typed events for one callback, which can also stop the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Event:
    """Progress of a run: step `done` of `total` in the stage `stage`.

    `losses` are the weighted terms of the objective by name. `preview` returns the current picture,
    (B, 3, H, W) in 0..1; it costs nothing until it is called. `note` is a line to show the user once, such as
    a memory plan.

    >>> import atelier, numpy as np
    >>> events = []
    >>> grey = np.full((16, 16, 3), 0.5)
    >>> picture = atelier.stylize(grey, grey, method="colour", progress=events.append)
    >>> events[-1].done == events[-1].total
    True
    """

    done: int
    total: int
    stage: str = ""
    losses: Mapping[str, float] = field(default_factory=dict)
    preview: Callable[[], torch.Tensor] | None = None
    note: str = ""


Listener = Callable[[Event], bool | None]


class Progress:
    """Sends events to a listener and records its request to stop.

    The listener returns False to stop. The method then returns the best picture so far, and `stopped` is
    True.
    """

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self.stopped = False
        self.done = 0

    def report(
        self,
        done: int,
        total: int,
        *,
        stage: str = "",
        losses: Mapping[str, float] | None = None,
        preview: Callable[[], torch.Tensor] | None = None,
        note: str = "",
    ) -> bool:
        """Send an event; True while the work should continue. Nothing is sent after a stop."""
        if self.stopped:
            return False
        self.done = done
        if self._listener is not None:
            answer = self._listener(Event(done, total, stage, losses or {}, preview, note))
            self.stopped = answer is False
        return not self.stopped

    def part(self, index: int, count: int) -> Progress:
        """The progress of part `index` of `count` equal parts; its events continue those of earlier parts.

        >>> Progress(lambda event: print(event.done, event.total)).part(1, 2).report(3, 10)
        13 20
        True
        """

        def forward(event: Event) -> bool:
            done = index * event.total + event.done
            return self.report(
                done,
                count * event.total,
                stage=event.stage,
                losses=event.losses,
                preview=event.preview,
                note=event.note,
            )

        part = Progress(forward)
        part.stopped = self.stopped
        return part
