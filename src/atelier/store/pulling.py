"""Downloading the files of a record: each from the first source that works, and checked before use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atelier.core.errors import WeightsError
from atelier.store import download, installation
from atelier.store.download import Progress
from atelier.store.installation import Shelf
from atelier.store.records import File, Record


def pull(known: Record, shelf: Shelf, progress: Progress | None) -> Path:
    """Download the missing files and install them. The caller holds the shelf's lock.

    Raises `WeightsError` if no source works. Partial downloads are kept, so that the next call can resume.
    """
    sources, done = {}, 0
    for part in known.parts:
        if shelf.has(part):
            sources[part.name] = ""
            done += part.bytes or 0
        else:
            sources[part.name] = _bring(known, part, shelf, _shifted(progress, known, done))
            done += part.bytes or 0
    try:
        installed = shelf.finish(sources)
    except WeightsError:  # unusable files; after any other error, the next call continues from them
        _discard(known, shelf)
        raise
    _discard(known, shelf)
    return installed


def _discard(known: Record, shelf: Shelf) -> None:
    for part in known.parts:
        download.discard(shelf.part_of(part))


def _shifted(progress: Progress | None, known: Record, before: int) -> Progress | None:
    """`progress` for one of several files, offset by the bytes of the files `before` it."""
    if progress is None or known.file:
        return progress
    return lambda done, _: progress(before + done, known.size)


def _bring(known: Record, part: File, shelf: Shelf, progress: Progress | None) -> str:
    """Download one file and hand it to the shelf. Returns the URL it came from."""
    failures, arrived = [], shelf.part_of(part)
    for url in part.sources:
        try:
            _fetch(part, url, arrived, progress)
            shelf.take(part, url)
        except download.SourceError as error:
            failures.append(f"{url} {error}")
        except WeightsError as error:
            download.discard(arrived)
            reason = str(error).removesuffix(".").replace(str(arrived), part.name)
            failures.append(f"{url} sent an unusable file: {reason}")
        else:
            return url
    raise WeightsError(_nothing_came(known, failures))


def _fetch(part: File, url: str, arrived: Path, progress: Progress | None) -> None:
    """Download and check the file. A file assembled from several responses is retried once."""
    for _ in range(2):
        joined = download.download(url, arrived, progress)
        problem = _mismatch(part, arrived)
        if problem is None:
            return
        download.discard(arrived)
        if not joined:
            break
    raise download.SourceError(problem)


def _mismatch(part: File, arrived: Path) -> str | None:
    found, size = installation.sha256(arrived), arrived.stat().st_size
    check = part.check(found)
    if check == "verified":
        return None
    if part.bytes not in (None, size):
        return f"sent {size} bytes instead of {part.bytes}: the file is truncated or a different one"
    if check == "unverified":
        return None
    return f"sent a file that is not the published one: sha256 {found}, not {part.hash}"


def _nothing_came(known: Record, failures: Sequence[str]) -> str:
    if not failures:
        return f"the weights {known.name} have no download address: {known.by_hand}"
    return (
        f"the weights {known.name} could not be downloaded: {'; '.join(failures)}; try again later (partial "
        f"downloads are kept), or {known.by_hand}"
    )
