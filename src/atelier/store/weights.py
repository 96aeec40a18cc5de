"""Pretrained weights: find, load, download, install and verify them.

Callers do not need to distinguish the three kinds: bundled with the package, published and installed in the
cache (`installation.home()`), or the user's own file or folder. Only `pull` downloads anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atelier.core.errors import WeightsError
from atelier.store import checkpoints, footprint, installation, pipelines
from atelier.store.installation import Condition, Shelf, TensorShelf
from atelier.store.records import Record, record, records

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from atelier.store.download import Progress

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")


def where(name: str) -> Path:
    """The path where the weights called `name` are, or would be, installed: a file or a pipeline folder."""
    known = record(name)
    packaged = _packaged(known)
    return packaged if packaged is not None and packaged.is_file() else shelf_of(known).weights


def installed(name: str) -> bool:
    """Whether the weights called `name` are on this machine. `verify` checks that they are intact."""
    known = record(name)
    packaged = _packaged(known)
    return (packaged is not None and packaged.is_file()) or shelf_of(known).is_installed()


def locate(name: str) -> Path:
    """The path of the installed weights called `name`, a file or a pipeline folder. Downloads nothing.

    Raises `WeightsError` if they are missing, and names the command that downloads them.
    """
    if not installed(name):
        raise WeightsError(_missing(record(name), where(name)))
    return where(name)


def load(name_or_path: str | Path) -> dict[str, Tensor]:
    """Load tensors to the CPU, from installed weights by name or from a file by path.

    Raises `WeightsError` if the weights are missing or damaged or contain code, and `ResourceError` if they
    do not fit into the available memory.
    """
    path = _file(name_or_path)
    footprint.check(path, str(name_or_path))
    return checkpoints.read_checkpoint(path)


def metadata(name_or_path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for other files."""
    return checkpoints.read_metadata(_file(name_or_path))


def folder(name_or_path: str | Path) -> Path:
    """The folder of the pipeline with that name, or the user's own folder at that path.

    Raises `WeightsError` if the weights are missing or are not a pipeline.
    """
    path = _resolve(name_or_path)
    if not path.is_dir():
        raise WeightsError(f"{path} is a file: use a folder of weights (a pipeline)")
    return path


def memory(name_or_path: str | Path, *, float_bytes: int | None = None) -> int:
    """The size of the weights in memory once loaded, in bytes.

    Set `float_bytes` to the bytes per number if floating-point tensors are converted on loading, for example
    2 for half precision. Files that are not safetensors count with their file size.
    """
    return footprint.footprint(_resolve(name_or_path), float_bytes)


def check_memory(
    name_or_path: str | Path, *, float_bytes: int | None = None, device: torch.device | None = None
) -> None:
    """Raise `ResourceError` if `memory` bytes are not available, on `device` if it is a CUDA device.

    For callers that load the files themselves, as pipelines do. `load` already checks.
    """
    footprint.check(_resolve(name_or_path), str(name_or_path), float_bytes, device)


def fingerprint(name_or_path: str | Path) -> str:
    """The hash of the weights, for recipes.

    It is the sha256 of a file, or for a folder the sha256 of the sorted names and hashes of its files.
    """
    path = _resolve(name_or_path).absolute()
    return pipelines.fingerprint(path) if path.is_dir() else installation.sha256(path)


def pull(name: str, progress: Progress | None = None) -> Path:
    """Download and install the weights called `name`. Returns their path.

    Does nothing if they are already installed and intact. Each file comes from the first source that works.
    `progress` is called with the bytes downloaded and the total (None: unknown). If it raises an exception,
    the download stops, and the next call resumes it. Raises `WeightsError` if no source works and
    `OutputError` if the disk is full.
    """
    from atelier.store import pulling  # late: every method imports this module, but few runs use HTTP

    known = record(name)
    packaged = _packaged(known)
    if packaged is not None and packaged.is_file():
        return packaged
    shelf = shelf_of(known)
    if shelf.condition() in ("verified", "unverified"):  # before locking, which fails in a read-only cache
        return shelf.weights
    with shelf.locked():
        # Check again: another process may have installed them while this one waited for the lock.
        if shelf.condition() in ("verified", "unverified"):
            return shelf.weights
        return pulling.pull(known, shelf, progress)


