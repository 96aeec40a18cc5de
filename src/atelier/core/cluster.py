"""Work on a Ray cluster, on one machine or many: items go to actors, and come back finished.

Nothing is shared but the cluster. An item whose worker or machine is lost is done again elsewhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from atelier.core import extras
from atelier.core.errors import ResourceError, UsageError, first_line

Item = TypeVar("Item")

#: How often an item is tried where its worker is lost.
TRIES = 3
#: Seconds after which a wait is interrupted, so that the caller can stop.
_PATIENCE = 0.5


def address_of(engine: str) -> str | None:
    """The cluster that an engine names: None for a new one on this machine. Raises UsageError.

    >>> address_of("ray"), address_of("ray://studio:10001")
    (None, 'ray://studio:10001')
    """
    if engine == "ray":
        return None
    if engine == "auto" or engine.startswith("ray://"):
        return engine
    raise UsageError(f"engine = '{engine}' is not allowed: local, ray, auto or ray://HOST:PORT")


@dataclass
class _Hand(Generic[Item]):
    """An actor with the items that are its own, and how often the first was tried."""

    actor: Any
    items: deque[Item]
    tries: int = 0


class Cluster:
    """A Ray cluster: a new one on this machine with so many processors, or the one at `address`.

    Raises ResourceError where Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, address: str | None = None, *, processors: int | None = None) -> None:
        self._address, self._processors = address, processors

    def __enter__(self) -> Cluster:
        self._ray: Any = extras.require("ray", "cluster", "The engine ray")
        settings: dict[str, Any] = {"address": self._address} if self._address else {}
        if not self._address:
            settings = {"num_cpus": self._processors, "include_dashboard": False}
        try:
            self._ray.init(log_to_driver=False, logging_level="ERROR", **settings)
        except Exception as error:  # Ray's errors have no common class
            raise ResourceError(f"the Ray cluster cannot be reached: {first_line(error)}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    @property
    def processors(self) -> int:
        """The number of processors of all machines."""
        return int(self._ray.cluster_resources().get("CPU", 1))

    def put(self, value: Any) -> Any:
        """The value in the cluster's memory, to be sent to any number of actors."""
        return self._ray.put(value)

    def spread(
        self,
        actor: Callable[[Any], Any],
        kind: type,
        batches: Sequence[Sequence[Item]],
        send: Callable[[Any, Item], Any],
        *,
        jobs: int,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[Item, Any]]:
        """Each item with its answer, or with a ResourceError where its worker was lost `TRIES` times.

        `actor` makes one from the remote form of the class `kind`. A batch belongs to one actor, as long as
        that lives. `send` sends an item to an actor and returns what stands for the answer, or None for an
        item that needs none. Ends early once `stopped` says so.
        """
        remote = self._ray.remote(kind)
        waiting = deque(deque(batch) for batch in batches if batch)
        running: dict[Any, _Hand[Item]] = {}
        for _ in range(min(jobs, len(waiting))):
            hand: _Hand[Item] = _Hand(actor(remote), deque())
            self._next(hand, waiting, send, running)
        while running and not stopped():
            ready, _ = self._ray.wait(list(running), num_returns=1, timeout=_PATIENCE)
            for answer in ready:
                hand = running.pop(answer)
                try:
                    found = self._ray.get(answer)
                except self._ray.exceptions.RayError as error:
                    hand.actor, hand.tries = actor(remote), hand.tries + 1
                    if hand.tries < TRIES:
                        self._next(hand, waiting, send, running)
                        continue
                    found = ResourceError(f"the worker was lost {TRIES} times: {first_line(error)}")
                yield hand.items.popleft(), found
                hand.tries = 0
                self._next(hand, waiting, send, running)

    def _next(
        self,
        hand: _Hand[Item],
        waiting: deque[deque[Item]],
        send: Callable[[Any, Item], Any],
        running: dict[Any, _Hand[Item]],
    ) -> None:
        """Send an actor its next item, or end it: one that replaces a lost one may need its processor."""
        while hand.items or waiting:
            if not hand.items:
                hand.items = waiting.popleft()
            answer = send(hand.actor, hand.items[0])
            if answer is not None:
                running[answer] = hand
                return
            hand.items.popleft()
        self._ray.kill(hand.actor)
