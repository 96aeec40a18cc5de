"""The rule of every cache: found by version, bounded, and harmless when its folder fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from atelier.core import atomic, caches
from atelier.core.caches import Cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def filled(path: Path) -> None:
    path.write_bytes(bytes(100))


def names(cache: Cache) -> set[str]:
    return {path.name for path in cache.root.rglob("*") if path.is_file()}


def test_the_place(home: Path) -> None:
    assert Cache("things", "v1", 1000).folder == home / "cache" / "things" / "v1"


def test_what_was_kept_is_found_under_its_version_alone() -> None:
    one, two = Cache("things", "v1", 1000), Cache("things", "v2", 1000)
    assert one.keep("a", 100, filled)
    assert one.find("a") == one.folder / "a"
    assert two.find("a") is None
    assert one.find("b") is None


def test_the_longest_unused_goes_first_whatever_its_version() -> None:
    old, new = Cache("things", "v1", 450), Cache("things", "v2", 450)
    for cache, name, time in ((old, "first", 3), (old, "second", 1), (new, "third", 2)):
        cache.keep(name, 100, filled)
        os.utime(cache.folder / name, (time, time))
    assert new.keep("fourth", 100, filled)
    assert names(new) == {"first", "second", "third", "fourth"}
    assert old.find("second") is not None  # used now, so "third" is the oldest
    assert new.keep("fifth", 100, filled)
    assert names(new) == {"first", "second", "fourth", "fifth"}


def test_a_limit_of_nothing_keeps_and_finds_nothing() -> None:
    Cache("things", "v1", 1000).keep("a", 100, filled)
    off = Cache("things", "v1", 0)
    assert off.find("a") is None
    assert not off.keep("b", 100, filled)
    assert names(off) == {"a"}


def test_a_file_in_place_of_the_folder(home: Path) -> None:
    home.mkdir()
    (home / "cache").write_text("in the way")
    cache = Cache("things", "v1", 1000)
    assert not cache.keep("a", 100, filled)
    assert cache.find("a") is None
    assert not caches.can_be_written(cache.folder)
    cache.make_room()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_refuses_new_files(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache("things", "v1", 1000)
    cache.keep("before", 100, filled)

    def refuse(*given: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, "open", refuse)
    monkeypatch.setattr(caches.os, "utime", refuse)
    assert not cache.keep("a", 100, filled)
    assert not caches.can_be_written(cache.folder)
    assert cache.find("before") == cache.folder / "before"  # reading goes on


def test_a_disk_that_fills_up_while_writing() -> None:
    cache = Cache("things", "v1", 1000)

    def half(path: Path) -> None:
        path.write_bytes(bytes(50))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert not cache.keep("a", 100, half)
    assert names(cache) == set()


def test_an_interrupt_is_no_failure_of_the_cache() -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache("things", "v1", 1000).keep("a", 100, interrupted)


def test_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="atelier"), caches.harmless("read it"):
        raise ValueError("damaged")
    assert "the cache could not read it: damaged" in caplog.text
