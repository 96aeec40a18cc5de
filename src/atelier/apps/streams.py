"""The standard streams as places of pictures: `-` in place of a file."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from atelier.core.errors import InputError, UsageError
from atelier.images import Picture, check_writable, write

#: The word for standard input or output.
STREAM = Path("-")


def read(photo: Path) -> Path | Picture:
    """The photo, read from standard input if it is `-`. Raises InputError if that holds no picture."""
    if photo != STREAM:
        return photo
    data = sys.stdin.buffer.read()
    if not data:
        raise InputError("standard input is empty: pipe a picture into it")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "standard input"
        file.write_bytes(data)
        try:
            return replace(Picture.open(file), name="-")
        except InputError as error:
            raise InputError(str(error).replace(str(file), file.name)) from error


@dataclass(frozen=True)
class Way:
    """Where a picture goes: a file, or standard output in the format `kind`."""

    target: Path
    kind: str
    as_json: bool

    def check(self, *, overwrite: bool, **more: Any) -> None:
        """Raise the error that `write` would raise."""
        if self.target != STREAM:
            check_writable(self.target, overwrite=overwrite, **more)
            return
        if self.as_json:
            raise UsageError("--json and -o - both need standard output: write the picture to a file")
        if sys.stdout.isatty():
            raise UsageError("standard output is a terminal: give -o FILE, or redirect it")
        with TemporaryDirectory() as folder:
            check_writable(Path(folder) / f"picture.{self.kind}", **more)

    def write(self, picture: Picture, *, overwrite: bool, **more: Any) -> None:
        """Write the picture."""
        if self.target != STREAM:
            write(picture, self.target, overwrite=overwrite, **more)
            return
        with TemporaryDirectory() as folder:
            file = Path(folder) / f"picture.{self.kind}"
            write(picture, file, **more)
            sys.stdout.buffer.write(file.read_bytes())
            sys.stdout.flush()
