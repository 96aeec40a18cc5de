"""The examples in docstrings run, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import atelier

SOURCE = Path(__file__).parents[1] / "src"
NAMES = [
    name
    for name in (Path(__file__).parent / "public_names.txt").read_text().split()
    if not name.startswith("__")
]
MODULES = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((SOURCE / "atelier").rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_runnable_example(name: str) -> None:
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(atelier, name), name)
    assert [example for example in found.examples if doctest.SKIP not in example.options]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples run in an empty folder; a warning fails them as it fails a test."""
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for found in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)):
        runner.run(found, out=shown.append)
    assert not runner.failures, "".join(shown)
    assert runner.tries
