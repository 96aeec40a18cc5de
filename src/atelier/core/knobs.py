"""Knobs: the settings of a method, declared once as typed fields.

Flags, sliders, the JSON schema and the docs table are generated from the declaration:

>>> class Brush(Knobs):
...     width: int = knob(12, "Width of the brush in pixels.", ge=1, le=200)
>>> parse(Brush, {"width": 20}).width
20
>>> parse(Brush, {"widht": 20})
Traceback (most recent call last):
...
atelier.core.errors.UsageError: there is no knob 'widht': did you mean 'width'?
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atelier.core.errors import UsageError, did_you_mean


class Knobs(BaseModel):
    """Base class for the knobs of a method: frozen, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


K = TypeVar("K", bound=BaseModel)


#: What a file knob names: a picture, a picture read as numbers, a NumPy array, or weights.
Holds = Literal["picture", "data", "array", "weights"]


def knob(
    default: Any,
    help: str,  # noqa: A002 - the word that every command line uses
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    file: Holds | None = None,
    words: tuple[str, ...] = (),
    writes: tuple[str, ...] = (),
) -> Any:
    """Declares a knob: default, help sentence, and range (`ge`, `gt`, `le`, `lt` as in pydantic).

    `file` marks a knob that names a file, and says what the file holds. The file is opened before the method
    runs and passed as `job.files[name]`; weights are passed by name instead. `words` are values of such a
    knob that are not files. `writes` lists the extensions of a knob that requests an artifact: the method
    returns the bytes, and the caller writes them. Methods never read or write paths themselves.
    """
    facts: dict[str, Any] = {"file": file, "words": list(words), "writes": list(writes)}
    extra = {name: value for name, value in facts.items() if value}
    field: Any = Field
    return field(default, description=help, ge=ge, gt=gt, le=le, lt=lt, json_schema_extra=extra or None)


def files_of(kind: type[BaseModel]) -> dict[str, Holds]:
    """What the file of each file knob holds, by knob name."""
    return {name: extra["file"] for name, extra in _extras(kind).items() if "file" in extra}


def words_of(kind: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    """The words that each file knob accepts instead of a file, by knob name."""
    return {name: tuple(extra["words"]) for name, extra in _extras(kind).items() if "words" in extra}


def artifacts_of(kind: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    """The extensions of each artifact knob, by knob name."""
    return {name: tuple(extra["writes"]) for name, extra in _extras(kind).items() if "writes" in extra}


def is_file(kind: type[BaseModel], name: str, value: Any) -> bool:
    """Whether the value of a file knob names a file: it is neither empty nor one of the knob's words."""
    return bool(value) and value not in _extras(kind)[name].get("words", ())


def _extras(kind: type[BaseModel]) -> dict[str, dict[str, Any]]:
    fields = kind.model_fields.items()
    return {name: dict(f.json_schema_extra) for name, f in fields if isinstance(f.json_schema_extra, dict)}


def parse(kind: type[K], values: Mapping[str, Any], *, what: str = "knob") -> K:
    """Validates `values` as knobs of `kind`. Raises UsageError with one sentence for the first problem."""
    for name in values:
        if name not in kind.model_fields:
            raise UsageError(f"there is no {what} '{name}': {did_you_mean(name, kind.model_fields)}")
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else what
        if first["type"] == "missing":
            raise UsageError(f"the {what} '{name}' is required but was not given") from None
        raise UsageError(f"{name} = {first['input']!r} is not allowed: {_reason(first)}") from None


def _reason(problem: Any) -> str:
    """Pydantic's message as the end of a sentence."""
    message = str(problem["msg"]).replace("Input should", "it should").partition(", unable to")[0]
    return message[0].lower() + message[1:]
