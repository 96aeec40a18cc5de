"""The cache of compiled kernels between runs: numba's cache, whose failures cost only time.

numba's own cache raises if no folder can be written, the disk is full or a file is damaged. Here the kernel
is compiled again instead. The code is stored in `NUMBA_CACHE_DIR` if that is set and writable, else in the
folder `kernels` of `core.caches`. A checksum detects damaged machine code, which would otherwise be run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching

from atelier.core.atomic import atomic
from atelier.core.caches import Cache, can_be_written, harmless

#: The size limit of our own folder in bytes.
LIMIT = 256 << 20
_FORMAT = 1
_HASH = hashlib.sha256().digest_size


def keep(dispatcher: Any) -> None:
    """Lets `dispatcher`, from `numba.njit`, load and store its compiled code on disk, if possible."""
    with harmless(f"hold compiled code of {dispatcher.py_func.__name__}"):
        dispatcher._cache = _HarmlessCache(dispatcher.py_func)  # as `Dispatcher.enable_caching` does


class _Place:
    """The folder of one source file's kernels; numba calls this a cache locator."""

    def __init__(self, function: Callable[..., Any], source: str) -> None:
        self._source, self._line = Path(source), function.__code__.co_firstlineno
        self.own: Cache | None = Cache("kernels", f"{_FORMAT}-numba-{numba.__version__}", LIMIT)
        root = self.own.folder
        chosen = getattr(numba.config, "CACHE_DIR", "")
        if chosen and can_be_written(Path(chosen)):
            self.own, root = None, Path(chosen)
        # Each copy of the package has its own code, so the name contains a hash of the location.
        place = hashlib.sha256(str(self._source.absolute().parent).encode()).hexdigest()[:16]
        self._folder = root / f"{self._source.parent.name}-{place}"

    @classmethod
    def from_function(cls, function: Callable[..., Any], source: str) -> _Place:
        return cls(function, source)

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return hashlib.sha256(self._source.read_bytes()).hexdigest()

    def get_disambiguator(self) -> str:
        return str(self._line)


class _Files(caching.IndexDataCacheFile):
    """The cache files of one kernel, with a checksum before the machine code."""

    def _save_data(self, name: str, data: Any) -> None:
        content = self._dump(data)
        with atomic(Path(self._data_path(name))) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)

    def _load_data(self, name: str) -> Any:
        import pickle

        path = Path(self._data_path(name))
        stored = path.read_bytes()
        checksum, content = stored[:_HASH], stored[_HASH:]
        if hashlib.sha256(content).digest() != checksum:
            raise ValueError(f"{path} is damaged")
        return pickle.loads(content)


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes = [_Place]  # noqa: RUF012 - numba requires this attribute


class _HarmlessCache(caching.FunctionCache):
    """numba's cache of one function; on failure the function is compiled again."""

    _impl_class = _Implementation

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        place = self._impl.locator
        self._own: Cache | None = place.own
        self._cache_file = _Files(place.get_cache_path(), self._impl.filename_base, place.get_source_stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with harmless(f"read compiled code of {self._name}"):
            found = super().load_overload(sig, target_context)
            if found is not None and self._own is not None:
                for path in Path(self._cache_path).glob(f"{self._impl.filename_base}.*"):
                    self._own.touch(path)
            return found
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with harmless(f"keep compiled code of {self._name}"):
            self._save_anew(sig, data)
            if self._own is not None:
                self._own.make_room()

    def _save_anew(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:
            self.flush()  # replaces an unreadable index, which would block the cache for ever
            super().save_overload(sig, data)
