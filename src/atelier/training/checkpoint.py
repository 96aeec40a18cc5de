"""Checkpoints as safetensors files: tensors keyed by path, everything else as JSON in the header.

Nothing is pickled. The state is a tree of dicts, lists and tuples with tensors, numbers, text and None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atelier.core.atomic import atomic
from atelier.core.errors import TrainingError

_NAME = re.compile(r"checkpoint-(\d+)\.(safetensors|pt)")
_KEPT = 2
_PLAIN = (bool, int, float, str, type(None))


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, without the files of secondary processes."""
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def path_of(folder: Path, step: int, process: int = 0) -> Path:
    """The path of a step's checkpoint, for the main process or for the file of a secondary process."""
    part = f"-{process}" if process else ""
    return folder / f"checkpoint-{step:07d}{part}.safetensors"


def prune(folder: Path) -> None:
    """Delete all but the newest two checkpoints, including the files of secondary processes."""
    for old in checkpoints(folder)[:-_KEPT]:
        for part in folder.glob(f"{old.stem}-*.safetensors"):
            part.unlink(missing_ok=True)
        old.unlink(missing_ok=True)


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state. Raises TrainingError for a value of an unsupported type."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    described = _described(dict(state), "state", tensors)
    with atomic(path) as temporary:
        save_file(
            tensors, temporary, metadata={"format": "atelier checkpoint 1", "state": json.dumps(described)}
        )


def read(path: Path) -> dict[str, Any]:
    """Read the state in a checkpoint, on the CPU. Also reads the `.pt` checkpoints of earlier versions.

    Damaged files raise the exceptions of safetensors and torch; other files raise ValueError.
    """
    if path.suffix == ".pt":
        return _earlier(torch.load(path, map_location="cpu", weights_only=True))
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        described = json.loads((file.metadata() or {})["state"])
        state: dict[str, Any] = _rebuilt(described, file.get_tensor)
    return state


def _described(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON; tensors go to `tensors` by path. Tagged lists encode types that JSON lacks."""
    if isinstance(value, Tensor):
        while path in tensors:  # two paths can coincide, because keys may contain slashes
            path += "+"
        # A copy: safetensors rejects tensors that share memory or are not contiguous.
        tensors[path] = value.detach().cpu().contiguous().clone()
        return ["tensor", path]
    if isinstance(value, Mapping):
        pairs = [[_key(key, path), _described(one, f"{path}/{key}", tensors)] for key, one in value.items()]
        return ["dict", pairs]
    if isinstance(value, list | tuple):
        parts = [_described(one, f"{path}/{index}", tensors) for index, one in enumerate(value)]
        return ["tuple" if isinstance(value, tuple) else "list", parts]
    if isinstance(value, _PLAIN):
        return value
    raise TrainingError(
        f"the checkpoint cannot store {path}, a {type(value).__name__}: "
        "a state can hold tensors, numbers, text, lists and dicts"
    )


def _key(key: Any, path: str) -> Any:
    if isinstance(key, str | int):
        return key
    raise TrainingError(f"the checkpoint cannot store {path}: the key {key!r} is neither text nor an integer")


def _rebuilt(described: Any, tensor: Any) -> Any:
    """The inverse of `_described`."""
    if not isinstance(described, list):
        return described
    kind, inside = described
    if kind == "tensor":
        return tensor(inside)
    if kind == "dict":
        return {key: _rebuilt(value, tensor) for key, value in inside}
    parts = [_rebuilt(value, tensor) for value in inside]
    return tuple(parts) if kind == "tuple" else parts


def _earlier(state: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a checkpoint of version 0.1, which had one network and one optimiser."""
    return {
        "networks": {"network": state["network"]},
        "averages": {"network": state["average"]},
        "optimisers": {"network": state["optimiser"]},
        "state": {},
        "step": int(state["step"]),
        "seconds": float(state["seconds"]),
        "settings": state["settings"],
        "processes": 1,
    }
