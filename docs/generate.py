"""Tables of methods, knobs, controls, exit codes and training settings, as Markdown.

python docs/generate.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from atelier.api import Controls
from atelier.apps.flags import default_of, flag, kind_of
from atelier.core import errors
from atelier.core.docstrings import first_paragraph
from atelier.methods import registry
from atelier.methods.base import Method
from atelier.methods.facts import takes
from atelier.metrics import METRICS
from atelier.store.records import records as all_records
from atelier.training.settings import DATA, EncoderSettings, MethodSettings


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )


def fields(model: type[BaseModel]) -> str:
    """One row per declared field: flag, type and range, default, sentence."""
    return rows(model.model_fields)


def rows(declared: Mapping[str, FieldInfo]) -> str:
    """One row per field: flag, type and range, default, sentence."""
    found = [
        (f"`{flag(name)}`", kind_of(field), default_of(field), field.description or "")
        for name, field in declared.items()
    ]
    return table(("flag", "takes", "default", "what it does"), found)


def method(kind: type[Method]) -> str:
    """A method's section: sentence, paper, what it takes and needs, qualities, knobs."""
    paper = f"{kind.paper.authors} {kind.paper.year}, [{kind.paper.title}]({kind.paper.url})"
    facts = [f"Takes: {takes(kind)}", f"Qualities: {', '.join(f'`{name}`' for name in kind.qualities)}"]
    if kind.extra:
        facts.append(f"Needs: `pip install 'atelier[{kind.extra}]'`")
    return "\n\n".join([f"## {kind.name}", kind.summary(), paper, *facts, fields(kind.Knobs)])


def exit_codes() -> str:
    """One row per kind of error."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    ]
    rows = [(str(kind.exit_code), f"`{kind.__name__}`", first_paragraph(kind)) for kind in kinds]
    return table(("exit code", "error", "meaning"), rows)


def records() -> str:
    """One row per known weights file."""
    rows = [
        (f"`{known.name}`", known.what, known.licence, known.paper, known.note) for known in all_records()
    ]
    return table(("name", "file", "licence", "paper", "note"), rows)


def training() -> str:
    """The settings of the encoder's training, of every method, of each kind of data, and of each method."""
    parts = [f"### encoder\n\n{fields(EncoderSettings)}"]
    parts.append(f"### Every method\n\n{fields(MethodSettings)}")
    for kind, settings in DATA.items():
        own = {name: field for name, field in settings.model_fields.items() if _differs(name, field)}
        parts.append(f"### Data: {kind}\n\n{first_paragraph(settings)}\n\n{rows(own)}")
    for method in registry.list_methods().values():
        if method.Training is not None:
            name = method.name.replace("_", "-")
            sentence = f"`atelier train {name}` learns from the data *{method.data}*. It also takes:"
            parts.append(f"### {name}\n\n{sentence}\n\n{fields(method.Training)}")
    return "\n".join(parts)


def metrics() -> str:
    """One row per metric."""
    head = ("name", "what it measures", "about", "better", "resize", "features")
    found = [
        (f"`{m.name}`", m.sentence, m.about, m.better, m.resize, ", ".join(m.weights) or "none")
        for m in METRICS.values()
    ]
    return table(head, found)


def _differs(name: str, field: FieldInfo) -> bool:
    """Whether a field is not one of every method's training, or has another default or sentence."""
    usual = MethodSettings.model_fields.get(name)
    return usual is None or (usual.default, usual.description) != (field.default, field.description)


def pages() -> dict[str, str]:
    """The generated files' names and texts."""
    return {
        "methods.md": "\n".join(method(kind) for kind in registry.list_methods().values()),
        "controls.md": fields(Controls),
        "errors.md": exit_codes(),
        "weights.md": records(),
        "training.md": training(),
        "metrics.md": metrics(),
    }


def write(folder: Path) -> None:
    """Write the pages into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
