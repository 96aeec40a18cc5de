"""Jobs: what they tell while they run, and the queue that runs them one after the other.

A job is made by `Studio.paint`, `folder` or `compare`. It is safe to use from any thread. Trainings have the
same interface (`training.TrainingJob`), but run in processes of their own.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.atomic import is_full
from atelier.core.errors import AtelierError, Cancelled, OutputError, ResourceError
from atelier.core.progress import Event, Listener
from atelier.studio.limits import BusyError, Limits, NotHereError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from atelier.images import Picture

State = Literal["waiting", "running", "paused", "done", "stopped", "failed"]
#: States in which nothing more happens by itself.
FINAL = frozenset({"done", "stopped", "failed"})

#: Seconds between two notes, and between two previews, of a running job.
_EVERY, _PREVIEW_EVERY = 0.1, 1.0
#: Long side of a preview in pixels.
_PREVIEW_SIDE = 768
_KEPT_NOTES = 500
#: Finished jobs whose previews and pictures stay in memory.
_SHOWN = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Note:
    """One event of a job: everything that a page shows of it. `asdict` gives the JSON of the HTTP interface.

    `stage` is what is being done, `done` of `total` the steps; `seconds` have passed since the start, and
    `left` are estimated (None while unknown). `item` of `items` counts pictures in a folder or a comparison.
    `preview` counts the preview pictures so far: when it grows, `Job.preview` is a new one. `text` is a line
    to show once. `error` is the sentence of a failed job. `results` are the ids in the gallery so far.
    """

    number: int
    state: State
    stage: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    left: float | None = None
    item: int = 0
    items: int = 1
    preview: int = 0
    text: str = ""
    error: str = ""
    results: tuple[str, ...] = ()


@dataclass
class Made:
    """What a job made of one input: `id` in the gallery (empty if not kept), or the `error` sentence.

    `label` names the input (a file name) or the cell of a comparison; `seconds` and `memory` (the most that
    the process used meanwhile, in MiB) are measured; `picture` is set only for jobs that are not kept.
    """

    label: str
    id: str = ""
    error: str = ""
    seconds: float = 0.0
    memory: float | None = None
    size: tuple[int, int] | None = None
    picture: Picture | None = field(default=None, repr=False)

    def facts(self) -> dict[str, Any]:
        """The same as JSON, without the picture."""
        return {name: value for name, value in vars(self).items() if name != "picture"}


class Job:
    """A piece of work: its state, its events, its results.

    `id` is a random word, `kind` "paint", "folder", "compare" or "train", `title` a line for lists.
    `state` is "waiting", "running", "done", "stopped" (on request or at the time limit; `made` has the best
    so far) or "failed" (`error` has the sentence). `made` lists the results in order, as they come.
    `preview` is the latest preview, uint8 (H, W, 3), or None.
    """

    def __init__(self, kind: str, title: str, work: Callable[[Job], None], *, group: str = "") -> None:
        self.id = secrets.token_hex(8)
        self.kind, self.title, self.group = kind, title, group
        self.created = time.time()
        self.state: State = "waiting"
        self.error = ""
        self.failure: AtelierError | None = None
        self.made: list[Made] = []
        self.preview: npt.NDArray[np.uint8] | None = None
        self.seconds_limit = float("inf")
        self._work: Callable[[Job], None] | None = work
        self._changed = threading.Condition()
        self._notes: deque[Note] = deque(maxlen=_KEPT_NOTES)
        self._cancelled = False
        self._late = False
        self._previews, self._item, self._items, self._text = 0, 0, 1, ""
        self._event = Event(0, 0)
        self._started: float | None = None
        self._ended: float | None = None
        self._item_started = 0.0
        self._last_note = self._last_preview = 0.0
        self._note()

    # for those who watch it

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in FINAL

    @property
    def now(self) -> Note:
        """The state of the moment."""
        with self._changed:
            return self._notes[-1]

    def notes(self, after: int = -1) -> list[Note]:
        """The events with a number above `after`, oldest first; the newest 500 are kept."""
        with self._changed:
            return [note for note in self._notes if note.number > after]

    def wait(self, timeout: float | None = None, *, after: int | None = None) -> bool:
        """Wait for the end, or, with `after`, for an event newer than that. False at a timeout."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.finished or (after is not None and self._notes[-1].number > after), timeout
            )

    def cancel(self) -> None:
        """Stop: a waiting job at once, a running one at its next step, keeping the best picture so far."""
        with self._changed:
            self._cancelled = True
            if self.state == "waiting":
                self._end("stopped")

    def facts(self) -> dict[str, Any]:
        """The job as JSON: what it is, its newest event, and what it made."""
        return {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "created": self.created,
            **asdict(self.now),
            "made": [one.facts() for one in list(self.made)],
        }

    # for the work itself

    def listen(self, event: Event) -> bool:
        """The progress listener of the work; False asks it to stop."""
        now = time.monotonic()
        self._event = event
        if event.note:
            self._text = event.note
        if event.preview is not None and now - self._last_preview >= _PREVIEW_EVERY:
            self._last_preview = now
            with contextlib.suppress(Exception):  # a preview is a courtesy: the work goes on without it
                self.preview = _shown(event.preview())
                self._previews += 1
        if now - self._item_started > self.seconds_limit:
            self._late = True
        if event.note or now - self._last_note >= _EVERY:
            self._last_note = now
            self._note()
        return not (self._cancelled or self._late)

    @property
    def asked_to_stop(self) -> bool:
        """Whether it was cancelled, or has reached its time limit."""
        return self._cancelled or self._late

    def listener(self, item: int = 0, items: int = 1, title: str = "") -> Listener:
        """The progress listener of one of several pictures."""
        self._item, self._items, self._event = item, items, Event(0, 0, title)
        self._item_started, self._late = time.monotonic(), False
        self._note()
        return self.listen

    def add(self, made: Made) -> None:
        """A result, as soon as there is one."""
        with self._changed:
            self.made.append(made)
            self._note()

    def run(self) -> None:
        """Do the work; called by the queue. Never raises: an error becomes the job's sentence."""
        with self._changed:
            if self.finished:
                return
            self.state, self._started = "running", time.monotonic()
            self._item_started = self._started
            self._note()
        work, self._work = self._work, None
        assert work is not None
        try:
            work(self)
        except Cancelled:
            self._end("stopped")
        except BaseException as error:  # the last place where it can become a sentence
            if not isinstance(error, AtelierError):
                _log.error("job %s (%s) failed", self.id, self.title, exc_info=error)
            self.failure = as_error(error)
            self._end("failed", str(self.failure))
        else:
            if self._late:
                self._text = f"stopped at the limit of {self.seconds_limit:g} s; the best so far is kept"
            self._end("stopped" if self.asked_to_stop else "done")

    def _end(self, state: State, error: str = "") -> None:
        with self._changed:
            self.state, self.error, self._work = state, error, None
            self._ended = time.monotonic()
            self._note()

    def _note(self) -> None:
        with self._changed:
            number = self._notes[-1].number + 1 if self._notes else 0
            self._notes.append(
                Note(
                    number=number,
                    state=self.state,
                    stage=self._event.stage,
                    done=self._event.done,
                    total=self._event.total,
                    seconds=round(self._seconds(), 2),
                    left=self._left(),
                    item=self._item,
                    items=self._items,
                    preview=self._previews,
                    text=self._text,
                    error=self.error,
                    results=tuple(one.id for one in self.made if one.id),
                )
            )
            self._text = ""
            self._changed.notify_all()

    def _seconds(self) -> float:
        if self._started is None:
            return 0.0
        return (self._ended or time.monotonic()) - self._started

    def _left(self) -> float | None:
        """Seconds to the end at the speed so far; all pictures count the same."""
        if self.finished:
            return 0.0
        if self._started is None or self._event.total <= 0 or self._event.done <= 0:
            return None
        share = min(1.0, self._event.done / self._event.total)
        if self._items > 1 and self._item > 0:
            done = (self._item + share) / self._items
            return round(self._seconds() * (1 - done) / done, 1)
        one = (time.monotonic() - self._item_started) / share
        return round(one * (1 - share) + one * (self._items - 1), 1)


