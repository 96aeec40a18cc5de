"""Fields of a form, made from declared settings: a method's knobs, the shared controls, a training run.

A field is a plain dictionary that the browser draws (`assets/form.js`): its kind of input, label, help,
default and range. Nothing here knows a method by name, so the knobs of a new method appear by themselves.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from atelier.core import knobs as knob_rules
from atelier.core.errors import UsageError
from atelier.methods import registry

Field = dict[str, Any]

#: Choices up to this number are drawn as buttons in a row, longer ones as a list that opens.
_IN_A_ROW = 3


def fields(
    model: type[BaseModel],
    defaults: Mapping[str, Any] | None = None,
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
    choices: Mapping[str, Collection[str]] | None = None,
) -> list[Field]:
    """The fields of a model in the order of its declaration.

    `defaults` are the values that a quality sets instead of the declared ones. `choices` are suggestions for
    fields of text, such as the weights that are installed.

    >>> from atelier.core.knobs import Knobs, knob
    >>> class Brush(Knobs):
    ...     width: int = knob(12, "Width of the brush in pixels.", ge=1, le=200)
    >>> [field] = fields(Brush)
    >>> field["kind"], field["label"], field["minimum"], field["maximum"]
    ('range', 'Width', 1, 200)
    """
    names = [name for name in model.model_fields if (only is None or name in only) and name not in skip]
    made = [_field(model, name, dict(defaults or {})) for name in names]
    for field in made:
        if options := (choices or {}).get(field["name"]):
            field["suggestions"] = list(options)
    return made


def values(model: type[BaseModel], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a form sent, as the model's types; a list of numbers comes as text.

    Raises UsageError for text that is no list of numbers. Ranges are checked where the model is made.
    """
    found: dict[str, Any] = {}
    for name, value in chosen.items():
        declared = model.model_fields.get(name)
        if declared is not None and _is_list(declared.annotation) and isinstance(value, str):
            value = _listed(name, value, declared.annotation)
        found[name] = value
    return found


def _field(model: type[BaseModel], name: str, defaults: Mapping[str, Any]) -> Field:
    declared = model.model_fields[name]
    default = defaults.get(name, None if declared.is_required() else declared.get_default())
    field: Field = {
        "name": name,
        "label": name.replace("_", " ").capitalize(),
        "help": declared.description or "",
        "default": _text_of(default) if isinstance(default, (list, tuple)) else default,
        "required": declared.is_required(),
    }
    field |= _input(model, name, declared)
    if field["kind"] == "range" and default and abs(default) < field["step"]:
        field |= {"kind": "number", "step": "any"}  # such values are too fine for a slider
    return field


def _input(model: type[BaseModel], name: str, declared: FieldInfo) -> Field:
    """What the field is typed, dragged or chosen with."""
    kind, optional = _plain(declared.annotation)
    if name in knob_rules.files_of(model):
        words = list(knob_rules.words_of(model).get(name, ()))
        holds = knob_rules.files_of(model)[name]
        return {"kind": "text" if holds == "weights" else "file", "holds": holds, "words": words}
    if name in knob_rules.artifacts_of(model):
        return {"kind": "artifact", "writes": list(knob_rules.artifacts_of(model)[name])}
    if kind is bool:
        return {"kind": "switch"}
    if typing.get_origin(kind) is Literal:
        options = list(typing.get_args(kind))
        names = [_said(str(option)) for option in options]
        return {"kind": "row" if len(options) <= _IN_A_ROW else "list", "options": options, "names": names}
    if kind in (int, float):
        return _number(declared, whole=kind is int, optional=optional)
    return {"kind": "text", "several": _is_list(kind)}


def _said(option: str) -> str:
    """What an option is called on the page: methods by their names, the content as what it is."""
    if option in registry.list_methods():
        return option
    return {"content": "photo"}.get(option, option.replace("_", " "))


def _number(declared: FieldInfo, *, whole: bool, optional: bool) -> Field:
    """A slider where both ends are declared and not orders of magnitude apart, else a number."""
    low, high = _bounds(declared)
    field: Field = {"minimum": low, "maximum": high, "whole": whole, "optional": optional}
    if low is None or high is None or (whole and high - low > 1000):
        return field | {"kind": "number", "step": 1 if whole else "any"}
    step = 1 if whole else _nice((high - low) / 200)
    if low not in (getattr(rule, "ge", None) for rule in declared.metadata):
        field["minimum"] = low + step  # the end itself is excluded
    return field | {"kind": "range", "step": step}


def _bounds(declared: FieldInfo) -> tuple[float | None, float | None]:
    low: float | None = None
    high: float | None = None
    for rule in declared.metadata:
        low = next((v for n in ("ge", "gt") if (v := getattr(rule, n, None)) is not None), low)
        high = next((v for n in ("le", "lt") if (v := getattr(rule, n, None)) is not None), high)
    return low, high


def _nice(step: float) -> float:
    """The nearest smaller step of 1, 2 or 5 times a power of ten.

    >>> _nice(0.04), _nice(0.005)
    (0.02, 0.005)
    """
    power = 10.0 ** math.floor(math.log10(step) + 1e-9)
    factor = max(one for one in (1, 2, 5) if one * power <= step * (1 + 1e-9))
    return float(f"{factor * power:.6g}")


def _plain(annotation: Any) -> tuple[Any, bool]:
    """The annotation without None, and whether it had one."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        return parts[0], len(parts) < len(typing.get_args(annotation))
    return annotation, False


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(_plain(annotation)[0]) in (tuple, list)


def _listed(name: str, text: str, annotation: Any) -> tuple[Any, ...]:
    """A text such as "3, 2" as the values of a list."""
    kind = next(iter(typing.get_args(_plain(annotation)[0])), str)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(kind(part) if kind in (int, float) else part for part in parts)
    except ValueError:
        raise UsageError(
            f"{name} = '{text}' is not allowed: it should be numbers with commas between"
        ) from None


def _text_of(value: Collection[Any]) -> str:
    return ", ".join(str(one) for one in value)
