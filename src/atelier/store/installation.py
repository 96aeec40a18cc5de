"""Installed weights on this machine: the folder of each record, installation of files, and their hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.atomic import atomic
from atelier.core.caches import home as home
from atelier.core.errors import OutputError, WeightsError
from atelier.store import checkpoints
from atelier.store.records import File, Record

if TYPE_CHECKING:
    from torch import Tensor

#: "verified" matches the published hash, "unverified" is intact but has no published hash to match,
#: "missing" is not installed, "damaged" differs from what was installed.
Condition = Literal["verified", "unverified", "missing", "damaged"]

PACKAGED = Path(__file__).resolve().parent / "bundled"
#: The hashes of the bundled files, in the format of sha256sum.
CHECKSUMS = PACKAGED / "SHA256SUMS"


def sha256(path: Path) -> str:
    """The sha256 of the file at `path`, in hex, cached until the file changes."""
    try:
        status = path.stat()
        return _sha256(path, status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError as error:
        raise WeightsError(f"the weights file {path} cannot be read ({error.strerror})") from error


@lru_cache(maxsize=256)
def _sha256(path: Path, changed: int, size: int, inode: int) -> str:
    return hash_anew(path)


def hash_anew(path: Path) -> str:
    """As `sha256`, but uncached: disk corruption does not change a file's modification time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combined(hashes: Mapping[str, str]) -> str:
    """One sha256 for several files, computed from their sorted names and hashes."""
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()


def bundled_condition(path: Path) -> Condition:
    """The condition of a bundled file, checked against the package's list of hashes."""
    try:
        checkpoints.check_safetensors(path)
        known = _checksums().get(path.name)
        if known is None:
            return "unverified"
        return "verified" if hash_anew(path) == known else "damaged"
    except (WeightsError, OSError):
        return "damaged"


@cache
def _checksums() -> dict[str, str]:
    lines = (line.split() for line in CHECKSUMS.read_text(encoding="utf-8").splitlines())
    return {name: known for known, name in lines}