def as_error(error: BaseException) -> AtelierError:
    """The error that a user reads: of the same kind, on one line, without the pictures in its frames."""
    text = " ".join(str(error).split())
    if isinstance(error, AtelierError):
        return type(error)("".join(one if one.isprintable() else ascii(one)[1:-1] for one in text))
    if isinstance(error, MemoryError) or "not enough memory" in text or "out of memory" in text:
        return ResourceError("not enough memory: ask for a smaller size")
    if isinstance(error, OSError) and is_full(error):
        return OutputError("no space is left on the disk of the studio's folder: free some")
    return AtelierError("internal error: the server's log says more; please report it")


def _shown(tensor: Any) -> npt.NDArray[np.uint8]:
    """A preview (1, 3, H, W) in 0..1 as uint8 (H, W, 3), at most `_PREVIEW_SIDE` pixels long."""
    import torch.nn.functional as F

    small = tensor.detach()[:1].float().clamp(0, 1)
    scale = _PREVIEW_SIDE / max(small.shape[-2:])
    if scale < 1:
        small = F.interpolate(small, scale_factor=scale, mode="area")
    array: npt.NDArray[np.uint8] = (small[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return array


class Queue:
    """Runs jobs in the order of their arrival: `limits.heavy` at a time, and previews beside them.

    `put` raises BusyError when `limits.queue` jobs wait. The newest `limits.remembered` finished are kept.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._jobs: dict[str, Job] = {}
        self._lanes: dict[str, deque[Job]] = {"heavy": deque(), "light": deque()}
        self._changed = threading.Condition()
        self.ended = False
        names = ["heavy"] * limits.heavy + ["light"]
        self._workers = [
            threading.Thread(target=self._work, args=(lane,), name=f"studio-{lane}", daemon=True)
            for lane in names
        ]
        for worker in self._workers:
            worker.start()

    def put(self, job: Job, *, light: bool = False) -> Job:
        """Add a job. A job with a `group` replaces unfinished ones of the same group, which are cancelled."""
        with self._changed:
            if job.group:
                for other in self._jobs.values():
                    if other.group == job.group and not other.finished:
                        other.cancel()
            lane = self._lanes["light" if light else "heavy"]
            waiting = sum(one.state == "waiting" for one in lane)
            if waiting >= self.limits.queue:
                raise BusyError(
                    f"{waiting} jobs are waiting, which is the limit: try again when some are finished"
                )
            if self.ended:
                raise BusyError("the studio is closing: start it again")
            job.seconds_limit = self.limits.seconds
            lane.append(job)
            self._jobs[job.id] = job
            self._forget()
            self._changed.notify_all()
        return job

    def get(self, id: str) -> Job:
        """The job with this id. Raises NotHereError."""
        with self._changed:
            if id not in self._jobs:
                raise NotHereError(f"there is no job '{id[:40]}': it may have been forgotten after a restart")
            return self._jobs[id]

    def all(self) -> Sequence[Job]:
        """All remembered jobs, newest first."""
        with self._changed:
            return list(reversed(self._jobs.values()))

    def ahead(self, job: Job) -> int:
        """How many jobs run or wait before this one."""
        with self._changed:
            if job.state != "waiting":
                return 0
            lane = list(self._lanes["heavy"])
            before = lane[: lane.index(job)] if job in lane else []
            running = sum(one.state == "running" and not one.group for one in self._jobs.values())
            return running + sum(one.state == "waiting" for one in before)

    def end(self) -> None:
        """Cancel everything and take no more."""
        with self._changed:
            self.ended = True
            for job in self._jobs.values():
                if not job.finished:
                    job.cancel()
            self._changed.notify_all()

    def close(self, timeout: float = 10.0) -> None:
        """`end`, and wait for the workers."""
        self.end()
        deadline = time.monotonic() + timeout
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def _work(self, lane: str) -> None:
        while (job := self._next(lane)) is not None:
            job.run()
            del job  # an idle worker holds no pictures

    def _next(self, lane: str) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._lanes[lane] or self.ended)
            return self._lanes[lane].popleft() if self._lanes[lane] else None

    def _forget(self) -> None:
        finished = [one for one in self._jobs.values() if one.finished]
        for old in finished[: max(0, len(finished) - self.limits.remembered)]:
            del self._jobs[old.id]
        # Pictures in memory are for those who wait for them now.
        for old in finished[:-_SHOWN]:
            old.preview = None
            if any(one.picture is not None for one in old.made):
                self._jobs.pop(old.id, None)
