"""The available memory, within the limits of control groups, and the sentence where it is too little."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from atelier.core import memory
from atelier.core.errors import ResourceError

GIB = 2**30


def group(folder: Path, limit: int | str, use: int, cached: int, names: tuple[str, str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{use}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cached}\nfile 9\n")


@pytest.mark.parametrize(
    ("line", "root", "names"),
    [
        ("0::/slice/job", "", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:cpu,memory:/slice/job",
            "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_limits_of_groups(tmp_path: Path, line: str, root: str, names: tuple[str, str, str]) -> None:
    process, mount = tmp_path / "cgroup", tmp_path / "mount"
    process.write_text(f"7:cpuset:/\n{line}\n")
    group(mount / root / "slice" / "job", 6 * GIB, 5 * GIB, 2 * GIB, names)
    group(mount / root / "slice", 20 * GIB, 19 * GIB, 0, names)
    # Page cache that can be dropped counts as free.
    assert sorted(memory._cgroup_rooms(process, mount)) == [1 * GIB, 3 * GIB]


def test_in_a_container_the_group_is_the_root(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/not/seen/inside\n")
    group(tmp_path / "mount", 4 * GIB, 1 * GIB, 0, ("memory.max", "memory.current", "inactive_file"))
    assert list(memory._cgroup_rooms(tmp_path / "cgroup", tmp_path / "mount")) == [3 * GIB]


def test_no_limit(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/job\n")
    group(tmp_path / "job", "max", GIB, 0, ("memory.max", "memory.current", "inactive_file"))
    assert list(memory._cgroup_rooms(tmp_path / "cgroup", tmp_path)) == []
    assert list(memory._cgroup_rooms(tmp_path / "none", tmp_path)) == []


def test_the_smallest_room_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    free = psutil.virtual_memory()._replace(available=8 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(memory, "_cgroup_rooms", lambda: iter(()))
    assert memory.available() == 8 * GIB
    monkeypatch.setattr(memory, "_cgroup_rooms", lambda: iter((3 * GIB, 9 * GIB)))
    assert memory.available() == 3 * GIB


def test_too_much_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device=None: 3 * GIB)
    memory.check(3 * GIB, "This picture", remedy="take a smaller --size")
    with pytest.raises(ResourceError) as caught:
        memory.check(5 * GIB, "This picture", remedy="take a smaller --size")
    assert str(caught.value) == (
        "This picture would need 5.0 GiB of memory, and 3.0 GiB are available: take a smaller --size"
    )


def test_this_machine_has_some() -> None:
    assert 0 < memory.available() <= psutil.virtual_memory().total
