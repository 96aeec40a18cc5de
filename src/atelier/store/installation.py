"""Where weights lie on this machine: the cache folder, a shelf a record, installing and hashing."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.atomic import atomic
from atelier.core.caches import home as home
from atelier.core.errors import OutputError, WeightsError
from atelier.store import checkpoints

if TYPE_CHECKING:
    from torch import Tensor

Condition = Literal["ok", "missing", "damaged"]

PACKAGED = Path(__file__).resolve().parent / "bundled"


def sha256(path: Path) -> str:
    """The sha256 of the file at `path`, in hex, remembered until the file changes."""
    try:
        status = path.stat()
        return _sha256(path, status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError as error:
        raise WeightsError(f"The weights file {path} cannot be read ({error.strerror}).") from error


@lru_cache(maxsize=256)
def _sha256(path: Path, changed: int, size: int, inode: int) -> str:
    return hash_anew(path)


def hash_anew(path: Path) -> str:
    """As `sha256`, by reading the file: a disk that loses bits does not touch the time of change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Shelf:
    """The place of one record's weights in the cache: `<home>/weights/<name>/`."""

    name: str
    file: str

    @property
    def folder(self) -> Path:
        return home() / "weights" / self.name

    @property
    def weights(self) -> Path:
        """The installed safetensors file, there or not."""
        return self.folder / f"{Path(self.file).stem}.safetensors"

    @property
    def sidecar(self) -> Path:
        """A small JSON file with the source and the hashes of what is installed."""
        return self.weights.with_suffix(".json")

    @property
    def part(self) -> Path:
        """What has arrived of a download."""
        return self.folder / f"{self.file}.part"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time; the others wait. Raises `OutputError` for a folder closed to writing."""
        from filelock import FileLock

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock")
            lock.acquire()
        except OSError as error:
            raise OutputError(
                f"The weights folder {self.folder} cannot be written ({error.strerror}): "
                "set ATELIER_HOME to a folder that can."
            ) from error
        try:
            self._sweep()
            yield
        finally:
            lock.release()

    def _sweep(self) -> None:
        """What a killed run was writing belongs to nobody once the lock is ours."""
        for left in self.folder.glob(".*"):
            left.unlink(missing_ok=True)

    def facts(self) -> dict[str, Any]:
        """What the sidecar says; empty where there is none that can be read."""
        try:
            facts = json.loads(self.sidecar.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def condition(self) -> Condition:
        """Whether the installed file is there and has the hash that it had when it was installed."""
        if not self.weights.is_file():
            return "missing"
        try:
            return "ok" if hash_anew(self.weights) == self.facts().get("sha256") else "damaged"
        except OSError:
            return "damaged"

    def install(self, original: Path, converter: str, source: str) -> Path:
        """Convert `original` and put it in place, whole or not at all.

        The result depends on the original alone, so that its hash is the same on every machine.
        """
        with atomic(self.weights) as temporary:
            hashed = sha256(original)
            if converter == "plain" and checkpoints.examine(original) == "safetensors":
                shutil.copyfile(original, temporary)
                checkpoints.check_safetensors(temporary)
            else:
                self._save(
                    checkpoints.converter(converter)(checkpoints.read_checkpoint(original)), temporary, hashed
                )
            # Written first: should the run end here, the old weights count as damaged, never as new.
            self._describe(source, original=hashed, stored=sha256(temporary), size=temporary.stat().st_size)
        return self.weights

    def _save(self, state: checkpoints.State, path: Path, original: str) -> None:
        from safetensors.torch import save_file

        if not state:
            raise WeightsError(f"Nothing in the file belongs to {self.name}: take it as it was published.")
        # A single key, since safetensors writes several in no fixed order.
        facts = json.dumps({"original_sha256": original, "record": self.name}, sort_keys=True)
        save_file(_apart(state), path, metadata={"atelier": facts})

    def _describe(self, source: str, *, original: str, stored: str, size: int) -> None:
        facts = {
            "record": self.name,
            "source": source,
            "file": self.file,
            "original_sha256": original,
            "sha256": stored,
            "bytes": size,
            "installed": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with atomic(self.sidecar) as temporary:
            temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _apart(state: checkpoints.State) -> checkpoints.State:
    """Each tensor with memory of its own, as safetensors wants it; tied weights are stored twice."""
    seen, apart = set[int](), dict[str, "Tensor"]()
    for name, tensor in state.items():
        whole = tensor.contiguous()
        memory = whole.untyped_storage().data_ptr()
        apart[name] = whole.clone() if memory in seen else whole
        seen.add(memory)
    return apart
