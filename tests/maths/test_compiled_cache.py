"""Compiled kernels are loaded from disk, and a failing disk costs only a compilation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
import numba
from atelier.maths.compiled_cache import keep

@numba.njit
def double(x):
    return 2 * x

@numba.njit
def twice_double(x):
    return double(double(x))

keep(double)
keep(twice_double)
"""

# Prints the results of the two kernels, and how many of them were loaded from disk.
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
limit = int(sys.argv[2])
if limit:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
import loops
results = loops.double(3.0), loops.twice_double(3.0)
hits = sum(sum(one.stats.cache_hits.values()) for one in (loops.double, loops.twice_double))
print(*results, hits)
"""


#: One worker runs them all: the kernels are compiled once.
pytestmark = pytest.mark.xdist_group("compiled")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "loops.py").write_text(SOURCE)
    return folder


@pytest.fixture(scope="module")
def compiled(code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with both kernels compiled."""
    home = tmp_path_factory.mktemp("compiled")
    assert run(code, home) == 0
    return home


@pytest.fixture
def filled(compiled: Path, tmp_path: Path) -> Path:
    """A copy of that folder for one test."""
    return shutil.copytree(compiled, tmp_path / "filled")


def run(code: Path, home: Path, *, chosen: Path | None = None, limit: int = 0) -> int:
    """The number of kernels that a new process finds compiled; also checks their results."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"ATELIER_HOME": str(home)} | ({"NUMBA_CACHE_DIR": str(chosen)} if chosen else {})
    command = [sys.executable, "-W", "error", "-c", RUN, str(code), str(limit)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second, hits = done.stdout.split()
    assert (float(first), float(second)) == (6, 12)
    return int(hits)


def stored(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.rglob(f"*{suffix}"))


def test_code_is_compiled_once_and_kept_in_our_folder(code: Path, filled: Path) -> None:
    assert len(stored(filled / "cache" / "kernels", ".nbc")) == 2
    assert not list(code.rglob("*.nb?"))
    assert run(code, filled) == 2


def test_numba_cache_dir_takes_precedence(code: Path, tmp_path: Path) -> None:
    assert run(code, tmp_path / "home", chosen=tmp_path / "chosen") == 0
    assert len(stored(tmp_path / "chosen", ".nbc")) == 2
    assert not (tmp_path / "home").exists()


def test_an_unwritable_numba_cache_dir_falls_back_to_our_folder(
    code: Path, filled: Path, tmp_path: Path
) -> None:
    (tmp_path / "chosen").write_text("in the way")
    assert run(code, filled, chosen=tmp_path / "chosen" / "below") == 2


def test_kernels_run_when_no_folder_can_be_written(code: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    assert run(code, tmp_path / "home") == 0


def test_kernels_run_when_the_disk_is_full(code: Path, tmp_path: Path) -> None:
    assert run(code, tmp_path / "home", limit=600) == 0  # the indexes fit, the code does not
    assert stored(tmp_path / "home", ".nbc") == []
    assert run(code, tmp_path / "home") == 0
    assert run(code, tmp_path / "home") == 2


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        pytest.param(".nbi", "empty", marks=pytest.mark.slow),
        (".nbi", "garbage"),
        pytest.param(".nbc", "cut", marks=pytest.mark.slow),
        (".nbc", "flipped"),
    ],
)
def test_damaged_files_are_compiled_again(code: Path, filled: Path, suffix: str, damage: str) -> None:
    damaged = stored(filled, suffix)
    assert len(damaged) == 2
    for path in damaged:
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(
            {
                "empty": b"",
                "cut": whole[:middle],
                "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
                "garbage": b"garbage" * 20,
            }[damage]
        )
    assert run(code, filled) == 0
    assert run(code, filled) == 2


def test_changed_source_is_compiled_again(code: Path, filled: Path) -> None:
    source = code / "loops.py"
    source.write_text(SOURCE + "# changed\n")
    try:
        assert run(code, filled) == 0
        assert run(code, filled) == 2
    finally:
        source.write_text(SOURCE)


def test_the_folder_has_a_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from atelier.maths import compiled, compiled_cache

    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    monkeypatch.setattr(compiled_cache, "LIMIT", 1)

    def triple(x: float) -> float:
        return 3 * x

    assert compiled.kernel(triple)(2.0) == 6
    assert stored(tmp_path / "home", ".nbc") == []
