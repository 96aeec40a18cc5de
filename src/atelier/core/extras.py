"""Optional packages, imported on first use; if one is missing, the error gives the install command."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from atelier.core.errors import ResourceError, first_line
from atelier.core.privacy import keep_private


def require(package: str, extra: str, what: str) -> ModuleType:
    """Imports the module `package`, which `what` needs and `pip install 'atelier[extra]'` installs.

    Call it when the work starts, never at the top of a file, so that listing methods imports nothing. Raises
    ResourceError, with the command, if the package or one of its imports is missing or broken.

    >>> require("json", "diffusion", "Reading settings").loads("[1]")
    [1]
    """
    keep_private()
    command = f"pip install 'atelier[{extra}]'"
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        absent = (error.name or package).partition(".")[0]
        raise ResourceError(
            f"{what} needs the package {absent}, which is not installed: {command}"
        ) from error
    except Exception as error:  # a broken installation raises anything: ImportError, OSError, RuntimeError
        raise ResourceError(
            f"{what} needs the package {package}, which cannot be loaded ({first_line(error)}): "
            f"{command} --force-reinstall"
        ) from error


def is_installed(package: str) -> bool:
    """Whether the top-level package is installed, without importing anything.

    >>> is_installed("json"), is_installed("no_such_package")
    (True, False)
    """
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return importlib.util.find_spec(package.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
