"""Weights records: metadata of published and bundled networks, and how to use their files."""

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
#: "verified" is the published file, "unverified" has no published hash to compare with, "wrong" differs.
Check = Literal["verified", "unverified", "wrong"]

#: Files allowed in a pipeline folder: weights without code, settings and vocabularies.
PIPELINE_SUFFIXES = (".safetensors", ".json", ".txt", ".model")

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")
_PART = re.compile(r"[\w+@=-][\w+@=.-]*(/[\w+@=-][\w+@=.-]*)*")


@dataclass(frozen=True, kw_only=True)
class File:
    """One published file.

    `name` is the path inside the published folder, with forward slashes. `sources` are the URLs to try, in
    order. `sha256` is the hash, or `sha256_prefix` if only its beginning is known. `bytes` is the size.
    `prefix` is put before the name of each tensor, if several files have tensors of the same names.
    """

    name: str
    sources: tuple[str, ...] = ()
    sha256: str | None = None
    sha256_prefix: str | None = None
    bytes: int | None = None
    prefix: str = ""

    @property
    def hash(self) -> str:
        """The file's published hash, for messages."""
        if self.sha256 is not None:
            return f"sha256 {self.sha256}"
        if self.sha256_prefix is not None:
            return f"sha256 beginning with {self.sha256_prefix}"
        return "no published sha256"

    def check(self, sha256: str) -> Check:
        """Compare the hash `sha256` of a file with the published hash, if there is one."""
        known = self.sha256 or self.sha256_prefix
        if known is None:
            return "unverified"
        return "verified" if sha256.startswith(known) else "wrong"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A published or bundled network and how its files are used.

    `name` is `network.tag`. A network in one file sets `file`, `sources`, `sha256` (or `sha256_prefix`) and
    `bytes`, with the same meaning as in `File`. A network in several files sets `files`; for those without
    sources of their own, `sources` are the URLs of the folder. `{revision}` in a URL stands for `revision`,
    the published version.

    `kind` is "tensors" for files whose tensors are read into one dictionary, or "pipeline" for a folder with
    subfolders in the layout of diffusers, which is stored unchanged. `input_range` is the range of the
    network's input before `normalisation` (mean, standard deviation). `converter` names the function that
    converts published tensors to stored tensors. `bundled` is the path inside the package's weights folder.
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
                f"a weights record must have a lower-case name of the form network.tag, not '{self.name}'"
            )
        if bool(self.file) == bool(self.files):
            raise WeightsError(f"the weights record {self.name} must have either `file` or `files`")
        if self.file != Path(self.file).name:
            raise WeightsError(f"the weights record {self.name}: '{self.file}' must be a bare file name")
        self._check_files()

    def _check_files(self) -> None:
        names = [one.name for one in self.files]
        if not re.fullmatch(r"[\w.-]*", self.revision):
            raise WeightsError(f"the weights record {self.name}: '{self.revision}' is not a valid revision")
        wrong = [name for name in names if not _PART.fullmatch(name) or names.count(name) > 1]
        if self.kind == "pipeline":
            wrong += [name for name in names if not name.endswith(PIPELINE_SUFFIXES)]
            if self.file or self.converter != "plain":
                raise WeightsError(
                    f"the weights record {self.name} is a pipeline: it must list `files` and no converter"
                )
        if wrong:
            raise WeightsError(
                f"the weights record {self.name} has an invalid file '{wrong[0]}': use unique relative "
                f"paths, in a pipeline with the extensions {', '.join(PIPELINE_SUFFIXES)}"
            )

    @property
    def parts(self) -> tuple[File, ...]:
        """The published files, each with its URLs."""
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
        """The total size of the published files in bytes; None if one is unknown."""
        sizes = [part.bytes for part in self.parts]
        return sum(size for size in sizes if size is not None) if None not in sizes else None

    @property
    def what(self) -> str:
        """The published files, for messages."""
        count = len(self.files)
        return self.file or f"{count} file{'s' if count > 1 else ''}"

    @property
    def by_hand(self) -> str:
        """How to install the weights without a network connection, as the end of a sentence."""
        add = f"run `atelier weights add {self.name}"
        if self.file:
            return f"copy {self.file} ({self.parts[0].hash}) to this machine and {add} FILE`"
        return f"copy the folder with its {self.what} to this machine and {add} FOLDER`"

    def _sources_of(self, part: File) -> tuple[str, ...]:
        return part.sources or tuple(f"{folder.rstrip('/')}/{part.name}" for folder in self.sources)

    def _revised(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(source.replace("{revision}", self.revision) for source in sources)


_records: dict[str, Record] = {}


def register(record: Record) -> Record:
    """Register `record`. Raises `WeightsError` if the name is already taken."""
    if record.name in _records:
        raise WeightsError(f"there are two weights records called '{record.name}': rename one of them")
    _records[record.name] = record
    return record


#: Functions that import modules with records. They are called before the first lookup.
discoverers: list[Callable[[], object]] = []


def records() -> tuple[Record, ...]:
    """All records, sorted by name."""
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
    """Import the modules that register records: each package's `records.py`, and each method's module."""
    packages = Path(__file__).resolve().parent.parent
    for path in sorted(packages.glob("*/records.py")):
        if path.parent.name != "store":
            import_module(f"atelier.{path.parent.name}.records")
    for discover in discoverers:
        discover()
