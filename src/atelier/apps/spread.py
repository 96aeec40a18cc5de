"""The pictures of a folder on a Ray cluster: the same files as by this process alone.

Photos and styles travel to the workers and pictures come back, so no folder has to be mounted anywhere.
Every machine needs atelier with the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from atelier.apps.many import Job, Run
from atelier.core.cluster import Cluster
from atelier.core.errors import AtelierError, ResourceError
from atelier.core.privacy import keep_private
from atelier.core.progress import Event
from atelier.images import MAX_PIXELS, Picture
from atelier.session.stylizer import Stylizer

#: Threads of a worker, unless --threads says otherwise.
_THREADS = 1


class Remote:
    """A worker on some machine: a stylizer, prepared once."""

    def __init__(self, make: partial[Stylizer], inputs: dict[str, Any]) -> None:
        keep_private()
        self._make, self._inputs = make, inputs
        self._stylizer: Stylizer | None = None

    def paint(self, photo: Picture) -> Picture | AtelierError:
        """The picture of a photo, or what is wrong with it."""
        try:
            self._stylizer = self._stylizer or self._make()
            return self._stylizer(photo, **self._inputs)
        except MemoryError:
            return ResourceError(f"there is not enough memory for '{photo.name}': use a smaller size")
        except AtelierError as error:
            return error


class SpreadRun(Run):
    """Paints photos on a cluster, with one stylizer for each worker."""

    def __init__(self, cluster: Cluster, make: partial[Stylizer], *run: Any, **inputs: Any) -> None:
        self._threads = int(make.keywords.get("threads") or _THREADS)
        make = partial(make, threads=self._threads)
        super().__init__(make, *run, **inputs)
        self._cluster = cluster
        most = self.stylizer.setup.controls.max_pixels or MAX_PIXELS
        styles = [_carried(one, most) for one in make.args]
        masks = {name: _carried(one, most, data=True) for name, one in inputs.items()}
        self._made = cluster.put(partial(make.func, *styles, **make.keywords)), masks

    def paint(self, jobs: Sequence[Job], done: int) -> None:
        """Make the pictures of these jobs; `done` others of the report were before them."""
        found = self._cluster.spread(
            self._actor,
            Remote,
            [[job] for job in jobs],
            self._sent,
            jobs=max(1, self._cluster.processors // self._threads),
            stopped=lambda: self.watch.interrupted,
        )
        for place, (job, answer) in enumerate(found, start=done + 1):
            with self._failing(job):
                if isinstance(answer, AtelierError):
                    raise answer
                self._write(answer, job)
                self.report.written += 1
            self.watch(Event(place, self.report.total, f"{place} of {self.report.total}"))
        self.report.interrupted = self.watch.interrupted

    def _sent(self, actor: Any, job: Job) -> Any:
        """Send a photo; None where its picture is there already, or where it cannot be read."""
        with self._failing(job):
            if (content := self._read(job)) is not None:
                return actor.paint.remote(content)
        return None

    def _actor(self, kind: Any) -> Any:
        return kind.options(num_cpus=self._threads).remote(*self._made)


def _carried(given: Any, most: int, *, data: bool = False) -> Any:
    """An input that a file holds, opened here because other machines do not have the file."""
    if isinstance(given, (list, tuple)):
        return [_carried(one, most, data=data) for one in given]
    if isinstance(given, (str, Path)) and Path(given).is_file():
        return Picture.open(given, max_pixels=most, data=data)
    return given