def add(name: str, path: str | Path, *, force: bool = False) -> Path:
    """Install the user's own copy as the weights called `name`: a file, or a folder for several files.

    Returns the installed file or folder. Raises `WeightsError` if a file is missing or is not a checkpoint,
    or, without `force`, if its hash differs from the published one.
    """
    known, path = record(name), Path(path)
    if where(name) == _packaged(known):
        raise WeightsError(
            f"{name} is bundled with the package and cannot be replaced: pass your own file to a method by "
            f"its path, for example --encoder {path}"
        )
    files = _brought(known, path)
    if not force:
        for part in known.parts:
            found = installation.sha256(files[part.name].absolute())
            if part.check(found) == "wrong":
                raise WeightsError(
                    f"{files[part.name]} is not the published {part.name} of {name}: it has sha256 {found}, "
                    f"not {part.hash}; download it again, or add it anyway with --force"
                )
    shelf = shelf_of(known)
    with shelf.locked():
        return shelf.add(files, f"added from {path.name}")


def verify(name: str | None = None) -> list[tuple[str, Condition]]:
    """The name and condition of the weights called `name`, or of all weights. Hashes all files.

    "verified" weights are the published files. "unverified" weights are intact since installation, but have
    no published hash, or were added with `force`.
    """
    chosen: Sequence[Record] = records() if name is None else [record(name)]
    return [(known.name, _condition(known)) for known in chosen]


def recorded(name: str) -> Condition:
    """As `verify` for one name, but from the records of the installation: fast, and misses damage."""
    known = record(name)
    packaged = _packaged(known)
    if packaged is not None and packaged.is_file():
        return "verified"
    return shelf_of(known).recorded()


def shelf_of(known: Record) -> Shelf:
    """The cache folder for the weights of a record."""
    return pipelines.PipelineShelf(known) if known.kind == "pipeline" else TensorShelf(known)


def _brought(known: Record, path: Path) -> dict[str, Path]:
    """The user's files by their published names, after checking that all exist in the right format."""
    if known.file:
        files = {known.file: path}
    else:
        if not path.is_dir():
            raise WeightsError(
                f"{path} is not a folder: {known.name} has {known.what}; use the folder that contains them"
            )
        files = {part.name: path / part.name for part in known.parts}
        if absent := [name for name, file in files.items() if not file.is_file()]:
            raise WeightsError(
                f"{path} lacks {len(absent)} of the {known.what} of {known.name} ({absent[0]}): "
                "add the whole folder"
            )
    for file in files.values():
        if known.kind == "tensors":
            checkpoints.examine(file)
        elif file.suffix == ".safetensors":
            checkpoints.check_safetensors(file)
    return files


def _packaged(known: Record) -> Path | None:
    return None if known.bundled is None else installation.PACKAGED / known.bundled


def _condition(known: Record) -> Condition:
    packaged = _packaged(known)
    if packaged is None or not packaged.is_file():
        return shelf_of(known).condition()
    return installation.bundled_condition(packaged)


def _resolve(name_or_path: str | Path) -> Path:
    """The path of the file or folder, after checking that it exists in the right format."""
    if not is_path(name_or_path):
        return locate(str(name_or_path))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return pipelines.own_folder(path)
    if not path.is_file():
        raise WeightsError(
            f"there is no weights file {path}: check the path, or use the name of known weights"
        )
    return path


def _file(name_or_path: str | Path) -> Path:
    """The path of a single file. Raises `WeightsError` for a folder."""
    path = Path(name_or_path).expanduser() if is_path(name_or_path) else locate(str(name_or_path))
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: use a single file of weights")
    return _resolve(name_or_path)


def is_path(given: str | Path) -> bool:
    """Whether `given` is the path of a file or folder instead of the name of a record."""
    if not isinstance(given, str):
        return True
    if given in (known.name for known in records()):
        return False
    return os.sep in given or "/" in given or given.lower().endswith(_SUFFIXES) or Path(given).exists()


def _missing(known: Record, path: Path) -> str:
    ways = []
    if all(part.sources for part in known.parts):
        ways.append(f"download them with `atelier weights pull {known.name}`")
    ways.append(known.by_hand)
    if known.bundled is not None:
        ways = ["reinstall atelier, which includes them", *ways]
    return f"the weights {known.name} are not installed (no {path}): {', or '.join(ways)}"
