"""Artifacts: extra files that a method returns with the picture, written to the paths that knobs name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from atelier.core import knobs as knob_rules
from atelier.core.atomic import atomic
from atelier.core.errors import OutputError, UsageError


def check(kind: type[knob_rules.Knobs], knobs: knob_rules.Knobs) -> None:
    """Raise UsageError for an unsupported extension, before any work."""
    for name, allowed in knob_rules.artifacts_of(kind).items():
        target = str(getattr(knobs, name))
        if target and extension(target) not in allowed:
            raise UsageError(
                f"{name} = '{target}' does not have a supported extension: use {' or '.join(allowed)}"
            )


def check_folders(kind: type[knob_rules.Knobs], knobs: knob_rules.Knobs) -> None:
    """Raise OutputError if an artifact's folder is missing, before any work."""
    for name in knob_rules.artifacts_of(kind):
        path = Path(str(getattr(knobs, name)))
        if is_path(str(path)) and not path.parent.is_dir():
            raise OutputError(f"the folder '{path.parent}' does not exist: create it, or write elsewhere")


def write(knobs: knob_rules.Knobs, artifacts: Mapping[str, bytes]) -> None:
    """Write each artifact whose knob is a path. A knob that is only an extension keeps it in memory.

    Raises OutputError if the path exists, unless its content is already the same (a replayed recipe).
    """
    for name, data in artifacts.items():
        target = str(getattr(knobs, name))
        if not is_path(target):
            continue
        path = Path(target)
        if path.exists():
            if not path.is_file() or path.read_bytes() != data:
                raise OutputError(f"'{path}' already exists: choose another name, or move the file")
            continue
        with atomic(path) as beside:
            beside.write_bytes(data)


def extension(target: str) -> str:
    """The extension of a path, or of a knob value that is only an extension (".svg")."""
    return (Path(target).suffix or target).lower()


def is_path(target: str) -> bool:
    """Whether a knob's value is a path rather than a bare extension."""
    return bool(Path(target).suffix)
