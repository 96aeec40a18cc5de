"""Weights records: what is known of a published or bundled network, and how its files are used."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Literal

from atelier.core.errors import WeightsError, did_you_mean

Triple = tuple[float, float, float]
#: What a hash says of a file: it is the published one, nothing is known to compare with, it is another file.
Check = Literal["verified", "unverified", "wrong"]

#: Files that a pipeline folder may have: weights without code, settings and vocabularies.
PIPELINE_SUFFIXES = (".safetensors", ".json", ".txt", ".model")

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")
_PART = re.compile(r"[\w+@=-][\w+@=.-]*(/[\w+@=-][\w+@=.-]*)*")


@dataclass(frozen=True, kw_only=True)
class File:
    """One published file.

    `name` is its path inside the published folder, with forward slashes; `sources` are the addresses to try
    in order; `sha256` is its hash, or `sha256_prefix` where only the beginning is known; `bytes` is its size.
    """

    name: str
    sources: tuple[str, ...] = ()
    sha256: str | None = None
    sha256_prefix: str | None = None
    bytes: int | None = None

    @property
    def hash(self) -> str:
        """What is known of the file's hash, in words."""
        if self.sha256 is not None:
            return f"sha256 {self.sha256}"
        if self.sha256_prefix is not None:
            return f"sha256 beginning with {self.sha256_prefix}"
        return "no published sha256"

    def check(self, sha256: str) -> Check:
        """What the hash `sha256` of a file at hand says; an unknown hash is never taken for checked."""
        known = self.sha256 or self.sha256_prefix
        if known is None:
            return "unverified"
        return "verified" if sha256.startswith(known) else "wrong"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A published or bundled network and how its files are used.

    `name` is `network.tag`. A network in one file gives `file`, `sources`, `sha256` (or `sha256_prefix`) and
    `bytes`, with the meaning that they have for `File`. One in several gives `files`; where those have no
    sources of their own, `sources` are the addresses of the folder. `{revision}` in an address stands for
    `revision`, the published version.

    `kind` is "tensors" for files whose tensors are read into one dictionary, or "pipeline" for a folder with
    sub-folders in the layout of diffusers, which is kept as it was published. `input_range` is what the
    network's input spans before `normalisation` (mean, standard deviation). `converter` names the function
    from published to stored tensors. `bundled` is the path inside the package's folder of weights.
    """

    name: str
    licence: str
    paper: str
    file: str = ""
    files: tuple[File, ...] = ()
    kind: Literal["tensors", "pipeline"] = "tensors"
    revision: str = ""
    sources: tuple[str, ...] = ()
    sha256: str | None = None
    sha256_prefix: str | None = None
    bytes: int | None = None
    input_range: tuple[float, float] = (0.0, 1.0)
    normalisation: tuple[Triple, Triple] | None = None
    converter: str = "plain"
    bundled: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise WeightsError(
                f"a weights record is named network.tag in lower-case letters, not '{self.name}'"
            )
        if bool(self.file) == bool(self.files):
            raise WeightsError(f"the weights record {self.name} must have either `file` or `files`")
        if self.file != Path(self.file).name:
            raise WeightsError(f"the weights record {self.name} has '{self.file}' for a bare file name")
        self._check_files()

    def _check_files(self) -> None:
        names = [one.name for one in self.files]
        if not re.fullmatch(r"[\w.-]*", self.revision):
            raise WeightsError(f"the weights record {self.name} has '{self.revision}' for a revision")
        wrong = [name for name in names if not _PART.fullmatch(name) or names.count(name) > 1]
        if self.kind == "pipeline":
            wrong += [name for name in names if not name.endswith(PIPELINE_SUFFIXES)]
            if self.file or self.converter != "plain":
                raise WeightsError(
                    f"the weights record {self.name} is a pipeline: it has `files` as published"
                )
        if wrong:
            raise WeightsError(
                f"the weights record {self.name} has '{wrong[0]}' for a file: allowed are relative paths, "
                f"each once, in a pipeline with the endings {', '.join(PIPELINE_SUFFIXES)}"
            )

    @property
    def parts(self) -> tuple[File, ...]:
        """The published files, each with its addresses."""
        if self.file:
            return (
                File(
                    name=self.file,
                    sources=self._revised(self.sources),
                    sha256=self.sha256,
                    sha256_prefix=self.sha256_prefix,
                    bytes=self.bytes,
                ),
            )
        return tuple(replace(part, sources=self._revised(self._sources_of(part))) for part in self.files)

    @property
    def size(self) -> int | None:
        """The bytes of all published files; None where one is unknown."""
        sizes = [part.bytes for part in self.parts]
        return sum(size for size in sizes if size is not None) if None not in sizes else None

    @property
    def what(self) -> str:
        """The published files in a few words."""
        count = len(self.files)
        return self.file or f"{count} file{'s' if count > 1 else ''}"

    @property
    def by_hand(self) -> str:
        """How to install the weights without a network, as the end of a sentence."""
        add = f"run `atelier weights add {self.name}"
        if self.file:
            return f"bring {self.file} ({self.parts[0].hash}) and {add} FILE`"
        return f"bring the folder with its {self.what} and {add} FOLDER`"

    def _sources_of(self, part: File) -> tuple[str, ...]:
        return part.sources or tuple(f"{folder.rstrip('/')}/{part.name}" for folder in self.sources)

    def _revised(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(source.replace("{revision}", self.revision) for source in sources)


_records: dict[str, Record] = {}


def register(record: Record) -> Record:
    """Make `record` known. Raises `WeightsError` for a second one of the same name."""
    if record.name in _records:
        raise WeightsError(f"there are two weights records called '{record.name}': rename one of them")
    _records[record.name] = record
    return record


#: Called before the first look at the records: each imports files that register some.
discoverers: list[Callable[[], object]] = []


def records() -> tuple[Record, ...]:
    """Every record, by name."""
    _discover()
    return tuple(_records[name] for name in sorted(_records))


def record(name: str) -> Record:
    """The record called `name`. Raises `WeightsError`, with the nearest name, if there is none."""
    _discover()
    if name not in _records:
        raise WeightsError(f"there are no weights called '{name}': {did_you_mean(name, _records)}")
    return _records[name]


@cache
def _discover() -> None:
    """Import the files that register records: each room's `records.py`, and each method's own file."""
    rooms = Path(__file__).resolve().parent.parent
    for path in sorted(rooms.glob("*/records.py")):
        if path.parent.name != "store":
            import_module(f"atelier.{path.parent.name}.records")
    for discover in discoverers:
        discover()
