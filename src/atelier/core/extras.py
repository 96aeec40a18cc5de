"""Optional dependencies: asked for when they are needed, never when methods are only listed."""

from __future__ import annotations

import importlib
from types import ModuleType

from atelier.core.errors import ResourceError


def require(package: str, extra: str, what: str) -> ModuleType:
    """The package, imported. Raises ResourceError with the pip command where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ResourceError(
            f"{what} needs the package {package}, which is not installed: pip install 'atelier[{extra}]'"
        ) from error
