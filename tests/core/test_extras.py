"""Optional packages: absent and broken ones leave one sentence, and asking imports nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.core import extras
from atelier.core.errors import ResourceError


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, for packages that are imported and forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_one_that_is_there(packages: Path) -> None:
    (packages / "sound_package.py").write_text("answer = 42\n")
    assert extras.is_installed("sound_package")
    assert "sound_package" not in sys.modules
    assert extras.require("sound_package", "diffusion", "This").answer == 42


def test_one_that_is_absent() -> None:
    assert not extras.is_installed("no_such_package")
    with pytest.raises(ResourceError) as caught:
        extras.require("no_such_package.part", "diffusion", "The method 'ddpm'")
    assert str(caught.value) == (
        "The method 'ddpm' needs the package no_such_package, which is not installed: "
        "pip install 'atelier[diffusion]'"
    )


def test_one_whose_own_needs_are_absent(packages: Path) -> None:
    (packages / "needy_package.py").write_text("import no_such_package\n")
    with pytest.raises(ResourceError, match="needs the package no_such_package, which is not installed"):
        extras.require("needy_package", "diffusion", "This")


@pytest.mark.parametrize(
    "code", ["1 / 0", "raise OSError('libx.so: cannot open')", "from json import nothing"]
)
def test_one_that_is_broken(packages: Path, code: str) -> None:
    (packages / "broken_package.py").write_text(f"{code}\n")
    assert extras.is_installed("broken_package")
    with pytest.raises(ResourceError, match=r"broken_package, which cannot be loaded \(.+\): pip install"):
        extras.require("broken_package", "diffusion", "This")


def test_one_that_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "blocked_package", None)
    assert not extras.is_installed("blocked_package")
    with pytest.raises(ResourceError, match="needs the package blocked_package, which is not installed"):
        extras.require("blocked_package", "train", "Training")
