"""Error messages of the command: one sentence that names flags as they were typed, and an exit code."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer

from atelier.core.errors import (
    AtelierError,
    InputError,
    OutputError,
    ResourceError,
    UsageError,
    did_you_mean,
)

INTERRUPTED = 130


@dataclass(frozen=True)
class Asked:
    """The command that was asked for, as far as the line names one: its path and its parser."""

    path: str
    command: Any

    @classmethod
    def of(cls, commands: Any, words: Sequence[str]) -> Asked:
        """The innermost of `commands` that `words` name."""
        path = "atelier"
        for word in words:
            inner = getattr(commands, "commands", {}).get(word)
            if inner is not None:
                path, commands = f"{path} {word}", inner
        return cls(path, commands)

    @property
    def flags(self) -> dict[str, str]:
        """The flags of its parameters, by the names that the library's messages use."""
        found = {parameter.name: parameter.opts[0] for parameter in getattr(self.command, "params", ())}
        return {name: flag for name, flag in found.items() if flag.startswith("--")}

    @property
    def help(self) -> str:
        """A hint at its help page."""
        return f"see '{self.path} --help'"


def failed(error: BaseException, asked: Asked, *, debug: bool, as_json: bool) -> int:
    """Print the message on the error stream, with `as_json` on the output stream too; the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(getattr(error, "message", ""))
        return UsageError.exit_code
    sentence, code = explained(error, asked)
    if debug:
        traceback.print_exception(error)
    if as_json and sentence:
        from atelier.apps.show import emit

        emit({"error": sentence, "exit_code": code})
    if sentence:
        sys.stderr.write(f"atelier: {sentence}\n")
    return code


def explained(error: BaseException, asked: Asked) -> tuple[str, int]:
    """The message of an error, on one line, and its exit code."""
    if isinstance(error, AtelierError):
        return one_line(as_typed(error, asked.flags)), error.exit_code
    if hasattr(error, "format_message"):
        return one_line(_misread(error, asked)), UsageError.exit_code
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return "stopped; nothing was written", INTERRUPTED
    text = str(error)
    if isinstance(error, MemoryError) or "not enough memory" in text or "out of memory" in text:
        return "not enough memory: use a smaller --size", ResourceError.exit_code
    if isinstance(error, BrokenPipeError):
        return "", OutputError.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        code = InputError.exit_code if isinstance(error, FileNotFoundError) else OutputError.exit_code
        return one_line(_of_the_system(error)), code
    return one_line(
        f"internal error: {type(error).__name__}: {text}; please report it with the output of --debug"
    ), 1


def as_typed(error: AtelierError, flags: dict[str, str]) -> str:
    """The message with flags in place of the names of Python arguments.

    >>> as_typed(UsageError("strength = '2' is not allowed"), {"strength": "--strength"})
    '--strength 2 is not allowed'
    >>> as_typed(UsageError("style_layers needs at least one tap"), {"style_layers": "--style-layers"})
    '--style-layers needs at least one tap'
    """
    text = str(error)
    for name, flag in flags.items():
        if isinstance(error, UsageError):
            text = re.sub(rf"^{name} = '?(.*?)'? is not", rf"{flag} \1 is not", text)
            text = re.sub(rf"^{name} is |^the \w+ '{name}' is ", f"{flag} is ", text)
        if "_" in name:  # others are plain words of the sentence, or part of a file name
            text = re.sub(rf"(?<![\w./\\'-]){name}(?![\w/\\'-]|\.\w)", flag, text)
    return text


def one_line(text: str) -> str:
    """The text without the line breaks and control codes that file names may hold.

    >>> one_line("the file 'a\\nb' is not there")
    "the file 'a b' is not there"
    """
    joined = " ".join(line.strip() for line in text.splitlines())
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in joined)


def _misread(error: Any, asked: Asked) -> str:
    """The message for a line that the parser rejects, with a hint at the help page."""
    if context := getattr(error, "ctx", None):
        asked = Asked(context.command_path, context.command)
    kind, message = type(error).__name__, str(error.format_message()).removesuffix(".")
    if kind == "NoSuchOption":
        name = error.option_name
        return f"there is no option '{name}' of '{asked.path}': {_nearest(name, asked)}"
    if kind == "MissingParameter":
        return f"{_called(error.param)} is missing: {asked.help}"
    if found := re.match(r"No such command '(.*?)'", message):
        known = asked.command.commands
        return f"there is no command '{asked.path} {found[1]}': {did_you_mean(found[1], known)}"
    if kind == "BadParameter" and error.param is not None:
        reason = str(error.message).removesuffix(".").replace("Input should", "it should")
        reason = reason.partition(", unable to")[0]
        return f"{_called(error.param)} has a value that is not allowed: {reason}; {asked.help}"
    if "unexpected extra argument" in message and asked.command.name == "generate":
        extra = message.partition("(s)")[2].strip(" ()")
        return f"unexpected argument {extra}: generate takes a METHOD and no photo"
    return f"{message[:1].lower()}{message[1:]}; {asked.help}"


def _called(parameter: Any) -> str:
    """A flag by its first name, an argument by its name in the help."""
    first = str(parameter.opts[0])
    return first if first.startswith("-") else str(parameter.metavar or parameter.name.upper())


def _nearest(option: str, asked: Asked) -> str:
    """The command or the method that has this flag, or the nearest flag."""
    field = option.removeprefix("--").removeprefix("no-").replace("-", "_")
    if asked.command.name == "generate":
        from atelier.session.controls import Controls

        if field in Controls.model_fields or field in ("mask", "region"):
            return "it needs a photo: use 'atelier stylize'"
    if asked.command.name == "stylize":
        from atelier.methods import registry

        for name, kind in registry.list_methods().items():
            if field in kind.Knobs.model_fields:
                return f"it is a knob of another method: add --method {name}, or omit it"
    known = [name for parameter in asked.command.params for name in parameter.opts if name.startswith("--")]
    hint = did_you_mean(option, known)
    return hint if hint.startswith("did you mean") else asked.help


def _of_the_system(error: OSError) -> str:
    from atelier.core.atomic import is_full

    if is_full(error):
        return f"no space is left for '{error.filename}': free some space, or choose another folder"
    reason = (error.strerror or type(error).__name__).lower()
    return f"cannot use '{error.filename}' ({reason}): check the path and its permissions"
