"""A folder with a photo, a style and a tiny encoder, and the command run inside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from atelier.apps import cli
from atelier.images import Picture, write
from atelier.methods import registry


class Shown(NamedTuple):
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str


Run = Callable[[str], Shown]


@pytest.fixture
def folder(
    tmp_path: Path, tiny_encoder: Path, photo: Any, painting: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder where the command runs."""
    work = tmp_path / "work"
    work.mkdir()
    write(Picture.of(photo), work / "photo.png")
    write(Picture.of(painting), work / "style.png")
    shutil.copy(tiny_encoder, work / "tiny.safetensors")
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command line, its words parted by single spaces."""

    def command(line: str) -> Shown:
        registry.list_methods.cache_clear()
        code = cli.main(line.split(" ") if line else [])
        return Shown(code, *capsys.readouterr())

    yield command
    registry.list_methods.cache_clear()