@dataclass(frozen=True)
class Shelf(ABC):
    """The cache folder for the weights of one record, `<home>/weights/<name>/`."""

    record: Record

    @property
    def folder(self) -> Path:
        return home() / "weights" / self.record.name

    @property
    @abstractmethod
    def weights(self) -> Path:
        """The path of the installed weights, a safetensors file or a pipeline folder. It need not exist."""

    @property
    @abstractmethod
    def sidecar(self) -> Path:
        """The path of a JSON file with the sources and hashes of the installed files."""

    @abstractmethod
    def is_installed(self) -> bool:
        """Whether the weights are installed. `condition` also checks that they are intact."""

    @abstractmethod
    def condition(self) -> Condition:
        """Whether the weights are installed, intact and as published; hashes all files."""

    @abstractmethod
    def recorded(self) -> Condition:
        """As `condition`, but from the records of the installation: fast, and does not detect damage."""

    @abstractmethod
    def has(self, part: File) -> bool:
        """Whether an earlier, unfinished `pull` has already put this file in place."""

    @abstractmethod
    def take(self, part: File, source: str) -> None:
        """Accept the downloaded file in `part_of(part)`. Raises `WeightsError` if it is unusable."""

    @abstractmethod
    def finish(self, sources: Mapping[str, str]) -> Path:
        """Install the downloaded files once all are complete; `sources` gives the address of each."""

    @abstractmethod
    def add(self, files: Mapping[str, Path], source: str) -> Path:
        """Install copies of the user's own `files`, by their published names."""

    def part_of(self, part: File) -> Path:
        """The path of a file's partial download."""
        return self.folder / f"{part.name.replace('/', '%2F')}.part"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock; other processes wait. Raises `OutputError` for a read-only folder."""
        from filelock import FileLock

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock")
            lock.acquire()
        except OSError as error:
            raise OutputError(
                f"the weights folder {self.folder} cannot be written ({error.strerror}): "
                "set ATELIER_HOME to a writable folder"
            ) from error
        try:
            self._sweep()
            yield
        finally:
            lock.release()

    def _sweep(self) -> None:
        """Delete temporary files of killed runs; under the lock, no other process uses them."""
        for left in self.folder.rglob(".*"):
            if left.is_file():
                left.unlink(missing_ok=True)

    def facts(self) -> dict[str, Any]:
        """The contents of the sidecar; empty if it is missing or unreadable."""
        try:
            facts = json.loads(self.sidecar.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write the sidecar."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        everything = {"record": self.record.name, **facts, "installed": when}
        with atomic(self.sidecar) as temporary:
            temporary.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")

    def checked(self, hashes: Mapping[str, str]) -> Condition:
        """ "verified" if every file has its published hash, otherwise "unverified"."""
        good = all(part.check(hashes.get(part.name, "")) == "verified" for part in self.record.parts)
        return "verified" if good else "unverified"


class TensorShelf(Shelf):
    """One safetensors file, converted from one or more published files."""

    @property
    def weights(self) -> Path:
        return self.folder / f"{Path(self.record.file or 'weights').stem}.safetensors"

    @property
    def sidecar(self) -> Path:
        return self.weights.with_suffix(".json")

    def is_installed(self) -> bool:
        return self.weights.is_file()

    def condition(self) -> Condition:
        if not self.is_installed():
            return "missing"
        try:
            whole = hash_anew(self.weights) == self.facts().get("sha256")
        except OSError:
            whole = False
        return self.recorded() if whole else "damaged"

    def recorded(self) -> Condition:
        if not self.is_installed():
            return "missing"
        facts = self.facts()
        # Sidecars of earlier versions list one file.
        return self.checked(facts.get("originals", {self.record.file: facts.get("original_sha256", "")}))

    def has(self, part: File) -> bool:
        return False

    def take(self, part: File, source: str) -> None:
        came = self.part_of(part)
        if self.record.file:
            self.install({part.name: came}, source)
        else:
            checkpoints.examine(came)

    def finish(self, sources: Mapping[str, str]) -> Path:
        if not self.record.file:
            came = {part.name: self.part_of(part) for part in self.record.parts}
            self.install(came, ", ".join(sorted(set(sources.values()))))
        return self.weights

    def add(self, files: Mapping[str, Path], source: str) -> Path:
        return self.install(files, source)

    def install(self, originals: Mapping[str, Path], source: str) -> Path:
        """Convert `originals`, by published name, and install the result atomically.

        The result depends only on the originals, so its hash is the same on every machine.
        """
        hashes = {name: sha256(path) for name, path in originals.items()}
        original = next(iter(hashes.values())) if self.record.file else combined(hashes)
        with atomic(self.weights) as temporary:
            self._convert(originals, temporary, original)
            # Written first: if the run ends here, the old weights count as damaged instead of up to date.
            self.describe(
                {
                    "source": source,
                    "file": self.record.what,
                    "original_sha256": original,
                    "originals": hashes,
                    "sha256": sha256(temporary),
                    "bytes": temporary.stat().st_size,
                }
            )
        return self.weights

    def _convert(self, originals: Mapping[str, Path], path: Path, original: str) -> None:
        only = next(iter(originals.values()))
        if (
            self.record.file
            and self.record.converter == "plain"
            and checkpoints.examine(only) == "safetensors"
        ):
            shutil.copyfile(only, path)
            checkpoints.check_safetensors(path)
        else:
            self._save(checkpoints.converter(self.record.converter)(self._read(originals)), path, original)

    def _read(self, originals: Mapping[str, Path]) -> checkpoints.State:
        state: checkpoints.State = {}
        prefixes = {part.name: part.prefix for part in self.record.parts}
        for name, path in originals.items():
            read = checkpoints.read_checkpoint(path)
            more = {f"{prefixes[name]}{key}": tensor for key, tensor in read.items()}
            if twice := state.keys() & more.keys():
                raise WeightsError(
                    f"{name} holds {min(twice)}, which is also in another file of {self.record.name}: "
                    "use the original published files"
                )
            state |= more
        return state

    def _save(self, state: checkpoints.State, path: Path, original: str) -> None:
        from safetensors.torch import save_file

        if not state:
            raise WeightsError(
                f"the file has no tensors of {self.record.name}: use the original published file"
            )
        # A single key, because safetensors does not write several in a fixed order.
        facts = json.dumps({"original_sha256": original, "record": self.record.name}, sort_keys=True)
        save_file(_unshared(state), path, metadata={"atelier": facts})


def _unshared(state: checkpoints.State) -> checkpoints.State:
    """The tensors without shared memory, as safetensors requires; tied weights are stored twice."""
    seen, unshared = set[int](), dict[str, "Tensor"]()
    for name, tensor in state.items():
        whole = tensor.contiguous()
        memory = whole.untyped_storage().data_ptr()
        unshared[name] = whole.clone() if memory in seen else whole
        seen.add(memory)
    return unshared
