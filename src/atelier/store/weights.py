"""Pretrained weights: what is known of them, where they are, and how they come here when asked.

Three kinds, and code never cares which: bundled with the package, published and kept in the cache
(`installation.home()`), or a file of the user's own. Nothing is downloaded except by `pull`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.core.errors import WeightsError
from atelier.store import checkpoints, installation
from atelier.store.installation import Condition, Shelf
from atelier.store.records import Record, record, records

if TYPE_CHECKING:
    from torch import Tensor

    from atelier.store.download import Progress

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")


def where(name: str) -> Path:
    """The path where the weights called `name` lie or would lie."""
    known = record(name)
    packaged = _packaged(known)
    return packaged if packaged is not None and packaged.is_file() else _shelf(known).weights


def installed(name: str) -> bool:
    """Whether the weights called `name` are on this machine; `verify` says whether they are whole."""
    return where(name).is_file()


def locate(name: str) -> Path:
    """The file of the weights called `name`, bundled or in the cache; nothing is downloaded.

    Raises `WeightsError` where it is missing, with the command that brings it.
    """
    path = where(name)
    if not path.is_file():
        raise WeightsError(_missing(record(name), path))
    return path


def load(name_or_path: str | Path) -> dict[str, Tensor]:
    """The tensors of the weights of that name, or in the file of that path, on the CPU.

    Raises `WeightsError` where there are none or the file is damaged or holds code.
    """
    return checkpoints.read_checkpoint(_resolve(name_or_path))


def metadata(name_or_path: str | Path) -> dict[str, str]:
    """What the maker wrote into the safetensors file beside its tensors; empty for other files."""
    return checkpoints.read_metadata(_resolve(name_or_path))


def fingerprint(name_or_path: str | Path) -> str:
    """The sha256 of the file that `load` would read, for recipes."""
    return installation.sha256(_resolve(name_or_path).absolute())


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch the weights called `name` from the first source that gives them; the installed file.

    Does nothing where they are already here and whole. `progress` is called with the bytes that have
    arrived and the bytes in all (None: unknown); what it raises stops the download, which the next
    call takes up again. Raises `WeightsError` when no source works, `OutputError` on a full disk.
    """
    known = record(name)
    packaged = _packaged(known)
    if packaged is not None and packaged.is_file():
        return packaged
    shelf = _shelf(known)
    with shelf.locked():
        # Only now: another process may have brought them while this one waited for the lock.
        if shelf.condition() == "ok":
            return shelf.weights
        return _pull(known, shelf, progress)


def add(name: str, file: str | Path, *, force: bool = False) -> Path:
    """Install `file`, brought by hand, as the weights called `name`; the installed file.

    Raises `WeightsError` for a file that is no checkpoint, or has another hash than the published
    one unless `force`.
    """
    known, file = record(name), Path(file)
    if where(name) == _packaged(known):
        raise WeightsError(
            f"{name} comes with the package and stays as it is: methods take your own file by its path, "
            f"as in --encoder {file}."
        )
    checkpoints.examine(file)
    found = installation.sha256(file.absolute())
    if not force and not known.has_hash(found):
        raise WeightsError(
            f"{file} is not the published {known.file} of {name}: it has sha256 {found}, not "
            f"{known.hash}. Fetch it again, or add it all the same with --force."
        )
    shelf = _shelf(known)
    with shelf.locked():
        return shelf.install(file, known.converter, f"added from {file.name}")


def verify(name: str | None = None) -> list[tuple[str, Condition]]:
    """The name and the condition of the weights called `name`, or of all, by hashing them anew."""
    chosen: Sequence[Record] = records() if name is None else [record(name)]
    return [(known.name, _condition(known)) for known in chosen]


def _shelf(known: Record) -> Shelf:
    return Shelf(known.name, known.file)


def _packaged(known: Record) -> Path | None:
    return None if known.bundled is None else installation.PACKAGED / known.bundled


def _condition(known: Record) -> Condition:
    packaged = _packaged(known)
    if packaged is None or not packaged.is_file():
        return _shelf(known).condition()
    try:
        checkpoints.check_safetensors(packaged)
        return "ok" if known.has_hash(installation.hash_anew(packaged)) else "damaged"
    except (WeightsError, OSError):
        return "damaged"


def _resolve(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, str) and not is_path(name_or_path):
        return locate(name_or_path)
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file {path}: check the path, or give the name of known weights."
        )
    return path


def is_path(text: str) -> bool:
    """Whether `text` means a file rather than the name of a record."""
    if text in (known.name for known in records()):
        return False
    return os.sep in text or "/" in text or text.lower().endswith(_SUFFIXES) or Path(text).is_file()


def _missing(known: Record, path: Path) -> str:
    ways = []
    if known.sources:
        ways.append(f"fetch them with `atelier weights pull {known.name}`")
    ways.append(f"bring {known.file} ({known.hash}) and run `atelier weights add {known.name} FILE`")
    if known.bundled is not None:
        ways = ["they come with the package, so install atelier again", *ways]
    return f"The weights {known.name} are not here (looked at {path}): {', or '.join(ways)}."


def _pull(known: Record, shelf: Shelf, progress: Progress | None) -> Path:
    # Here, not above: every method's file imports this module, and few runs speak HTTP.
    from atelier.store import download

    failures = []
    for url in known.sources:
        try:
            _fetch(known, url, shelf.part, progress)
            installed = shelf.install(shelf.part, known.converter, url)
        except download.SourceError as error:
            failures.append(f"{url} {error}")
        except WeightsError as error:
            download.discard(shelf.part)
            reason = str(error).removesuffix(".").replace(str(shelf.part), known.file)
            failures.append(f"{url} sent a file of no use: {reason}")
        else:
            download.discard(shelf.part)
            return installed
    raise WeightsError(_nothing_came(known, failures))


def _fetch(known: Record, url: str, part: Path, progress: Progress | None) -> None:
    """Bring the file and check it; one put together from several answers gets a second chance."""
    from atelier.store import download

    for _ in range(2):
        joined = download.download(url, part, progress)
        problem = _mismatch(known, part)
        if problem is None:
            return
        download.discard(part)
        if not joined:
            break
    raise download.SourceError(problem)


def _mismatch(known: Record, part: Path) -> str | None:
    found, size = installation.sha256(part), part.stat().st_size
    if known.has_hash(found):
        return None
    if known.bytes not in (None, size):
        return f"sent {size} bytes instead of {known.bytes}: the file is cut short or another one"
    return f"sent another file than the published one: sha256 {found}, not {known.hash}"


def _nothing_came(known: Record, failures: Sequence[str]) -> str:
    by_hand = f"bring {known.file} ({known.hash}) and run `atelier weights add {known.name} FILE`"
    if not failures:
        return f"No address is known for the weights {known.name}: {by_hand}."
    return (
        f"The weights {known.name} could not be fetched: {'; '.join(failures)}. Try again later (what has "
        f"arrived is kept), or {by_hand}."
    )
