"""Statistics that are held over the frames of a clip.

A method that gives a picture the statistics of a style subtracts those of the content first, and instance
normalisation does so in every layer. Where these are taken from each frame alone, a person who walks into the
picture changes the colour of the wall behind. Inside `remembering` they are running means over the frames
instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

#: What is remembered from one frame to the next, by name.
Memory = MutableMapping[str, Tensor]
#: Share of each new frame in the running means.
SHARE = 0.1

_frame: ContextVar[tuple[Memory, Counter[str]] | None] = ContextVar("frame", default=None)


@contextmanager
def remembering(memory: Memory | None) -> Iterator[None]:
    """Hold statistics in `memory` inside the block, which paints one frame; None holds nothing."""
    token = _frame.set(None if memory is None else (memory, Counter()))
    try:
        yield
    finally:
        _frame.reset(token)


def holding() -> bool:
    """Whether a frame of a clip is being painted."""
    return _frame.get() is not None


def held(kind: str, statistic: Tensor) -> Tensor:
    """The running mean of a statistic of the content over the frames so far; in a picture, the statistic.

    The first frame of a scene, or of another size, starts anew.

    >>> memory = {}
    >>> for value in (1.0, 2.0):
    ...     with remembering(memory):
    ...         print(round(held("mean", torch.tensor(value)).item(), 3))
    1.0
    1.1
    """
    frame = _frame.get()
    if frame is None:
        return statistic
    memory, calls = frame
    # Each frame asks for the same statistics in the same order.
    name = f"{kind} {calls[kind]}"
    calls[kind] += 1
    last = memory.get(name)
    if last is not None and last.shape == statistic.shape:
        statistic = torch.lerp(last.to(statistic), statistic, SHARE)
    memory[name] = statistic.detach().clone()
    return statistic
