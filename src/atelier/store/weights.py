"""Pretrained weights: what is known of them, where they are, and how they are fetched on request.

There are three kinds, and callers need not know which: bundled with the package, published and kept in the
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
    """The path where the weights called `name` lie or would lie: a file, or the folder of a pipeline."""
    known = record(name)
    packaged = _packaged(known)
    return packaged if packaged is not None and packaged.is_file() else shelf_of(known).weights


def installed(name: str) -> bool:
    """Whether the weights called `name` are on this machine; `verify` says whether they are whole."""
    known = record(name)
    packaged = _packaged(known)
    return (packaged is not None and packaged.is_file()) or shelf_of(known).is_installed()


def locate(name: str) -> Path:
    """The file, or the folder of a pipeline, called `name`; nothing is downloaded.

    Raises `WeightsError` where it is missing, with the command that fetches it.
    """
    if not installed(name):
        raise WeightsError(_missing(record(name), where(name)))
    return where(name)


def load(name_or_path: str | Path) -> dict[str, Tensor]:
    """The tensors of the weights of that name, or in the file of that path, on the CPU.

    Raises `WeightsError` where there are none or the file is damaged or holds code, and `ResourceError`
    where they would not fit into the available memory.
    """
    path = _file(name_or_path)
    footprint.check(path, str(name_or_path))
    return checkpoints.read_checkpoint(path)


def metadata(name_or_path: str | Path) -> dict[str, str]:
    """What the maker wrote into the safetensors file beside its tensors; empty for other files."""
    return checkpoints.read_metadata(_file(name_or_path))


def folder(name_or_path: str | Path) -> Path:
    """The folder of the pipeline of that name, or the user's own folder at that path.

    Raises `WeightsError` for weights that are no pipeline, or are not here.
    """
    path = _resolve(name_or_path)
    if not path.is_dir():
        raise WeightsError(f"{path} is a file, and a folder of weights (a pipeline) is needed here")
    return path


def memory(name_or_path: str | Path, *, float_bytes: int | None = None) -> int:
    """The bytes that the weights take in memory once loaded.

    `float_bytes` is the size of a number where floating-point tensors are converted on loading: 2 for half
    precision. Files that are not safetensors count as long as they are.
    """
    return footprint.footprint(_resolve(name_or_path), float_bytes)


def check_memory(
    name_or_path: str | Path, *, float_bytes: int | None = None, device: torch.device | None = None
) -> None:
    """Raises `ResourceError` if `memory` bytes are not available, on `device` if it is a CUDA device.

    For those who load the files themselves, as pipelines do; `load` checks by itself.
    """
    footprint.check(_resolve(name_or_path), str(name_or_path), float_bytes, device)


def fingerprint(name_or_path: str | Path) -> str:
    """The hash of what would be loaded, for recipes.

    For one file its sha256; for a folder, the sha256 of the sorted names and hashes of its files.
    """
    path = _resolve(name_or_path).absolute()
    return pipelines.fingerprint(path) if path.is_dir() else installation.sha256(path)


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch the weights called `name`, each file from the first source that gives it; where they now lie.

    Does nothing where they are already here and whole. `progress` is called with the bytes that have arrived
    and the bytes in all (None: unknown); what it raises stops the download, which the next call continues.
    Raises `WeightsError` when no source works, `OutputError` on a full disk.
    """
    from atelier.store import pulling  # late: every method's file imports this module, and few runs use HTTP

    known = record(name)
    packaged = _packaged(known)
    if packaged is not None and packaged.is_file():
        return packaged
    shelf = shelf_of(known)
    if shelf.condition() in ("verified", "unverified"):  # before the lock, which a read-only cache refuses
        return shelf.weights
    with shelf.locked():
        # Again: another process may have fetched them while this one waited for the lock.
        if shelf.condition() in ("verified", "unverified"):
            return shelf.weights
        return pulling.pull(known, shelf, progress)


def add(name: str, path: str | Path, *, force: bool = False) -> Path:
    """Install the user's own copy as the weights called `name`: a file, or a folder for several files.

    Returns the installed file or folder. Raises `WeightsError` for a file that is missing or no checkpoint,
    or whose hash is not the published one unless `force`.
    """
    known, path = record(name), Path(path)
    if where(name) == _packaged(known):
        raise WeightsError(
            f"{name} comes with the package and stays as it is: methods take your own file by its path, "
            f"as in --encoder {path}"
        )
    files = _brought(known, path)
    if not force:
        for part in known.parts:
            found = installation.sha256(files[part.name].absolute())
            if part.check(found) == "wrong":
                raise WeightsError(
                    f"{files[part.name]} is not the published {part.name} of {name}: it has sha256 {found}, "
                    f"not {part.hash}; fetch it again, or add it anyway with --force"
                )
    shelf = shelf_of(known)
    with shelf.locked():
        return shelf.add(files, f"added from {path.name}")


def verify(name: str | None = None) -> list[tuple[str, Condition]]:
    """The name and the condition of the weights called `name`, or of all, by hashing them again.

    "verified" are the published files; "unverified" are whole as they were installed, but no hash of the
    published files is known, or `add` was forced.
    """
    chosen: Sequence[Record] = records() if name is None else [record(name)]
    return [(known.name, _condition(known)) for known in chosen]


def recorded(name: str) -> Condition:
    """As `verify` for one name, from what was recorded at installation: quick, but damage is not seen."""
    known = record(name)
    packaged = _packaged(known)
    if packaged is not None and packaged.is_file():
        return "verified"
    return shelf_of(known).recorded()


def shelf_of(known: Record) -> Shelf:
    """The place of a record's weights in the cache."""
    return pipelines.PipelineShelf(known) if known.kind == "pipeline" else TensorShelf(known)


def _brought(known: Record, path: Path) -> dict[str, Path]:
    """The user's files by their published names, each there and of the right form."""
    if known.file:
        files = {known.file: path}
    else:
        if not path.is_dir():
            raise WeightsError(
                f"{path} is not a folder: {known.name} has {known.what}, so give the folder that holds them"
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
    """The file or the folder, which is there and has the right form."""
    if not is_path(name_or_path):
        return locate(str(name_or_path))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return pipelines.own_folder(path)
    if not path.is_file():
        raise WeightsError(
            f"there is no weights file {path}: check the path, or give the name of known weights"
        )
    return path


def _file(name_or_path: str | Path) -> Path:
    """The file; a folder has no tensors of its own."""
    path = Path(name_or_path).expanduser() if is_path(name_or_path) else locate(str(name_or_path))
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, and one file of weights is needed here: give the file")
    return _resolve(name_or_path)


def is_path(given: str | Path) -> bool:
    """Whether `given` means a file or folder rather than the name of a record."""
    if not isinstance(given, str):
        return True
    if given in (known.name for known in records()):
        return False
    return os.sep in given or "/" in given or given.lower().endswith(_SUFFIXES) or Path(given).exists()


def _missing(known: Record, path: Path) -> str:
    ways = []
    if all(part.sources for part in known.parts):
        ways.append(f"fetch them with `atelier weights pull {known.name}`")
    ways.append(known.by_hand)
    if known.bundled is not None:
        ways = ["they come with the package, so install atelier again", *ways]
    return f"the weights {known.name} are not here (looked at {path}): {', or '.join(ways)}"
