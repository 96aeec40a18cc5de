"""A cache of loaded networks, shared by all methods and bounded in number and size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from threading import Lock, RLock
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

#: The maximum number of entries, and the maximum total size of their parameters and buffers in bytes.
MOST, BYTES = 12, 2 << 30


class Models:
    """A thread-safe, least-recently-used cache of loaded networks.

    A key must include everything that determines the value: file hashes, device, dtype, options. Cached
    values are shared and must not be modified. A value larger than the limit is not cached.

    >>> models = Models()
    >>> models.get("a", lambda: [1]) is models.get("a", lambda: [2])
    True
    """

    def __init__(self, most: int = MOST, limit: int = BYTES) -> None:
        self._most, self._limit = most, limit
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, RLock] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value for `key`, created by `make` if it is not cached. Concurrent calls create it once."""
        with self._lock:
            if (found := self._found(key)) is not None:
                return cast("T", found)
            making = self._making.setdefault(key, RLock())
        with making:
            with self._lock:
                if (found := self._found(key)) is not None:
                    return cast("T", found)
            try:
                value = make()
            finally:
                with self._lock:
                    self._making.pop(key, None)
            self._keep(key, value)
            return value

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._kept.clear()

    def _found(self, key: Hashable) -> Any:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def _keep(self, key: Hashable, value: Any) -> None:
        size = size_of(value)
        if size > self._limit:
            return
        with self._lock:
            self._kept[key] = (value, size)
            while len(self._kept) > self._most or sum(size for _, size in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)


def size_of(value: Any) -> int:
    """The bytes of all tensors in a network, several networks, or an object with network attributes."""
    if hasattr(value, "parameters") and hasattr(value, "buffers"):
        tensors = {
            id(one): one.numel() * one.element_size() for one in (*value.parameters(), *value.buffers())
        }
        return sum(tensors.values())
    if isinstance(value, (tuple, list)):
        return sum(map(size_of, value))
    parts = vars(value).values() if hasattr(value, "__dict__") else ()
    return sum(size_of(one) for one in parts if hasattr(one, "parameters"))


#: The cache of this process.
MODELS = Models()


def kept(make: Callable[P, T]) -> Callable[P, T]:
    """Cache the results of a loading function in `MODELS`, keyed by its arguments.

    The arguments should include the fingerprints of the files that it reads, so that changed files are
    loaded again.
    """

    @wraps(make)
    def get(*args: P.args, **options: P.kwargs) -> T:
        key = (make.__module__, make.__qualname__, args, tuple(sorted(options.items())))
        return MODELS.get(key, lambda: make(*args, **options))

    return get
