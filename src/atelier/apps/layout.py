"""How help is laid out: flags under the heading of their group, plain text as wide as the terminal.

Typer draws groups only with rich, in boxes whose columns cut the long flags at 80 characters.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

_SUMMARY = 300  # letters of a command's sentence in a list: all of it, the lines are wrapped


class Command(TyperCommand):
    """A command whose help has a section for every `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _sections(self, ctx, formatter)


class Group(TyperGroup):
    """Commands in the order in which they were declared, each with its whole sentence."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, self.commands[name].get_short_help_str(_SUMMARY)) for name in self.commands]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        _sections(self, ctx, formatter)


def _sections(command: Any, ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        if record := parameter.get_help_record(ctx):
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            title = getattr(parameter, "rich_help_panel", None) or usual
            sections.setdefault(title, []).append(record)
    for title, records in sections.items():
        with formatter.section(title):
            formatter.write_dl(records)
