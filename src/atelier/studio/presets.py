"""Presets: settings of trainings under a name, to be used again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atelier.core.atomic import atomic
from atelier.core.errors import UsageError
from atelier.studio.limits import NotHereError, display_name


class Presets:
    """A JSON file for each method in a folder: {name: settings}."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self, method: str) -> list[str]:
        """The presets of a method in alphabetical order."""
        return sorted(self._read(method), key=str.lower)

    def load(self, method: str, name: str) -> dict[str, Any]:
        """The settings of a preset. Raises NotHereError."""
        found = self._read(method)
        if name not in found:
            raise NotHereError(f"{method} has no preset '{name[:40]}': it may have been deleted")
        return dict(found[name])

    def save(self, method: str, name: str, settings: Mapping[str, Any]) -> str:
        """Keep settings under a name, in place of an older preset of that name; the name as it is kept."""
        if not name.strip():
            raise UsageError("the preset needs a name: type one")
        shown = display_name(name)
        self._write(method, {**self._read(method), shown: dict(settings)})
        return shown

    def delete(self, method: str, name: str) -> None:
        """Delete a preset. Raises NotHereError."""
        self.load(method, name)
        self._write(method, {key: value for key, value in self._read(method).items() if key != name})

    def _read(self, method: str) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self._path(method).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # a file that another hand has changed counts as none
            return {}
        return {str(name): one for name, one in found.items() if isinstance(one, dict)}

    def _write(self, method: str, found: Mapping[str, Any]) -> None:
        with atomic(self._path(method)) as beside:
            beside.write_text(json.dumps(found, indent=1), encoding="utf-8")

    def _path(self, method: str) -> Path:
        if not method.isidentifier():
            raise NotHereError(f"there is no method '{method[:40]}'")
        return self.folder / f"{method}.json"
