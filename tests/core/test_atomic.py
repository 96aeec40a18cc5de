"""A file is there whole or not at all, whatever ends the writing."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from atelier.core.atomic import atomic, is_full
from atelier.core.errors import OutputError


@contextmanager
def files_limited_to(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_name_appears_only_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    with atomic(out) as beside:
        beside.write_bytes(b"whole")
        assert not out.exists()
        assert beside.parent == tmp_path
        assert beside.suffix == ".png"
    assert out.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_alone(tmp_path: Path, failure: type[BaseException]) -> None:
    out = tmp_path / "out.png"
    out.write_bytes(b"old")

    def write_half() -> None:
        with atomic(out) as beside:
            beside.write_bytes(b"ha")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic(tmp_path / "out") as beside:
            beside.write_bytes(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "far" / "real.txt")
    with atomic(link) as beside:
        beside.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "far" / "real.txt").read_text() == "new"


def test_the_longest_name_that_is_allowed(tmp_path: Path) -> None:
    out = tmp_path / ("ü" * 125 + ".png")
    with atomic(out) as beside:
        beside.write_bytes(b"x")
    assert out.read_bytes() == b"x"


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"folder does not exist; create .*nowhere"),
        atomic(tmp_path / "nowhere" / "out"),
    ):
        pass


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="cannot be written"), atomic(tmp_path / "out") as beside:
        beside.write_bytes(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def write_plainly(path: Path) -> None:
    path.write_bytes(bytes(200_000))


def write_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(50_000)}, path)


def write_pickle(path: Path) -> None:
    torch.save({"a": torch.zeros(50_000)}, path)


@pytest.mark.parametrize("write", [write_plainly, write_safetensors, write_pickle])
def test_no_room_is_one_sentence_whoever_writes(tmp_path: Path, write: object) -> None:
    assert callable(write)
    with (
        files_limited_to(100_000),
        pytest.raises(OutputError, match="no space is left for"),
        atomic(tmp_path / "out") as beside,
    ):
        write(beside)
    assert list(tmp_path.iterdir()) == []


def test_only_a_lack_of_room_is_a_lack_of_room() -> None:
    assert is_full(OSError(errno.ENOSPC, "No space left on device"))
    assert is_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not is_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_full(RuntimeError("I/O error: Permission denied (os error 13)"))
