"""The results of a job as one zip file."""

from __future__ import annotations

import zipfile
from pathlib import Path

from atelier.core.atomic import atomic
from atelier.core.errors import UsageError
from atelier.studio.gallery import Gallery
from atelier.studio.jobs import Job


def pack(job: Job, gallery: Gallery, path: Path, format: str) -> Path:
    """Write the pictures of `job` to `path`, named after their inputs, and `errors.txt` where some failed.

    Raises UsageError where there is nothing to pack, and what `Gallery.file` raises.
    """
    rows = list(job.made)
    if not any(row.id for row in rows):
        raise UsageError("there are no pictures to pack: wait until the first is finished")
    taken: set[str] = set()
    with atomic(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as packed:
        for row in rows:
            if row.id:
                packed.writestr(_name(row.label, format, taken), gallery.file(row.id, format))
        if failed := [f"{row.label}: {row.error}" for row in rows if row.error]:
            packed.writestr("errors.txt", "\n".join(failed) + "\n")
    return path


def _name(label: str, suffix: str, taken: set[str]) -> str:
    """A file name that is not taken: the label's, numbered where it comes again."""
    stem = "".join(letter if letter.isalnum() or letter in " ._-,=" else "_" for letter in Path(label).stem)
    stem = stem.strip(" .")[:80] or "picture"
    name, number = f"{stem}.{suffix}", 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}.{suffix}"
    taken.add(name.lower())
    return name
