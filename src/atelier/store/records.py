"""Weights records: what is known of a published or bundled network, and how its file is used."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from atelier.core.errors import WeightsError, did_you_mean

Triple = tuple[float, float, float]

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A published or bundled network and how its file is used.

    `name` is `network.tag`; `file` the name that it was published under; `sources` the addresses to
    try in order; `sha256` its hash, or `sha256_prefix` where only the beginning is known; `bytes` its
    size; `input_range` what its input spans before `normalisation` (mean, std); `converter` names
    what turns it into the stored tensors; `bundled` its path inside the package's weights folder.
    """

    name: str
    file: str
    licence: str
    paper: str
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
            raise WeightsError(f"A weights record is called network.tag in small letters, not '{self.name}'.")
        if self.file != Path(self.file).name:
            raise WeightsError(f"The weights record {self.name} has '{self.file}' for a bare file name.")

    @property
    def hash(self) -> str:
        """What is known of the published file's hash, in words."""
        if self.sha256 is not None:
            return f"sha256 {self.sha256}"
        if self.sha256_prefix is not None:
            return f"sha256 beginning with {self.sha256_prefix}"
        return "no published sha256"

    def has_hash(self, sha256: str) -> bool:
        """Whether `sha256` is what is known of the published file's hash."""
        return sha256.startswith(self.sha256 or self.sha256_prefix or "")


_records: dict[str, Record] = {}


def register(record: Record) -> Record:
    """Make `record` known. Raises `WeightsError` for a second one of the same name."""
    if record.name in _records:
        raise WeightsError(f"There are two weights records called '{record.name}': rename one of them.")
    _records[record.name] = record
    return record


#: What is called before the first look at the records: each imports files that register some.
discoverers: list[Callable[[], object]] = []


def records() -> tuple[Record, ...]:
    """Every record, by name."""
    _discover()
    return tuple(_records[name] for name in sorted(_records))


def record(name: str) -> Record:
    """The record called `name`. Raises `WeightsError`, with the nearest name, if there is none."""
    _discover()
    if name not in _records:
        raise WeightsError(f"There are no weights called '{name}': {did_you_mean(name, _records)}")
    return _records[name]


@cache
def _discover() -> None:
    """A room's records are in its `records.py`, a method's in its file; importing them registers them."""
    rooms = Path(__file__).resolve().parent.parent
    for path in sorted(rooms.glob("*/records.py")):
        if path.parent.name != "store":
            import_module(f"atelier.{path.parent.name}.records")
    for discover in discoverers:
        discover()
