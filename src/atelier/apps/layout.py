"""Plain-text layout at any terminal width: help pages with sections, definition lists and tables.

Typer groups options only through rich, whose boxes cut long flags at 80 columns, and click wraps help at no
less than 50 columns. Here a list or table that does not fit turns into a stacked one.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

_SUMMARY = 300  # characters of a command's sentence in a list: the whole sentence, lines are wrapped
_WIDEST_HELP = 80  # longer lines of prose are hard to read
_NARROWEST = 20
_TWO_COLUMNS = 56  # below this width a definition goes under its term
_TERM = 30  # a longer term stands on a line of its own
_FLEXIBLE = 18  # a table column with longer cells than this may wrap
_READABLE = 24  # the least width of a wrapped column; below it the table is stacked
_GAP = 2

Row = tuple[str, str]


def columns(otherwise: int = 100) -> int:
    """The width of the terminal in columns, or `otherwise` where the output is not a terminal."""
    return max(_NARROWEST, shutil.get_terminal_size((otherwise, 24)).columns)


def help_width() -> int:
    """The width of help pages, in columns."""
    return min(columns(_WIDEST_HELP), _WIDEST_HELP)


class Command(TyperCommand):
    """A command whose help has a section for every `rich_help_panel`, after sections of its own."""

    sections: Sequence[tuple[str, Sequence[Row]]] = ()

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for title, rows in self.sections:
            _section(formatter, title, rows)
        _options(self, ctx, formatter)


def command_with(sections: Sequence[tuple[str, Sequence[Row]]]) -> type[Command]:
    """A class of commands whose help starts with these sections of terms and definitions."""
    return type("Command", (Command,), {"sections": sections})


class Group(TyperGroup):
    """Commands in the order of their declaration, each with its whole sentence."""

    #: The command whose first argument a word is that names none.
    usual: str | None = None

    def format_options(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, self.commands[name].get_short_help_str(_SUMMARY)) for name in self.commands]
        _section(formatter, "Commands", rows)
        _options(self, ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if self.usual is not None and args and args[0] not in self.commands:
            args = [self.usual, *args]
        return super().resolve_command(ctx, args)


def group_with(usual: str) -> type[Group]:
    """A class of groups whose command `usual` need not be named."""
    return type("Group", (Group,), {"usual": usual})


def _options(command: Any, ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[Row]] = {}
    for parameter in command.get_params(ctx):
        if record := parameter.get_help_record(ctx):
            is_argument = parameter.param_type_name == "argument"
            # An argument is named by its metavar; the type that typer adds says nothing new.
            row = (record[0].split(" ")[0], record[1]) if is_argument else record
            usual = "Arguments" if is_argument else "Options"
            title = getattr(parameter, "rich_help_panel", None) or usual
            sections.setdefault(title, []).append(row)
    for title, rows in sections.items():
        _section(formatter, title, rows)


def _section(formatter: Any, title: str, rows: Sequence[Row]) -> None:
    formatter.write_paragraph()
    lines = [f"{title}:", *definitions(rows, formatter.width)]
    formatter.write("".join(f"{line}\n" for line in lines))


def definitions(rows: Sequence[Row], width: int, indent: int = 2) -> list[str]:
    """The lines of a definition list: beside each other where there is room, else one under the other.

    >>> print("\\n".join(definitions([("--size", "Long side in pixels."), ("--seed", "Seed.")], 60)))
      --size  Long side in pixels.
      --seed  Seed.
    >>> print("\\n".join(definitions([("--size", "Long side in pixels.")], 24)))
      --size
          Long side in
          pixels.
    """
    stacked = width < _TWO_COLUMNS
    first = max((len(term) for term, _ in rows if len(term) <= _TERM), default=0)
    hang = indent + (4 if stacked else first + _GAP)
    lines = []
    for term, text in rows:
        body = _wrapped(text, width - hang)
        beside = not stacked and len(term) <= first and bool(body)
        if beside:
            lines.append(" " * indent + term.ljust(first + _GAP) + body[0])
        else:
            lines += [" " * indent + line for line in _wrapped(term, width - indent, hang="    ")]
        lines += [" " * hang + line for line in (body[1:] if beside else body)]
    return [line.rstrip() for line in lines]


class _Wrapper(textwrap.TextWrapper):
    """Breaks lines at spaces and after the bars of a choice (`max|average`), never inside a word."""

    wordsep_simple_re = re.compile(r"(\s+)|(?<=\|)(?=.)")


def _wrapped(text: str, width: int, hang: str = "") -> list[str]:
    """Lines of at most `width` characters, except for words that are longer, such as addresses."""
    return _Wrapper(
        width=max(width, 1), break_long_words=False, break_on_hyphens=False, subsequent_indent=hang
    ).wrap(text)


def paragraph(text: str, width: int) -> str:
    """The text on lines of at most `width` characters."""
    return "\n".join(_wrapped(text, width))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """A table of at most `width` columns: cells wrap, and where they would get too narrow rows are stacked.

    >>> print(table(("name", "year"), [("gatys", "2016")], 40))
    name   year
    gatys  2016
    >>> print(table(("name", "what it does"), [("gatys", "Optimise a picture by its features.")], 26))
    gatys
      Optimise a picture by
      its features.
    """
    natural = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    flexible = [number for number, size in enumerate(natural) if number and size > _FLEXIBLE]
    fixed = sum(size for number, size in enumerate(natural) if number not in flexible)
    room = width - fixed - _GAP * (len(head) - 1)
    if room < (0 if not flexible else _READABLE * len(flexible)):
        return "\n".join(line for row in rows for line in _stacked(head, row, width, flexible))
    widths = list(natural)
    for done, number in enumerate(sorted(flexible, key=natural.__getitem__)):
        widths[number] = min(natural[number], room // (len(flexible) - done))
        room -= widths[number]
    return "\n".join(line for row in (head, *rows) for line in _beside(row, widths))


def _beside(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, cells))):
        parts = [
            (cell[number] if number < len(cell) else "").ljust(w)
            for cell, w in zip(cells, widths, strict=True)
        ]
        lines.append((" " * _GAP).join(parts).rstrip())
    return lines


def _stacked(head: Sequence[str], row: Sequence[str], width: int, flexible: Sequence[int]) -> list[str]:
    """A row as lines: its first cell, the short cells together, each long cell in a paragraph."""
    short = [f"{head[n]}: {row[n]}" for n in range(1, len(row)) if n not in flexible and row[n]]
    long = [row[n] if n == len(row) - 1 else f"{head[n]}: {row[n]}" for n in flexible if row[n]]
    parts = [", ".join(short), *long]
    return [row[0], *(f"  {line}" for part in parts for line in _wrapped(part, width - 2))]
