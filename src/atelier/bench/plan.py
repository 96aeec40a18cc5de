"""The plan of a grid: its cells, each with a key that holds everything its pixels depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelier.bench.making import stylizer
from atelier.bench.names import slug
from atelier.bench.pictures import Input, Problem, inputs
from atelier.bench.protocol import ExternalEntry, MethodEntry, Protocol
from atelier.core import recipe as recipes
from atelier.core.errors import AtelierError
from atelier.methods import registry


@dataclass(frozen=True)
class Cell:
    """One picture to make: a method on a content and a style. `file` is below the grid's folder."""

    key: str
    method: str
    content: Input
    style: Input
    file: str


@dataclass(frozen=True)
class Plan:
    """The cells of a protocol in the order of their work, with the entries of its methods by label.

    `problems` are missing pictures, without which nothing runs, and `idle` the methods that cannot run here,
    whose cells will fail.
    """

    protocol: Protocol
    contents: Sequence[Input]
    styles: Sequence[Input]
    cells: Sequence[Cell]
    entries: dict[str, MethodEntry | ExternalEntry]
    problems: Sequence[Problem] = field(default_factory=list)
    idle: Sequence[Problem] = field(default_factory=list)


def plan(protocol: Protocol, data: Path, folder: Path) -> Plan:
    """The plan of a protocol with its pictures below `data`, for a grid in `folder`.

    Raises nothing for missing pictures: they are the plan's problems.
    """
    data, folder = data.resolve(), folder.resolve()
    contents, missing = inputs(protocol.contents, data, folder / "inputs")
    styles, more = inputs(protocol.styles, data, folder / "inputs")
    every: tuple[MethodEntry | ExternalEntry, ...] = (*protocol.methods, *protocol.external)
    entries = {one.label: one for one in every}
    idle: list[Problem] = []
    cells = [
        cell
        for entry in entries.values()
        for cell in _cells(protocol, entry, _pairs(protocol, contents, styles), idle)
    ]
    return Plan(protocol, contents, styles, cells, entries, [*missing, *more], idle)


def _pairs(
    protocol: Protocol, contents: Sequence[Input], styles: Sequence[Input]
) -> list[tuple[Input, Input]]:
    """Contents and styles, ordered by style: the work for a style is done once for all contents."""
    if protocol.pairs == "zip":
        return list(zip(contents, styles, strict=False))
    return [(content, style) for style in styles for content in contents]


def _cells(
    protocol: Protocol,
    entry: MethodEntry | ExternalEntry,
    pairs: Sequence[tuple[Input, Input]],
    idle: list[Problem],
) -> Iterator[Cell]:
    """The cells of a method, for the styles of the kinds that it takes."""
    fitting = [pair for pair in pairs if takes(entry, pair[1])]
    facts = _facts(protocol, entry, fitting[0], idle) if fitting else {}
    for content, style in fitting:
        key = _digest(facts | {"content": content.sha256, "style": style.sha256, "words": style.text})
        name = f"pictures/{slug(entry.label)}/{content.name}__{style.name}.png"
        yield Cell(key, entry.label, content, style, name)


def takes(entry: MethodEntry | ExternalEntry, style: Input) -> bool:
    """Whether a method takes a style of this kind; one that needs none takes any."""
    if isinstance(entry, ExternalEntry):
        return not style.text
    kinds = registry.find(entry.method).takes
    return not kinds.least or ("text" if style.text else "picture") in kinds.styles


def _facts(
    protocol: Protocol,
    entry: MethodEntry | ExternalEntry,
    pair: tuple[Input, Input],
    idle: list[Problem],
) -> dict[str, Any]:
    """What all cells of a method share and their pixels depend on: the knobs of its quality, too."""
    facts = {"entry": entry.model_dump(mode="json", exclude={"name"}), "versions": recipes.versions()}
    shared = {"size": protocol.size, "seed": protocol.seed, "threads": protocol.threads}
    if isinstance(entry, MethodEntry):
        facts |= _settled(protocol, entry, pair, idle)
    return facts | shared


def _settled(
    protocol: Protocol, entry: MethodEntry, pair: tuple[Input, Input], idle: list[Problem]
) -> dict[str, Any]:
    """A method's knobs and the hashes of its weights; empty, and a problem more, where it cannot run."""
    content, style = pair
    try:
        ready = stylizer(protocol, entry, style)
        request = ready.request(content.path, mask=content.mask or None)
    except AtelierError as error:
        idle.append(Problem(entry.label, str(error)))
        return {}
    return {"knobs": ready.setup.knobs.model_dump(mode="json"), "weights": dict(request.weights)}


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
