"""The root of the command: its groups, and the one place where an error becomes a sentence.

The root stays quick: it imports neither the methods nor torch, and asks for declared flags only on behalf
of the command that is on the line.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from atelier import __version__
from atelier.apps import weights
from atelier.apps.cli import bench, export, listing, lora, paint, studio, study, style, train, video
from atelier.apps.cli.entry import Entry, group
from atelier.apps.failures import Asked, failed
from atelier.apps.layout import help_width
from atelier.core.allocator import keep_freed_memory
from atelier.core.privacy import keep_private


def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error too. May stand anywhere.")
    ] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def application(args: Sequence[str]) -> typer.Typer:
    """All commands; the one that `args` ask for has its declared flags."""
    app = group("atelier", "Image style transfer: every technique behind one command.")
    app.callback(invoke_without_command=True)(_root)
    line = _from_first_word(args)
    for entry in (*paint.COMMANDS, *video.COMMANDS, *export.COMMANDS, *studio.COMMANDS, *listing.COMMANDS):
        entry.add_to(app, line[1:] if line[:1] == [entry.name] else None)
    shelf = [Entry(name, *command) for name, command in weights.COMMANDS.items()]
    groups = {
        "weights": ("List, download, add and verify pretrained weights.", shelf),
        "lora": ("Prepare pictures for a LoRA; look into, merge and extract LoRA files.", lora.COMMANDS),
        "style": ("Save styles for later use.", style.COMMANDS),
        "train": ("Train networks on your own pictures.", train.commands(line)),
        "bench": ("Compare methods on the same pictures: one grid, one table.", bench.COMMANDS),
        "study": ("Ask people which of two pictures is better, and score the votes.", study.COMMANDS),
    }
    usual = {"bench": bench.USUAL, "study": study.USUAL}
    for name, (sentence, entries) in groups.items():
        inner = group(name, sentence, usual.get(name))
        rest = _from_first_word(line[1:]) if line[:1] == [name] else []
        for entry in entries:
            entry.add_to(inner, rest[1:] if rest[:1] == [entry.name] else None)
        app.add_typer(inner)
    return app


def _from_first_word(args: Sequence[str]) -> list[str]:
    """The line from the first word that is no flag: a command's name, and what follows it."""
    start = next((number for number, word in enumerate(args) if not word.startswith("-")), len(args))
    return list(args[start:])


def main(args: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `atelier.core.errors` for the codes."""
    given = list(sys.argv[1:] if args is None else args)
    words = [word for word in given if word != "--debug"]
    command: Any = None
    keep_private()
    if args is None:  # a process of its own
        keep_freed_memory()
        if words == given and not sys.warnoptions:
            warnings.simplefilter("ignore")  # warnings address programmers
    try:
        command = typer.main.get_command(application(words))
        # Not `command(words)`: typer would answer Ctrl-C and a closed pipe itself, without a sentence.
        with command.make_context("atelier", words, terminal_width=help_width()) as context:
            command.invoke(context)
    except typer.Exit as error:
        return error.exit_code
    except BaseException as error:  # the last place where it can become a sentence
        asked = Asked.of(command, words)
        code = failed(error, asked, debug=words != given, as_json="--json" in words)
        if isinstance(error, BrokenPipeError):
            _discard_output()
        return code
    return 0


def _discard_output() -> None:
    """The reader of the output stream is gone: without this, Python complains when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
