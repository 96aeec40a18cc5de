"""The memory use of weights, computed before loading them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core import memory
from atelier.store import checkpoints, pipelines

if TYPE_CHECKING:
    import torch


def footprint(path: Path, float_bytes: int | None = None) -> int:
    """The size in memory, in bytes, of the weights at `path`, a file or a pipeline folder.

    Floating-point numbers in safetensors files count `float_bytes` each if that is given, otherwise their
    stored size. Other files count with their file size. In a folder, a variant such as
    `model.fp16.safetensors` counts only if its component has no plain file.
    """
    if path.is_dir():
        files = [file for file in pipelines.files_in(path).values() if file.suffix == ".safetensors"]
        return sum(footprint(file, float_bytes) for file in _loaded(files))
    if checkpoints.examine(path) != "safetensors":
        return path.stat().st_size
    return sum(_bytes(tensor, float_bytes) for tensor in checkpoints.read_tensors(path).values())


def check(path: Path, what: str, float_bytes: int | None = None, device: torch.device | None = None) -> None:
    """Raise `ResourceError` if the weights at `path` do not fit into the available memory."""
    needed = footprint(path, float_bytes)
    remedy = "close other programs, or use smaller weights or a machine with more memory"
    memory.check(needed, f"Loading {what}", remedy=remedy, device=device)


def _loaded(files: list[Path]) -> list[Path]:
    """The files that are loaded: no variants of components that also have a plain file."""
    plain = {file.parent for file in files if "." not in file.stem}
    return [file for file in files if "." not in file.stem or file.parent not in plain]


def _bytes(tensor: Mapping[str, Any], float_bytes: int | None) -> int:
    kind = str(tensor["dtype"])
    first, last = tensor["data_offsets"]
    if float_bytes is None or not kind.startswith(("F", "BF")):
        return int(last) - int(first)
    return int(math.prod(tensor["shape"])) * float_bytes
