"""The method registry: finds methods and checks what each must declare.

A method is one file below `atelier/methods/<family>/`, or in a folder listed in the environment variable
ATELIER_METHODS. The registry finds it there; no other registration is needed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from atelier.core.errors import AtelierError, UsageError, did_you_mean
from atelier.methods.base import Method


@cache
def list_methods() -> Mapping[str, type[Method]]:
    """Every method by name, in alphabetical order. Raises AtelierError when two share a name.

    >>> list_methods()["gatys"].paper.year
    2016
    """
    found: dict[str, type[Method]] = {}
    for module in _modules():
        for kind in _declared(module):
            if kind.name in found:
                other = found[kind.name].__module__
                raise AtelierError(
                    f"two methods are called '{kind.name}': {other} and {module.__name__}; rename one"
                )
            found[kind.name] = kind
    return dict(sorted(found.items()))


def find(name: str) -> type[Method]:
    """The method called `name`. Raises UsageError with the nearest name."""
    if name not in list_methods():
        raise UsageError(f"there is no method '{name}': {did_you_mean(name, list_methods())}")
    return list_methods()[name]


def knobs_for(method: type[Method], quality: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A quality's knobs, overridden by the chosen ones. Raises UsageError for an unknown quality."""
    if quality not in method.qualities:
        known = did_you_mean(quality, method.qualities)
        raise UsageError(f"{method.name} has no quality '{quality}': {known}")
    return {**method.qualities[quality], **chosen}


def _declared(module: ModuleType) -> Iterator[type[Method]]:
    """The method classes of a file. Classes whose name starts with _ are base classes and are skipped."""
    for value in vars(module).values():
        if not (
            isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
        ):
            continue
        if value.__name__.startswith("_"):
            continue
        for needed in ("name", "paper", "Knobs"):
            if not hasattr(value, needed):
                raise AtelierError(f"the method {value.__name__} in {module.__file__} has no '{needed}'")
        if value.transfer is Method.transfer and value.prepare is Method.prepare:
            raise AtelierError(
                f"the method {value.__name__} in {module.__file__} has neither transfer nor prepare"
            )
        yield value


def _modules() -> Iterator[ModuleType]:
    package = importlib.import_module("atelier.methods")
    for info in pkgutil.walk_packages(package.__path__, "atelier.methods."):
        # Files outside a family folder are not methods: TEMPLATE.py is only there to be copied.
        if not info.ispkg and info.name.count(".") > 2:
            yield importlib.import_module(info.name)
    for folder in filter(None, os.environ.get("ATELIER_METHODS", "").split(os.pathsep)):
        if not Path(folder).is_dir():
            raise AtelierError(f"ATELIER_METHODS names '{folder}', which is not a folder: fix or unset it")
        yield from (_load(path) for path in sorted(Path(folder).resolve().glob("[!_]*.py")))


def _load(path: Path) -> ModuleType:
    """Import a method file from outside the package under a unique module name."""
    folder = hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]
    name = f"atelier_methods_{folder}.{path.parent.name.replace('.', '_')}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        reason = " ".join(str(error).split())
        raise AtelierError(
            f"the method file {path} cannot be loaded: {type(error).__name__}: {reason}; fix it, or remove "
            "its folder from ATELIER_METHODS"
        ) from error
    return module
