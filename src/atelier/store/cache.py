"""A cache of tensors that methods compute from styles, by key, on disk or from a style file.

The disk cache follows the rules of `core.caches`. An entry is used only if it has the layout that the caller
expects; otherwise, for example if another version wrote it, it is computed again. Keys are always computed
here, from the inputs. The entries of a style file are only used for its own style picture, during one call,
and are never written to the disk cache.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core import recipe
from atelier.core.caches import Cache, harmless

if TYPE_CHECKING:
    from torch import Tensor

Entry = Mapping[str, "Tensor"]
#: The shape of each tensor: sizes, or names of sizes. A name must have the same size throughout an entry.
Layout = Mapping[str, tuple[int | str, ...]]

#: The maximum size of the disk cache in bytes; 0 disables it.
LIMIT = 512 << 20
_FORMAT = 2

# Context variables, so that jobs in different threads do not see each other's entries.
_recordings: ContextVar[tuple[dict[str, Entry], ...]] = ContextVar("recordings", default=())
_offers: ContextVar[tuple[tuple[str, Mapping[str, Entry]], ...]] = ContextVar("offers", default=())


class Key(str):
    """A key in hex, with the digests of the tensors that it was computed from."""

    tensors: frozenset[str]


def key(*parts: Any) -> Key:
    """The sha256 of text, numbers, tensors and other keys, as a key."""
    digest, tensors = hashlib.sha256(), frozenset[str]()
    for part in parts:
        if hasattr(part, "detach"):
            found = _digest(part)
            tensors |= {found}
            digest.update(found.encode())
        else:
            for one in part if isinstance(part, tuple) else (part,):
                tensors |= getattr(one, "tensors", frozenset())
            digest.update(repr(part).encode())
        digest.update(b"\0")
    made = Key(digest.hexdigest())
    made.tensors = tensors
    return made


def remember(name: Key, make: Callable[[], Entry], layout: Layout) -> Entry:
    """The entry for the key `name`: from a style file, from the disk, or computed by `make` and stored.

    An entry that does not have exactly the tensors and shapes of `layout` is computed again.
    """
    entry = _offered(name, layout)
    if entry is None:
        entry = _stored(name, make, layout)
    for record in _recordings.get():
        record[name] = entry
    return entry


@contextlib.contextmanager
def recording() -> Iterator[dict[str, Entry]]:
    """Record every entry that is requested inside the block in this context, by key."""
    record: dict[str, Entry] = {}
    token = _recordings.set((*_recordings.get(), record))
    try:
        yield record
    finally:
        _recordings.reset(token)


@contextlib.contextmanager
def offered(styles: Iterable[tuple[Tensor, Mapping[str, Entry]]]) -> Iterator[None]:
    """Use the entries of style files inside the block. `styles` pairs each style's tensor with its entries.

    An entry is used only for keys computed from that one tensor, so a file can affect only the features of
    its own picture. Unlike entries on the disk, entries may come from other package versions.
    """
    more = [(_digest(tensor), entries) for tensor, entries in styles if entries]
    token = _offers.set((*_offers.get(), *more))
    try:
        yield
    finally:
        _offers.reset(token)


def fits(entry: Entry, layout: Layout) -> bool:
    """Whether `entry` has exactly the tensors and shapes of `layout`."""
    if entry.keys() != layout.keys():
        return False
    sizes: dict[str, int] = {}
    for name, shape in layout.items():
        found = tuple(entry[name].shape)
        if len(found) != len(shape):
            return False
        for size, wanted in zip(found, shape, strict=True):
            if size != (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted):
                return False
    return True


def _offered(name: Key, layout: Layout) -> Entry | None:
    for tensor, entries in _offers.get():
        if name.tensors == {tensor} and name in entries and fits(entries[name], layout):
            return entries[name]
    return None


def _stored(name: Key, make: Callable[[], Entry], layout: Layout) -> Entry:
    disk = Cache("styles", _version(), LIMIT)
    entry = _read(disk, name)
    if entry is not None and fits(entry, layout):
        return entry
    entry = make()
    size = sum(tensor.numel() * tensor.element_size() for tensor in entry.values())
    disk.keep(_file(name), size, lambda path: _write(path, entry))
    return entry


def _read(disk: Cache, name: Key) -> Entry | None:
    from safetensors.torch import load_file

    path = disk.find(_file(name))
    if path is None:
        return None
    with harmless(f"read {path}"):
        return load_file(path)
    return None


def _write(path: Path, entry: Entry) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.cpu().contiguous() for name, tensor in entry.items()}, path)


def _file(name: Key) -> str:
    return f"{name}.safetensors"


@lru_cache(maxsize=1)
def _version() -> str:
    """A hash of what entries depend on besides the key: this format and the package versions."""
    return hashlib.sha256(repr((_FORMAT, sorted(recipe.versions().items()))).encode()).hexdigest()[:16]


def _digest(tensor: Tensor) -> str:
    """The sha256 of a tensor's shape, dtype and values."""
    import torch

    array = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{tuple(array.shape)} {array.dtype}".encode())
    digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
