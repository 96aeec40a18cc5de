"""What was computed once and may be wanted again: tensors on disk, by a key that says what they came from.

The cache is a convenience: a folder that cannot be written, a damaged entry or a full disk cost time and
nothing else. The entries that were used longest ago go first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core.atomic import atomic
from atelier.store import installation

if TYPE_CHECKING:
    from torch import Tensor

Entry = Mapping[str, "Tensor"]

#: Bytes that the cache may take on the disk; 0 turns it off.
LIMIT = 512 << 20
_recorded: list[dict[str, Entry]] = []


def key(*parts: Any) -> str:
    """A key out of text, numbers and tensors: the sha256 of all of them."""
    digest = hashlib.sha256()
    for part in parts:
        if hasattr(part, "detach"):
            array = part.detach().cpu().contiguous()
            digest.update(f"{tuple(array.shape)} {array.dtype}".encode())
            digest.update(memoryview(array.numpy()).cast("B"))
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def remember(name: str, make: Callable[[], Entry]) -> Entry:
    """The entry called `name`, a key; made and written down where it is not there."""
    path = _folder() / f"{name}.safetensors"
    entry = _read(path) if LIMIT else None
    if entry is None:
        entry = make()
        _write(path, entry)
    for record in _recorded:
        record[name] = entry
    return entry


@contextlib.contextmanager
def recording() -> Iterator[dict[str, Entry]]:
    """Every entry that is asked for inside the block, by its key."""
    record: dict[str, Entry] = {}
    _recorded.append(record)
    try:
        yield record
    finally:
        _recorded.remove(record)


def adopt(entries: Mapping[str, Entry]) -> None:
    """Put entries that came from elsewhere into the cache, unless they are there."""
    for name, entry in entries.items():
        path = _folder() / f"{name}.safetensors"
        if not path.exists():
            _write(path, entry)


def _folder() -> Path:
    return installation.home() / "cache"


def _read(path: Path) -> Entry | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        entry = load_file(path)
        os.utime(path)
    except (OSError, SafetensorError):
        return None
    return entry


def _write(path: Path, entry: Entry) -> None:
    from safetensors.torch import save_file

    size = sum(tensor.numel() * tensor.element_size() for tensor in entry.values())
    if size > LIMIT // 4:
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent, LIMIT - size)
        with atomic(path) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in entry.items()}, temporary)


def _make_room(folder: Path, allowed: int) -> None:
    """Remove what was used longest ago until the rest is at most `allowed` bytes."""
    files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.safetensors"))
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= allowed:
            break
        path.unlink(missing_ok=True)
        total -= size
