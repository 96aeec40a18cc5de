"""Command-line flags generated from declared fields, so that nothing is declared twice.

Values remain text here and are checked where the fields are declared, so that a flag and a keyword argument
fail with the same message.
"""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

if TYPE_CHECKING:  # help pages without declared flags need no pydantic
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo


def flag(name: str) -> str:
    """The flag of a field: `style_weight` is `--style-weight`."""
    return "--" + name.replace("_", "-")


def parameters(
    model: type[BaseModel], panel: str, skip: Iterable[str] = (), hide: Iterable[str] = ()
) -> list[inspect.Parameter]:
    """One keyword parameter for each field, for `with_parameters`; None means that the flag was not given.

    Fields in `skip` get no flag; those in `hide` get one that help leaves out.
    """
    left_out, unseen = set(skip), set(hide)
    return [
        _parameter(name, field, panel, hide=name in unseen)
        for name, field in model.model_fields.items()
        if name not in left_out
    ]


def with_parameters(
    function: Callable[..., Any],
    more: Sequence[inspect.Parameter] = (),
    changed: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """`function` with its `**settings` spelled out, for typer to make flags of.

    `changed` replaces annotations of its own parameters, by name.
    """
    other = changed or {}
    plain = inspect.signature(function, eval_str=True)
    own = [
        p.replace(annotation=other.get(p.name, p.annotation))
        for p in plain.parameters.values()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]

    def called(**values: Any) -> Any:
        return function(**values)

    called.__signature__ = plain.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in [*own, *more]}
    called.__name__ = function.__name__
    return called


def hidden(annotation: Any) -> Any:
    """The annotation of a flag that is read as before, and left out of help."""
    kind, option = get_args(annotation)
    unseen = copy.copy(option)
    unseen.hidden = True
    return Annotated[kind, unseen]


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given; lists become tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if v is not None and v != []}


def default_of(field: FieldInfo) -> str:
    """The default of a field, as help and tables show it."""
    value = field.default
    if field.is_required():
        return "required"
    if value is None or value in ((), ""):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def kind_of(field: FieldInfo) -> str:
    """What a field takes, as help and tables show it: a choice, a file, or a type with its range."""
    if words := _file_of(field):
        return words
    inner = _inner(field.annotation)
    if get_origin(inner) is Literal:
        return "|".join(map(str, get_args(inner)))
    if get_origin(inner) is tuple:
        inner = get_args(inner)[0]
    name = {int: "integer", float: "number", str: "text", bool: "yes/no"}.get(inner, "text")
    return " ".join([name, *_range(field)])


_FILES = {"picture": "picture file", "data": "picture file", "array": ".npy file", "weights": "name or file"}


def _file_of(field: FieldInfo) -> str:
    """What a file knob names, or the extensions of an artifact; empty for another knob."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    words: Any = extra.get("words", ())
    if writes := extra.get("writes"):
        return f"{'|'.join(map(str, writes))} file"  # type: ignore[arg-type]
    if holds := extra.get("file"):
        return "|".join([*words, _FILES[str(holds)]])
    return ""


def _range(field: FieldInfo) -> Iterable[str]:
    from annotated_types import Ge, Gt, Le, Lt

    for rule in field.metadata:
        match rule:
            case Ge(ge=bound):
                yield f"≥{_number(bound)}"
            case Gt(gt=bound):
                yield f">{_number(bound)}"
            case Le(le=bound):
                yield f"≤{_number(bound)}"
            case Lt(lt=bound):
                yield f"<{_number(bound)}"


def _number(bound: Any) -> str:
    if isinstance(bound, int) and bound >= 2**31 and bound.bit_count() == 1:
        return f"2^{bound.bit_length() - 1}"
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _inner(annotation: Any) -> Any:
    """The type behind `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _parameter(name: str, field: FieldInfo, panel: str, *, hide: bool) -> inspect.Parameter:
    inner = _inner(field.annotation)
    kind: Any = list[str] if get_origin(inner) is tuple else bool if inner is bool else str
    names = [f"{flag(name)}/--no-{name.replace('_', '-')}"] if kind is bool else [flag(name)]
    repeated = " Repeat the flag for several values." if kind == list[str] else ""
    option = typer.Option(
        *names,
        help=f"{field.description}{repeated}{_default(field)}",
        metavar=None if kind is bool else kind_of(field),
        rich_help_panel=panel,
        show_default=False,
        hidden=hide,
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=Annotated[kind | None, option])


def _default(field: FieldInfo) -> str:
    """The default in the notation of typer."""
    default = default_of(field)
    return "" if default == "none" else " [required]" if default == "required" else f" [default: {default}]"
