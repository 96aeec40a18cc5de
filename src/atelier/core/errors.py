"""Errors for users: one clear sentence and an exit code.

Every error that a user can cause is an `AtelierError`. Its text says what is wrong, what is allowed and the
nearest remedy, and the command line prints that text alone. Any other exception that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AtelierError(Exception):
    """A problem that its text explains. `exit_code` is the exit code of the command."""

    exit_code = 1


class UsageError(AtelierError):
    """A flag, knob or name that does not exist or has a value that is not allowed."""

    exit_code = 2


class InputError(AtelierError):
    """A picture or other input file that is missing, damaged, hostile or unsuitable."""

    exit_code = 3


class WeightsError(AtelierError):
    """Weights that are missing, damaged, of another network, or cannot be fetched."""

    exit_code = 4


class OutputError(AtelierError):
    """A result that cannot be written: it exists, the folder is missing, the disk is full."""

    exit_code = 5


class ResourceError(AtelierError):
    """The machine lacks something: a device, memory, or an optional package."""

    exit_code = 6


class TrainingError(AtelierError):
    """A training run that cannot start or continue: the data, a checkpoint, a loss that is not finite."""

    exit_code = 7


class Cancelled(AtelierError):  # noqa: N818 - a request, not an error
    """The work was stopped on request before there was a result to keep."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its type where it has no text, for use in a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """The tail of an error sentence: the nearest allowed name, or all of them.

    >>> did_you_mean("gatis", ["gatys", "adain"])
    "did you mean 'gatys'?"
    >>> did_you_mean("zzz", ["gatys", "adain"])
    'allowed: adain, gatys'
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"allowed: {', '.join(names)}"
