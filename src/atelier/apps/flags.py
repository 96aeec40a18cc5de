"""Command-line flags made from declared fields, so that nothing is declared twice.

Values stay text here and are checked where the fields are declared: a flag and a keyword argument
then fail with the same sentence.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def flag(name: str) -> str:
    """The flag of a field: `style_weight` is `--style-weight`."""
    return "--" + name.replace("_", "-")


def parameters(model: type[BaseModel], panel: str, skip: Iterable[str] = ()) -> list[inspect.Parameter]:
    """One keyword parameter per field, for `with_parameters`; None means that the flag was not given."""
    fields = {name: field for name, field in model.model_fields.items() if name not in set(skip)}
    return [_parameter(name, field, panel) for name, field in fields.items()]


def with_parameters(
    function: Callable[..., Any], more: list[inspect.Parameter], **fixed: Any
) -> Callable[..., Any]:
    """`function` with its `**settings` spelled out, for typer to make flags of; `fixed` ones are set."""
    plain = inspect.signature(function, eval_str=True)
    own = [p for p in plain.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]

    def called(**values: Any) -> Any:
        return function(**values, **fixed)

    called.__signature__ = plain.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in [*own, *more]}
    called.__name__, called.__doc__ = function.__name__, function.__doc__
    return called


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given: lists as tuples, the rest as they came."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if v is not None and v != []}


def default_of(field: FieldInfo) -> str:
    """A field's default in words."""
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def kind_of(field: FieldInfo) -> str:
    """What a field takes, in words: a choice, or a type with its range."""
    inner = _inner(field.annotation)
    if get_origin(inner) is Literal:
        return "|".join(map(str, get_args(inner)))
    if get_origin(inner) is tuple:
        inner = get_args(inner)[0]
    name = {int: "integer", float: "number", str: "text", bool: "yes/no"}.get(inner, "text")
    return " ".join([name, *_range(field)])


def _range(field: FieldInfo) -> Iterable[str]:
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


def _parameter(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    inner = _inner(field.annotation)
    kind: Any = list[str] if get_origin(inner) is tuple else bool if inner is bool else str
    names = [f"{flag(name)}/--no-{name.replace('_', '-')}"] if kind is bool else [flag(name)]
    repeated = " Repeat the flag for several." if kind == list[str] else ""
    option = typer.Option(
        *names,
        help=f"{field.description}{repeated}{_default(field)}",
        metavar=None if kind is bool else kind_of(field),
        rich_help_panel=panel,
        show_default=False,
    )
    parameter_kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, parameter_kind, default=None, annotation=_annotated(kind | None, option))


def _default(field: FieldInfo) -> str:
    """As typer writes the defaults that it knows."""
    default = default_of(field)
    return "" if default == "none" else " [required]" if default == "required" else f" [default: {default}]"


def _annotated(kind: Any, option: Any) -> Any:
    from typing import Annotated

    return Annotated[kind, option]
