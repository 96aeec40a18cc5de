"""Where compiled kernels are kept between runs: numba's cache, made to cost speed and nothing else.

numba's own cache raises whatever goes wrong: no folder to write, a full disk, a damaged file. Here each of
these means that the kernel is compiled again. The code lies in `NUMBA_CACHE_DIR` where that is set and can be
written, else in the folder `kernels` of `core.caches`; damaged machine code is found by its checksum, for it
would run all the same.
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

#: Bytes that compiled code may take in our own folder.
LIMIT = 256 << 20
_FORMAT = 1
_HASH = hashlib.sha256().digest_size


def keep(dispatcher: Any) -> None:
    """Let `dispatcher`, from `numba.njit`, find and keep its compiled code on the disk, where that works."""
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
        # Copies of the package at several places have code of their own.
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
    """The files of one kernel, with a checksum before the machine code."""

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
    _locator_classes = [_Place]  # noqa: RUF012 - numba's name and form


class _HarmlessCache(caching.FunctionCache):
    """numba's cache of one function, whose failures mean compiling."""

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
            self.flush()  # an index that cannot be read would be in the way for ever
            super().save_overload(sig, data)
