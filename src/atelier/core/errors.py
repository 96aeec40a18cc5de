"""What goes wrong, as one clear sentence with an exit code.

Every error that a user can cause is an `AtelierError`: its text says what was wrong, what is
allowed and the nearest remedy, and the command line prints that text alone. Anything else that
escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AtelierError(Exception):
    """A problem that its own sentence explains. `exit_code` is what the command returns."""

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
    """The machine lacks something: the device, memory, or an optional package."""

    exit_code = 6


class TrainingError(AtelierError):
    """A training run that cannot start or go on: the data, a checkpoint, a loss that is not finite."""

    exit_code = 7


class Cancelled(AtelierError):  # noqa: N818 - it is a wish, not an error
    """The work was stopped on request before there was anything worth keeping."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's text (its type where it has none), for use in a sentence."""
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
