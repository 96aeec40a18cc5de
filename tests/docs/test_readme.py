"""README and manual say what the command does: their lines parse, their pictures and links exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from atelier.apps.cli.root import application
from atelier.methods import registry

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def _commands() -> list[str]:
    """The lines of shell blocks that start with `atelier`, joined where they are continued."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [line.partition("#")[0].strip() for line in lines if line.startswith("atelier ")]
    return sorted(set(found))


@pytest.mark.parametrize("line", _commands())
def test_a_command_of_the_manual_is_read(line: str) -> None:
    """Every option exists; a missing file is no matter here, for nothing is run."""
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(application(words))
    while hasattr(command, "commands"):
        name, *words = words if words[0] in command.commands else [command.usual, *words]
        command = command.commands[name]
    assert command.make_context(line, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_pictures_of_a_page_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_names_every_method() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in registry.list_methods() if f"`{name}`" not in text]


def test_the_picture_of_the_readme_is_small() -> None:
    path = ROOT / "docs" / "pictures" / "first.jpg"
    assert path.stat().st_size < 250_000
    with Image.open(path) as image:
        assert max(image.size) <= 1200
