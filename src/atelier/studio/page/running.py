"""What a running job shows: a line of progress, the picture so far, and the addresses of what it made."""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.studio.page import parts

if TYPE_CHECKING:
    from atelier.images import Picture
    from atelier.studio.jobs import Job, Note
    from atelier.studio.service import Studio

#: Seconds between two looks at a job.
_EVERY = 0.4
_LABELS = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF, 16 bit"}


def follow(job: Job) -> Iterator[Note]:
    """The newest event of a job, again and again, and the last one when it has ended."""
    number = -1
    while not job.finished:
        job.wait(_EVERY, after=number)
        number = job.now.number
        yield job.now


def line(studio: Studio, job: Job, note: Note) -> str:
    """The bar and the sentence of a running job."""
    if note.state == "waiting":
        ahead = studio.queue.ahead(job)
        return parts.progress(
            f"waiting for {ahead} {'job' if ahead == 1 else 'jobs'}" if ahead else "starting"
        )
    words = [f"{note.item + 1} of {note.items}"] if note.items > 1 else []
    words += [note.stage or "painting", *([f"{duration(note.left)} left"] if note.left else [])]
    if not note.total:
        return parts.progress(", ".join(words))
    return parts.progress(", ".join(words), (note.item + note.done / note.total) / note.items)


def ended(job: Job) -> str:
    """What became of a job, as a sentence; an error where it failed."""
    note = job.now
    if note.state == "failed":
        return parts.error(note.error)
    if note.state == "stopped":
        kept = "the best picture so far is kept" if any(one.id for one in job.made) else "nothing was kept"
        return parts.sentence(note.text or f"Stopped after {duration(note.seconds)}; {kept}.")
    return parts.sentence(f"Done in {duration(note.seconds)}.")


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(0.42), duration(12.3), duration(150), duration(7300)
    ('0.4 s', '12 s', '2 min 30 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def data_url(picture: Picture) -> str:
    """A picture that is not kept, for the browser."""
    from atelier.studio.pictures import jpeg

    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode()


def preview_of(job: Job) -> tuple[str, int, int] | None:
    """The picture so far of a running job as (address, width, height)."""
    import numpy as np

    from atelier.images import Picture

    if job.preview is None:
        return None
    picture = Picture((job.preview / 255).astype(np.float32))
    return data_url(picture), *picture.size


def made_links(studio: Studio, id: str) -> list[dict[str, str]]:
    """The downloads of a picture in the gallery, with its extra outputs."""
    entry = studio.gallery.get(id)
    stem = f"{Path(entry.title.partition(' · ')[0]).stem[:60]}-{entry.method}"
    found = [
        {"label": label, "url": made(id, kind), "name": f"{stem}.{kind}"} for kind, label in _LABELS.items()
    ]
    for knob, suffix in entry.artifacts.items():
        found.append({"label": knob.upper(), "url": artifact(id, knob), "name": f"{stem}{suffix}"})
    return found


def downloads(studio: Studio, id: str) -> str:
    """The same as buttons."""
    return parts.links([(one["label"], one["url"], one["name"]) for one in made_links(studio, id)])


def thumbnail(id: str, side: int = 160) -> str:
    """The address of a small JPEG of any picture."""
    return f"/api/pictures/{id}/thumbnail?side={side}"


def made(id: str, kind: str = "png") -> str:
    """The address of a picture in the gallery."""
    return f"/api/gallery/{id}/file?format={kind}"


def made_thumbnail(id: str) -> str:
    """The address of a small picture of the gallery."""
    return f"/api/gallery/{id}/thumbnail"


def artifact(id: str, knob: str) -> str:
    """The address of an extra output."""
    return f"/api/gallery/{id}/extra/{knob}"


def zipped(id: str) -> str:
    """The address of all pictures of a job in one file."""
    return f"/api/jobs/{id}/zip"


def network(id: str) -> str:
    """The address of a trained network."""
    return f"/api/jobs/{id}/network"


def own_network(name: str) -> str:
    """The address of a network that was made here."""
    return f"/api/networks/{urllib.parse.quote(name)}"


def facts_of(studio: Studio, id: str) -> dict[str, Any]:
    """A picture of the gallery as the viewer takes it."""
    entry = studio.gallery.get(id)
    width, height = entry.size
    note = f"{entry.method}, {width} × {height}, {duration(entry.seconds)}"
    return {"after": made(id), "width": width, "height": height, "note": note}
