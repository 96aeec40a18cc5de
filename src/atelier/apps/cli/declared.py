"""Flags that follow from declarations: the controls, a method's knobs, and what the method takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import Parameter
from itertools import pairwise
from typing import Any

from atelier.api import Controls, by_quality
from atelier.apps import arguments
from atelier.apps.flags import hidden, parameters
from atelier.apps.layout import Row
from atelier.core.errors import UsageError, did_you_mean
from atelier.methods import registry
from atelier.methods.base import Method

#: Controls that need a photo.
OF_A_PHOTO = ("strength", "colour", "feather")


def method_of(words: Sequence[str]) -> type[Method]:
    """The method of a line: the one that it names, else that of its quality, which differs for words."""
    quality = value(words, "--quality", "-q") or "good"
    in_words = value(words, "--text") is not None
    return registry.find(value(words, "--method", "-m") or by_quality(quality, words=in_words))


def settings(kind: type[Method], skip: Sequence[str] = ()) -> list[Parameter]:
    """The flags of the controls and of a method's knobs; those that mean nothing to it are hidden."""
    controls = parameters(Controls, "Controls", skip, hide=_idle_controls(kind))
    return [*controls, *parameters(kind.Knobs, f"Knobs of {kind.name}")]


def inputs(kind: type[Method]) -> dict[str, Any]:
    """Other annotations of the flags for inputs, where the method does not take them or takes names.

    A hidden flag is still read, so that the library can say what the method takes instead.
    """
    takes = kind.takes
    changed: dict[str, Any] = {}
    if "picture" not in takes.styles:
        changed["style"] = arguments.StyleNames if "trained" in takes.styles else hidden(arguments.Styles)
        changed["region"] = hidden(arguments.Regions)
    if "text" not in takes.styles:
        changed["text"] = hidden(arguments.Texts)
    return changed


def _idle_controls(kind: type[Method]) -> Iterator[str]:
    """The controls that change nothing for a method."""
    takes = kind.takes
    if "picture" not in takes.styles:
        yield "style_scale"
    if not takes.styles or takes.most == 1:
        yield "style_weights"
    if takes.content == "none":
        yield from OF_A_PHOTO


def generators() -> list[Row]:
    """The methods that need no photo, and what each does."""
    kinds = registry.list_methods().values()
    return [(kind.name, kind.summary()) for kind in kinds if kind.takes.content != "required"]


def generator_of(words: Sequence[str]) -> type[Method] | None:
    """The method that follows `generate`, wherever its flags stand. Raises UsageError for no such method."""
    known = registry.list_methods()
    plain = [word for word in words if not word.startswith("-")]
    # A word behind a flag is likely to be the flag's value.
    free = [word for before, word in pairwise(["", *words]) if word in plain and not before.startswith("-")]
    if found := next((word for word in [*free, *plain] if word in known), None):
        return known[found]
    if free and "--help" not in words:
        names = [name for name, _ in generators()]
        raise UsageError(f"there is no method '{free[0]}': {did_you_mean(free[0], names)}")
    return None


def value(words: Sequence[str], *names: str) -> str | None:
    """The last value given to a flag, as `--flag VALUE`, `--flag=VALUE` or `-fVALUE`."""
    found = None
    for position, word in enumerate(words):
        if word in names and position + 1 < len(words):
            found = words[position + 1]
        elif "=" in word and word.split("=", 1)[0] in names:
            found = word.split("=", 1)[1]
        elif word[:2] in names and len(word) > 2 and not word.startswith("--"):
            found = word[2:]
    return found
