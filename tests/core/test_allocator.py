"""Freed memory stays: a block that was touched, freed and asked for again costs no page faults."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atelier.core import allocator

# In a process of its own, for the setting cannot be taken back.
FAULTS = """
import resource, sys
from atelier.core.allocator import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(48 << 20)
before = faults()
for _ in range(5):
    bytearray(b"x") * (48 << 20)
print(int(kept), faults() - before)
"""


def run(how: str) -> tuple[int, int]:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return int(kept), int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_a_block_is_reused_without_page_faults() -> None:
    kept, faults = run("keep")
    if not kept:
        pytest.skip("this C library has no mallopt")
    _, plain = run("plain")
    # The first of the five touches 12288 pages of 4 KiB, the others none.
    assert faults < 16_000
    assert plain > 2 * faults


@pytest.fixture(autouse=True)
def _unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has not asked, and what a test asks for is forgotten after it."""
    monkeypatch.setattr(allocator, "_asked", False)


def test_a_host_that_has_not_asked_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr("ctypes.CDLL", calls.append)
    assert allocator.release_freed_memory() is False
    assert calls == []


#: The command, and the workers of the bench.
OWN_PROCESSES = ("apps", "bench")


def test_only_the_command_asks() -> None:
    """No file of the library can set malloc: they do not name the function or the C library's own."""
    source = Path(allocator.__file__).parents[1]
    for path in source.rglob("*.py"):
        if path.name != "allocator.py" and path.relative_to(source).parts[0] not in OWN_PROCESSES:
            text = path.read_text()
            assert "keep_freed_memory" not in text, path
            assert "mallopt" not in text, path
            assert "malloc_trim" not in text, path


def test_a_picture_that_counts_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from atelier.methods.optimise import deep_analogy

    calls: list[object] = []
    monkeypatch.setattr(allocator, "_set", lambda *wishes: calls.append(wishes))
    monkeypatch.setattr(deep_analogy, "_LARGE", 0)
    monkeypatch.setattr(deep_analogy, "_check", lambda *given: None)
    monkeypatch.setattr(deep_analogy.Analogy, "__init__", lambda *given: None)
    monkeypatch.setattr(deep_analogy.Analogy, "run", lambda self: ("painted", None))
    job: Any = SimpleNamespace(content=torch.zeros(1, 3, 4, 4))
    method: Any = deep_analogy.DeepAnalogy()
    assert method.paint(job, None, None) == "painted"
    assert calls == []


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator.keep_freed_memory() is False


def test_another_c_library_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert allocator.keep_freed_memory() is False


RELEASED = """
from pathlib import Path
from atelier.core.allocator import keep_freed_memory, release_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

kept = keep_freed_memory()
blocks = [bytearray(b"x") * (20 << 20) for _ in range(10)]
full = resident()
del blocks
held = resident()
done = release_freed_memory()
print(int(kept and done), full - held, full - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_what_was_kept_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", RELEASED], capture_output=True, text=True, check=True)
    worked, before, after = map(int, done.stdout.split())
    if not worked:
        pytest.skip("this C library has no mallopt")
    assert before < 20e6
    assert after > 180e6
