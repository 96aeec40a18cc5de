"""Style files: a painting and the cache entries that methods computed from it, in one safetensors file.

The tensor `picture` is the painting, uint8 (H, W, 3), or (H, W, 4) with alpha. The tensors `KEY/NAME` are
cache entries under the keys that the file declares; `store.cache` uses them for that painting only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atelier.core.atomic import atomic
from atelier.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]

SUFFIX = ".safetensors"
_PICTURE = "picture"


def write(
    path: Path, pixels: Floats, alpha: Floats | None, entries: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Writes a painting (8 bits per channel) with its alpha, and cache entries by key. Raises OSError."""
    import torch
    from safetensors.torch import save_file

    layers = pixels if alpha is None else np.dstack([pixels, alpha])
    tensors = {_PICTURE: torch.from_numpy(np.rint(layers * 255).astype(np.uint8))}
    for key, entry in entries.items():
        tensors |= {f"{key}/{name}": tensor.cpu().contiguous() for name, tensor in entry.items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"atelier": "style"})


def read(path: Path) -> tuple[Floats, Floats | None, str]:
    """The painting in a style file: pixels (H, W, 3), alpha (H, W) or None, and the file's sha256.

    Raises InputError if the file does not exist or is not a style file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            pixels = file.get_tensor(_PICTURE)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
            raise InputError(_refusal(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"there is no style file '{path}': check its path") from error
    except (OSError, SafetensorError) as error:
        raise InputError(_refusal(path)) from error
    values = pixels.astype(np.float32) / 255
    return values[..., :3], values[..., 3] if values.shape[2] == 4 else None, digest


def style_entries(path: Path, sha256: str) -> dict[str, dict[str, Tensor]]:
    """The cache entries of a style file by key; empty for other files, or if the hash is not `sha256`."""
    from safetensors.torch import load

    found: dict[str, dict[str, Tensor]] = {}
    if path.suffix.lower() != SUFFIX:
        return found
    try:
        data = path.read_bytes()
    except OSError:
        return found
    if hashlib.sha256(data).hexdigest() != sha256:
        return found
    for name, tensor in load(data).items():
        key, _, part = name.partition("/")
        if part:
            found.setdefault(key, {})[part] = tensor
    return found


def _refusal(path: Path) -> str:
    return f"'{path}' is not a style file: make one with 'atelier style save PAINTING -o {path.name}'"
