"""The available memory, and an error if it is not enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.core.errors import ResourceError

if TYPE_CHECKING:
    import torch

GIB = 2**30

_PROCESS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
# Limit, use and the part of the use that is reclaimable page cache, in cgroup v2 and v1.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available(device: torch.device | None = None) -> int:
    """The bytes that can be allocated now, on a CUDA device or in main memory within the cgroup limits."""
    if device is not None and device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(min([psutil.virtual_memory().available, *_cgroup_rooms()]))


def check(needed: int, what: str, *, remedy: str, device: torch.device | None = None) -> None:
    """Raises ResourceError if `what` needs more than the available memory; `needed` is in bytes."""
    room = available(device)
    if needed > room:
        raise ResourceError(
            f"{what} would need {needed / GIB:.1f} GiB of memory, and {room / GIB:.1f} GiB are available: "
            f"{remedy}"
        )


def _cgroup_rooms(process: Path = _PROCESS, mount: Path = _MOUNT) -> Iterator[int]:
    """The bytes that the limit of each control group above this process leaves."""
    try:
        lines = process.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _rooms_above(mount, path, _V2)
        elif "memory" in controllers.split(","):
            yield from _rooms_above(mount / "memory", path, _V1)


def _rooms_above(root: Path, path: str, files: tuple[str, str, str]) -> Iterator[int]:
    """The bytes left in the group at `path` and in its parents; in a container, `root` may be the group."""
    folder = root / path.lstrip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            break
        room = _room(group, files)
        if room is not None:
            yield room


def _room(group: Path, files: tuple[str, str, str]) -> int | None:
    limit, use, reclaimable = files
    try:
        allowed, used = (group / limit).read_text().strip(), int((group / use).read_text())
        if allowed == "max":
            return None
        statistics = dict(
            line.split()[:2] for line in (group / "memory.stat").read_text().splitlines() if line
        )
        return max(0, int(allowed) - used + int(statistics.get(reclaimable, 0)))
    except (OSError, ValueError):
        return None
