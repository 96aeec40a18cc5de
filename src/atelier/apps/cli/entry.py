"""What a command declares: its name, its sentence, its function, and the flags that depend on the line.

Sentences are not docstrings, which `python -OO` removes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from atelier.apps.layout import Command, Group, Row, command_with, group_with

if TYPE_CHECKING:
    import typer


@dataclass(frozen=True)
class Flags:
    """What declarations add to a command: flags, other annotations of its own ones, sections of its help."""

    more: Sequence[Parameter] = ()
    changed: Mapping[str, Any] = field(default_factory=dict)
    sections: Sequence[tuple[str, Sequence[Row]]] = ()


@dataclass(frozen=True)
class Entry:
    """A command. `flags` gets the words after its name, when the line asks for this command."""

    name: str
    sentence: str
    run: Callable[..., None]
    flags: Callable[[Sequence[str]], Flags] | None = None

    def add_to(self, app: typer.Typer, words: Sequence[str] | None) -> None:
        """Add it to a group; `words` follow its name on the line, None where another command is asked for."""
        from atelier.apps.flags import with_parameters

        declared = Flags() if self.flags is None or words is None else self.flags(words)
        kind = command_with(declared.sections) if declared.sections else Command
        function = with_parameters(self.run, declared.more, declared.changed)
        app.command(self.name, cls=kind, help=self.sentence)(function)


def group(name: str, sentence: str, usual: str | None = None) -> typer.Typer:
    """A group of commands that shows its help when none is named; words that name none go to `usual`."""
    import typer

    return typer.Typer(
        name=name,
        cls=Group if usual is None else group_with(usual),
        help=sentence,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
