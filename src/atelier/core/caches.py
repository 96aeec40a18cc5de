"""The common rules of all disk caches: location, versions, eviction, and handling of failures.

A cache only saves time and never changes a result. Its files are in `home()/cache/<name>/<version>/`, so
entries of another version are never found. When a cache exceeds its limit, the least recently used files are
removed first, whatever their version. A folder that is read-only, full, missing or damaged costs only speed:
failures are logged at level DEBUG and otherwise ignored.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from atelier.core.atomic import atomic

_log = logging.getLogger(__name__)


def home() -> Path:
    """The folder for weights and caches: `ATELIER_HOME`, or the user's cache folder."""
    chosen = os.environ.get("ATELIER_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("atelier", appauthor=False))


@contextlib.contextmanager
def harmless(what: str) -> Iterator[None]:
    """Logs and ignores any error inside the block; for work that only saves time."""
    try:
        yield
    except Exception as error:
        # Whatever a library raises (pickle, safetensors, OSError), the work continues without the cache.
        _log.debug("the cache could not %s: %s", what, error, exc_info=True)


@dataclass(frozen=True)
class Cache:
    """A folder of limited size for files that can be regenerated.

    `version` names everything that an entry's meaning depends on besides its key; `limit` is in bytes and
    counts all versions, and 0 turns the cache off.
    """

    name: str
    version: str
    limit: int

    @property
    def root(self) -> Path:
        """The folder of all versions."""
        return home() / "cache" / self.name

    @property
    def folder(self) -> Path:
        """The folder of this version; it need not exist."""
        return self.root / self.version

    def find(self, name: str) -> Path | None:
        """The file called `name`, marked as just used; None if it does not exist."""
        path = self.folder / name
        if not self.limit or not path.is_file():
            return None
        self.touch(path)
        return path

    def touch(self, path: Path) -> None:
        """Marks `path` as just used, if the folder allows it."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def keep(self, name: str, size: int, write: Callable[[Path], object]) -> bool:
        """Lets `write` create the file called `name`, of about `size` bytes; False if it could not be kept.

        A file larger than a quarter of the limit is not written, since it would displace everything else.
        """
        if size > self.limit // 4:
            return False
        with harmless(f"keep {name}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.make_room(size)
            with atomic(self.folder / name) as temporary:
                write(temporary)
            return True
        return False

    def make_room(self, coming: int = 0) -> None:
        """Removes the least recently used files until `coming` bytes fit."""
        files = sorted(_files(self.root))
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self.limit - coming:
                break
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                total -= size


def can_be_written(folder: Path) -> bool:
    """Whether a file can be created in `folder`, which is created if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _files(root: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of last use, size and path of every file below `root`."""
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):  # another process may have just removed it
            status = path.stat()
            if path.is_file():
                yield status.st_mtime, status.st_size, path
