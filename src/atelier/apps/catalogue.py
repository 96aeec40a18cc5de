"""Tables of methods, knobs and weights: as text, as JSON and for the docs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from atelier.apps.flags import default_of, flag, kind_of
from atelier.apps.layout import columns, paragraph, table
from atelier.methods.base import Method
from atelier.methods.facts import facts, takes
from atelier.store import records, weights

if TYPE_CHECKING:
    from atelier.features.words import Word


def many(methods: Iterable[type[Method]]) -> str:
    """One row for each method: name, family, year, what it does."""
    rows = [(kind.name, kind.family(), str(kind.paper.year), kind.summary()) for kind in methods]
    return table(("method", "family", "year", "what it does"), rows, columns())


def one(kind: type[Method]) -> str:
    """A method's sentence, paper, qualities and knobs."""
    width = columns()
    paper = f"{kind.paper.authors} ({kind.paper.year}): {kind.paper.title}"
    parts = [
        [f"{kind.name} ({kind.family()})", kind.summary()],
        [paper, kind.paper.url, f"Takes: {takes(kind)}", f"Qualities: {', '.join(kind.qualities)}"],
    ]
    if kind.extra:
        parts[1].append(f"Needs: pip install 'atelier[{kind.extra}]'")
    text = "\n\n".join("\n".join(paragraph(line, width) for line in part) for part in parts)
    rows = [
        (flag(name), kind_of(field), default_of(field), field.description or "")
        for name, field in kind.Knobs.model_fields.items()
    ]
    knobs = table(("knob", "takes", "default", "what it does"), rows, width) if rows else "It has no knobs."
    return f"{text}\n\n{knobs}"


def as_json(methods: Sequence[type[Method]]) -> str:
    """The methods as a JSON array."""
    return json.dumps([facts(kind) for kind in methods], indent=2, ensure_ascii=False)


def words_table(words: Iterable[Word]) -> str:
    """One row for each word of a closed vocabulary, by kind: pictures that carry it, held-out score."""
    rows = [
        (word.name, word.kind, str(word.pictures), f"{word.auc:.2f}", f"by {word.split}")
        for word in sorted(words, key=lambda word: (word.kind, word.name))
    ]
    return table(("word", "kind", "pictures", "AUC", "held out"), rows, columns())


def words_as_json(words: Iterable[Word]) -> str:
    """The words of a closed vocabulary as a JSON array."""
    return json.dumps([dataclasses.asdict(word) for word in words], indent=2, ensure_ascii=False)


def weights_table() -> str:
    """One row for each weights record: name, whether it is installed, licence, paper, note."""
    rows = [
        (record.name, _state(record), record.licence, record.paper, record.note)
        for record in records.records()
    ]
    return table(("weights", "here", "licence", "paper", "note"), rows, columns())


def weights_as_json() -> str:
    """The weights records as a JSON array, with the path where each is, or would be, installed."""
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
