"""Knobs: a method's own settings, declared once as typed fields.

Flags, sliders, JSON schema and the docs table are all made from the declaration:

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
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from atelier.core.errors import UsageError, did_you_mean


class Knobs(BaseModel):
    """Base of every method's knobs: frozen, and deaf to names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


K = TypeVar("K", bound=BaseModel)


def knob(
    default: Any,
    help: str,  # noqa: A002 - the word that every command line uses
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """A knob's default, its sentence, and its range: from (`ge`), above (`gt`), to (`le`), below (`lt`)."""
    return Field(default, description=help, ge=ge, gt=gt, le=le, lt=lt)


def parse(kind: type[K], values: Mapping[str, Any], *, what: str = "knob") -> K:
    """Checked knobs. Raises UsageError with one sentence for the first thing that is wrong."""
    for name in values:
        if name not in kind.model_fields:
            raise UsageError(f"there is no {what} '{name}': {did_you_mean(name, kind.model_fields)}")
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else what
        if first["type"] == "missing":
            raise UsageError(f"the {what} '{name}' is needed and was not given") from None
        raise UsageError(f"{name} = {first['input']!r} is not allowed: {_reason(first)}") from None


def _reason(problem: Any) -> str:
    """Pydantic's message as the end of a sentence."""
    message = str(problem["msg"]).replace("Input should", "it should").partition(", unable to")[0]
    return message[0].lower() + message[1:]
