"""Networks that stay loaded: one cache for all methods, bounded in number and in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from threading import Lock, RLock
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")

#: Entries that are kept at most, and the bytes of their parameters and buffers together.
MOST, BYTES = 12, 2 << 30


class Models:
    """Loaded networks by key; those used longest ago go first. Safe in several threads.

    A key must name everything that decides the value: file hashes, device, dtype, options. What is kept
    is shared, so nobody may change it. An entry larger than the bound is made anew each time.

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
        """The value of `key`, made by `make` where it is not kept; two threads make it once."""
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
        """Forget everything."""
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
    """Bytes of the tensors in a network, in several, or in an object that holds some as attributes."""
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
    """Keep what a loading function returns in `MODELS`, by its arguments.

    Among them should be the fingerprints of the files that it reads, so that a changed file is loaded anew.
    """

    @wraps(make)
    def get(*args: P.args, **options: P.kwargs) -> T:
        key = (make.__module__, make.__qualname__, args, tuple(sorted(options.items())))
        return MODELS.get(key, lambda: make(*args, **options))

    return get
