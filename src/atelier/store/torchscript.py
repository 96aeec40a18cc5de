"""The tensors of a TorchScript archive, such as OpenAI's CLIP files, read without running its code.

The archive is a zip with a pickle of the objects, a file for each storage, and Python code. Only tensors,
numbers and containers are taken from the pickle; the code is never read.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = {
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
}


class _Object:
    """A module of the archive: its attributes, and nothing of its code."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


def is_torchscript(path: Path) -> bool:
    """Whether a zip file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of the archive by name. Raises pickle.UnpicklingError for anything else in its pickle."""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(name) as file:
            module = _Reader(file, archive, name.removesuffix("data.pkl")).load()
    return dict(_tensors(module, ""))


class _Reader(pickle.Unpickler):
    """Builds tensors from the archive's storages, and refuses every other class and function."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Object
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return _first
        raise pickle.UnpicklingError(f"Unsupported class {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        import torch

        _, kind, key, _, count = pid
        if key not in self.storages:
            entry = self.archive.getinfo(f"{self.folder}data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise EOFError(f"storage {key} is compressed")  # it might unpack to any size
            data = bytearray(self.archive.read(entry))
            dtype = getattr(torch, _DTYPES[kind])
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        storage = self.storages[key]
        if storage.numel() != count:
            raise EOFError(f"storage {key} has {storage.numel()} values instead of {count}")
        return storage


def _first(value: Any, *_: Any) -> Any:
    return value


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _tensors(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    import torch

    if isinstance(value, torch.Tensor):
        yield prefix.removesuffix("."), value.clone()
    elif isinstance(value, _Object):
        for name, inner in vars(value).items():
            yield from _tensors(inner, f"{prefix}{name}.")
