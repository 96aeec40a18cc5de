"""Errors for users: one clear sentence and an exit code.

Every error that a user can cause is an `AtelierError`. Its text says what is wrong, what is allowed and the
nearest remedy, and the command line prints that text alone. Any other exception that escapes is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AtelierError(Exception):
    """Base of all errors that a user can cause. Its text is one sentence; the command exits with `exit_code`.

    >>> import atelier
    >>> try:
    ...     atelier.Stylizer(method="gatis")
    ... except AtelierError as error:
    ...     print(f"{error} (exit code {error.exit_code})")
    there is no method 'gatis': did you mean 'gatys'? (exit code 2)
    """

    exit_code = 1


class UsageError(AtelierError):
    """A flag, knob or name that does not exist or has a value that is not allowed.

    >>> import atelier
    >>> atelier.Stylizer(method="identity", strength=2)
    Traceback (most recent call last):
    ...
    atelier.core.errors.UsageError: strength = 2 is not allowed: it should be less than or equal to 1
    """

    exit_code = 2


class InputError(AtelierError):
    """A picture or other input file that is missing, damaged, hostile or unsuitable.

    >>> import atelier
    >>> atelier.Picture.open("missing.jpg")
    Traceback (most recent call last):
    ...
    atelier.core.errors.InputError: 'missing.jpg' does not exist...
    """

    exit_code = 3


class WeightsError(AtelierError):
    """Weights that are missing, damaged, of another network, or cannot be downloaded.

    >>> import atelier, numpy as np
    >>> grey = np.full((16, 16, 3), 0.5)
    >>> atelier.stylize(grey, grey, method="gatys", encoder="vgg91.imagenet")
    Traceback (most recent call last):
    ...
    atelier.core.errors.WeightsError: there are no weights called 'vgg91.imagenet'...
    """

    exit_code = 4


class OutputError(AtelierError):
    """A result that cannot be written: it exists, the folder is missing, the disk is full.

    >>> import atelier, numpy as np
    >>> atelier.save_style(np.zeros((16, 16, 3)), "missing/style.safetensors")
    Traceback (most recent call last):
    ...
    atelier.core.errors.OutputError: the folder 'missing' does not exist...
    """

    exit_code = 5


class ResourceError(AtelierError):
    """The machine lacks something: the device, memory, or an optional package.

    >>> import atelier
    >>> atelier.Stylizer(method="identity", device="cuda:99")
    Traceback (most recent call last):
    ...
    atelier.core.errors.ResourceError: the device 'cuda:99'...
    """

    exit_code = 6


class TrainingError(AtelierError):
    """A training run that cannot start or continue: the data, a checkpoint, a loss that is not finite.

    >>> TrainingError("the loss is not finite after step 12: lower the learning rate").exit_code
    7
    """

    exit_code = 7


class Cancelled(AtelierError):  # noqa: N818 - a request, not an error
    """The work was stopped on request before there was a result."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its type if it has no text, for use in a sentence."""
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
