"""The pipeline of a clip's frames: several are painted at once where the method allows it, and come in order.

A method that takes nothing from the result before needs of it only what it remembers, such as the statistics
of each layer. So the next frame follows one layer behind, and waits for a value until the frame before has
it. The pictures are the same as one after another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, repeat
from threading import Condition
from typing import TYPE_CHECKING

from atelier.images import Picture
from atelier.video.motion import Motion
from atelier.video.source import Pixels, Shot
from atelier.video.steady import Painter, State

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.core.progress import Listener


@dataclass(frozen=True)
class Next:
    """A frame to paint, and the motion since the one before; None for the first."""

    index: int
    shot: Shot
    pixels: Pixels
    motion: Motion | None

    @property
    def follows(self) -> Motion | None:
        """The motion, unless the frame begins a scene."""
        return None if self.motion is None or self.motion.cut else self.motion


#: Frames in order, each with its picture and state.
Painted = Generator[tuple[Next, Picture, State], None, None]


class Relay(MutableMapping[str, "Tensor"]):
    """The memory of a frame: what it writes, over what the frame before left.

    A name that the frame before is still to write is waited for. Each frame writes a name once.

    >>> first = Relay({"a": 1})
    >>> second = Relay(first)
    >>> first["a"] = 2
    >>> second["a"]
    2
    """

    def __init__(self, before: Mapping[str, Tensor]) -> None:
        self._before, self._own = before, dict[str, "Tensor"]()
        self._ended, self._changed = False, Condition()

    def __getitem__(self, name: str) -> Tensor:
        if name in self._own:
            return self._own[name]
        return self._before.last(name) if isinstance(self._before, Relay) else self._before[name]

    def last(self, name: str) -> Tensor:
        """The value that this frame leaves; waits for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or name in self._own)
        return self[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        with self._changed:
            self._own[name] = value
            self._changed.notify_all()

    def __delitem__(self, name: str) -> None:
        raise TypeError("what a frame remembers is not removed")

    def __iter__(self) -> Iterator[str]:
        return iter({**self._before, **self._own})

    def __len__(self) -> int:
        return len({*self._before, *self._own})

    def end(self) -> None:
        """Nothing more is written."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def settled(self) -> dict[str, Tensor]:
        """What is left, after the end of this frame and those before; these are then let go."""
        self._before = {**self._before, **self._own}
        return self._before


class Pipeline:
    """Paints frames with `painter`, `at_once` at the same time; `listener` gives that of a frame's steps."""

    def __init__(self, painter: Painter, at_once: int, listener: Callable[[int], Listener]) -> None:
        self.painter, self.at_once, self.listener = painter, at_once, listener

    def painted(self, frames: Iterator[Next], state: State | None) -> Painted:
        """Each frame with its picture and state; `state` is that of the frame before the first, if any."""
        paint = self._together if self.at_once > 1 else self._one_by_one
        with closing(_ahead(frames)) as ready:
            yield from paint(ready, state)

    def _one_by_one(self, ready: Iterator[Next], state: State | None) -> Painted:
        for now in ready:
            picture, state = self.painter.paint(now.pixels, _last(now, state), self.listener(now.index))
            yield now, picture, state

    def _together(self, ready: Iterator[Next], state: State | None) -> Painted:
        waiting: deque[tuple[Next, Relay, Future[Picture]]] = deque()
        memory: Mapping[str, Tensor] = {} if state is None else state.memory
        pool, begun = ThreadPoolExecutor(self.at_once), False
        try:
            for now in chain(ready, repeat(None)):
                if now is not None:
                    memory = relay = Relay(memory if now.follows else {})
                    waiting.append((now, relay, pool.submit(self._start, now, relay)))
                elif not waiting:
                    return
                # The first frame prepares the styles; one more than is painted keeps every thread busy.
                if now is None or not begun or len(waiting) > self.at_once:
                    first, left, picture = waiting.popleft()
                    finished = self.painter.finish(picture.result(), left.settled(), _last(first, state))
                    state, begun = finished[1], True
                    yield first, *finished
        finally:
            pool.shutdown(cancel_futures=True)

    def _start(self, now: Next, memory: Relay) -> Picture:
        try:
            return self.painter.start(now.pixels, now.follows, memory)
        finally:
            memory.end()


def _last(now: Next, state: State | None) -> tuple[State, Motion] | None:
    return None if now.motion is None or state is None else (state, now.motion)


def _ahead(frames: Iterator[Next]) -> Generator[Next, None, None]:
    """The same frames, each read and its motion computed while the one before is painted."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, frames, None)
        while (now := following.result()) is not None:
            following = pool.submit(next, frames, None)
            yield now
