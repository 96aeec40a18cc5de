"""Tables of what there is: methods, knobs, weights; for people, for scripts and for the docs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from atelier.apps.flags import default_of, flag, kind_of
from atelier.methods.base import Method
from atelier.store import records, weights


def many(methods: Iterable[type[Method]]) -> str:
    """One line per method: name, family, year, what it does."""
    table = _table("method", "family", "year", "what it does")
    for kind in methods:
        table.add_row(kind.name, kind.family(), str(kind.paper.year), kind.summary())
    return _drawn(table)


def one(kind: type[Method]) -> str:
    """A method's sentence, paper, qualities and knobs."""
    table = _table("knob", "takes", "default", "what it does")
    for name, field in kind.Knobs.model_fields.items():
        table.add_row(flag(name), kind_of(field), default_of(field), field.description or "")
    paper = f"{kind.paper.authors} ({kind.paper.year}): {kind.paper.title}\n{kind.paper.url}"
    facts = [paper, takes(kind), f"Qualities: {', '.join(kind.qualities)}"]
    if kind.extra:
        facts.append(f"Needs: pip install 'atelier[{kind.extra}]'")
    return f"{kind.name} ({kind.family()})\n{kind.summary()}\n\n" + "\n".join(facts) + f"\n\n{_drawn(table)}"


_STYLES = {"picture": "pictures", "text": "words", "trained": "names"}


def takes(kind: type[Method]) -> str:
    """What a method takes, in one line."""
    rules = kind.takes
    content = {"required": "a photo", "size": "a photo for its size, or none", "none": "no photo"}
    styles = " or ".join(_STYLES[one] for one in sorted(rules.styles))
    most = "" if rules.most is None else f", at most {rules.most}"
    least = "optional" if rules.least == 0 else f"at least {rules.least}"
    style = f"styles as {styles} ({least}{most})" if styles else "no style"
    return f"Takes: {content[rules.content]}; {style}" + ("; a mask" if rules.mask == "required" else "")


def facts(kind: type[Method]) -> dict[str, Any]:
    """A method as data: paper, what it takes, qualities, and the JSON schemas of knobs and training."""
    return {
        "name": kind.name,
        "family": kind.family(),
        "summary": kind.summary(),
        "paper": vars(kind.paper),
        "takes": {**vars(kind.takes), "styles": sorted(kind.takes.styles)},
        "native": sorted(kind.native),
        "extra": kind.extra,
        "multiple": kind.multiple,
        "training": None if kind.Training is None else kind.Training.model_json_schema(),
        "qualities": {name: dict(knobs) for name, knobs in kind.qualities.items()},
        "sizes": dict(kind.sizes),
        "knobs": kind.Knobs.model_json_schema(),
    }


def as_json(methods: Sequence[type[Method]]) -> str:
    """The methods as a JSON array."""
    return json.dumps([facts(kind) for kind in methods], indent=2, ensure_ascii=False)


def weights_table() -> str:
    """One line per weights record: its name, whether it is here, licence, what it is."""
    table = _table("weights", "here", "licence", "paper", "note")
    for record in records.records():
        table.add_row(record.name, _state(record), record.licence, record.paper, record.note)
    return _drawn(table)


def weights_as_json() -> str:
    """The weights records as a JSON array, with the path where each lies or would lie."""
    rows = [
        {
            **dataclasses.asdict(record),
            "path": str(weights.where(record.name)),
            "here": weights.installed(record.name),
            "condition": weights.recorded(record.name),
        }
        for record in records.records()
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False)


def _state(record: records.Record) -> str:
    condition = weights.recorded(record.name)
    if condition == "missing":
        return "no"
    return "bundled" if record.bundled else condition


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    return table


def _drawn(table: Table) -> str:
    """The table as plain text, as wide as the terminal (100 columns where there is none)."""
    import shutil

    from rich.console import Console

    width = shutil.get_terminal_size((100, 24)).columns
    console = Console(width=width, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(table, markup=False)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())
