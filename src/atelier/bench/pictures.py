"""The contents and styles of a protocol, found on disk, with their hashes and names of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atelier.bench.names import slug
from atelier.bench.protocol import EXAMPLE, Entry
from atelier.core.errors import AtelierError, InputError

#: Side of an example style in pixels.
EXAMPLE_SIDE = 640
#: Characters of words in a name.
_WORDS = 40


@dataclass(frozen=True)
class Input:
    """A content or style. `name` is unique among its kind and usable in file names; words have no `path`.

    `mask` is the path of a content's mask, if it has one, and then `sha256` is of both.
    """

    name: str
    path: str = ""
    text: str = ""
    mask: str = ""
    sha256: str = ""
    group: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that a protocol needs and that is not here."""

    what: str
    reason: str


def inputs(entries: Sequence[Entry], data: Path, examples: Path) -> tuple[list[Input], list[Problem]]:
    """The inputs of entries below the folder `data`, and the problems of those that are missing or differ.

    Examples are painted into the folder `examples` where they are not there yet.
    """
    found: list[Input] = []
    problems: list[Problem] = []
    for entry in entries:
        try:
            found += list(_of(entry, data, examples))
        except AtelierError as error:
            problems.append(Problem(entry.file or entry.text, str(error)))
    return _named(found), problems


def _of(entry: Entry, data: Path, examples: Path) -> Iterator[Input]:
    if bool(entry.file) == bool(entry.text):
        raise InputError("an entry has either `file` or `text`")
    if entry.text:
        digest = hashlib.sha256(entry.text.encode()).hexdigest()
        yield Input(slug(entry.text)[:_WORDS], text=entry.text, sha256=digest, group=entry.group)
        return
    if entry.file.startswith(EXAMPLE):
        paths = [_example(entry.file.removeprefix(EXAMPLE), examples)]
    else:
        paths = _files(entry.file, data)
    for path in paths:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if entry.sha256 not in (None, digest):
            raise InputError(f"'{path}' is another file: it has sha256 {digest}, not {entry.sha256}")
        mask = str(_files(entry.mask, data)[0]) if entry.mask else ""
        if mask:
            digest = hashlib.sha256(digest.encode() + Path(mask).read_bytes()).hexdigest()
        name = slug(entry.name or path.stem)
        yield Input(name, str(path), mask=mask, sha256=digest, group=entry.group)


def _files(pattern: str, data: Path) -> list[Path]:
    """The files of a name or pattern. Raises InputError if there is none."""
    if any(letter in pattern for letter in "*?["):
        paths = sorted(path for path in data.glob(pattern) if path.is_file())
    else:
        paths = [data / pattern] if (data / pattern).is_file() else []
    if not paths:
        raise InputError(f"there is no file '{pattern}' in '{data}'; --data names the folder")
    return paths


def _example(name: str, folder: Path) -> Path:
    """The file of an example, written if it is not there. Raises UsageError for an unknown name."""
    from atelier import examples, images
    from atelier.images import Picture

    path = folder / f"{name}.png"
    if not path.is_file():
        photo = name in examples.PHOTOS
        pixels = examples.photo(name) if photo else examples.style(name, size=EXAMPLE_SIDE)
        folder.mkdir(parents=True, exist_ok=True)
        images.write(Picture.of(pixels), path, overwrite=True)
    return path


def _named(found: Sequence[Input]) -> list[Input]:
    """The inputs with a number behind names that occur again."""
    seen: dict[str, int] = {}
    named = []
    for one in found:
        count = seen[one.name] = seen.get(one.name, 0) + 1
        named.append(one if count == 1 else replace(one, name=f"{one.name}-{count}"))
    return named
