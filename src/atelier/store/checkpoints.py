"""Checkpoint files: recognised by their contents, read without running code, and unwrapped.

Most published networks are pickles. They are read with `weights_only=True`, which allows only tensors and
plain containers. For a file that is not a checkpoint, the error message says what it is.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from atelier.core.errors import WeightsError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal[
    "safetensors", "zip", "pickle", "tensorflow", "tar", "manifest", "html", "lfs", "empty", "unknown"
]
State = dict[str, "Tensor"]
Converter = Callable[[State], State]

HEAD = 1024
_CONTAINERS = ("state_dict", "model_state_dict", "params_ema", "params", "model", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.")
_CHECKPOINTS = ("safetensors", "zip", "pickle", "tensorflow", "tar", "manifest")
_MARKUP = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--", b"<error")
# Allowed excess of the tensors' nominal size over the file size: a stride of zero can repeat one value.
_SLACK = 64 << 20

_CONVERTERS: dict[str, Converter] = {}


def register_converter(name: str, converter: Converter) -> None:
    """Register `converter`, a function from published to stored tensors, under `name` for use in records."""
    if name in _CONVERTERS:
        raise WeightsError(f"there is already a converter called '{name}': choose another name")
    _CONVERTERS[name] = converter


def converter(name: str) -> Converter:
    """The converter called `name`. Raises `WeightsError` if there is none."""
    if name not in _CONVERTERS:
        raise WeightsError(f"there is no converter '{name}': {did_you_mean(name, _CONVERTERS)}")
    return _CONVERTERS[name]


def sniff(head: bytes) -> Kind:
    """The kind of a file that begins with `head`, regardless of its name.

    >>> sniff(b"<!DOCTYPE html><title>Sign in</title>"), sniff(b"PK" + bytes([3, 4]) + b"archive/data.pkl")
    ('html', 'zip')
    """
    if not head:
        return "empty"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100 << 20:
        return "safetensors"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")) or head[257:262] == b"ustar":
        return "tar"
    if head.lstrip()[:1] == b"{" and b'"filename"' in head:
        return "manifest"
    if head.startswith(b"version https://git-lfs"):
        return "lfs"
    return "html" if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_MARKUP) else "unknown"


def is_cut(path: Path) -> bool:
    """Whether a zip or safetensors file is truncated. An old-style pickle shows this only when read."""
    import zipfile  # slow to import, and every method imports this module

    with path.open("rb") as file:
        kind = sniff(file.read(HEAD))
    if kind == "zip":
        return not zipfile.is_zipfile(path)
    if kind == "safetensors":
        return path.stat().st_size < _promised_size(path)
    return False


def examine(path: Path) -> Kind:
    """The kind of the checkpoint at `path`. Checks for truncation, but does not read the tensors.

    Raises `WeightsError` for a file that is missing, truncated or not a checkpoint.
    """
    # Imported late because of NumPy: every method imports this module.
    from atelier.store import tensorflow

    try:
        with path.open("rb") as file:
            kind = sniff(file.read(HEAD))
        if kind in ("unknown", "safetensors") and tensorflow.is_table(path):
            return "tensorflow"  # its signature is at the end
        cut = is_cut(path)
    except OSError as error:
        raise WeightsError(
            f"the weights file {path} cannot be read ({error.strerror}): check its path and permissions"
        ) from error
    if kind not in _CHECKPOINTS:
        raise WeightsError(f"{path} {_refusal(kind)}")
    if cut:
        raise WeightsError(_truncated(path))
    return kind


def read_checkpoint(path: Path | str) -> State:
    """Read tensors from safetensors, a torch pickle, TorchScript, or TensorFlow, also in a tar archive.

    A manifest.json of deeplearn.js is read with the files of variables beside it.
    Containers such as {"state_dict": ...} are unwrapped, prefixes that wrappers add to every name
    (`module.`) are removed, and names in nested containers are joined with dots. Raises `WeightsError` for
    anything else, including code in a pickle.
    """
    path = Path(path)
    kind = examine(path)
    if kind == "safetensors":
        state = _read_safetensors(path)
    elif kind in ("tensorflow", "tar", "manifest"):
        state = _read_tensorflow(path)
    else:
        state = _read_pickle(path, kind)
    if not state:
        raise WeightsError(f"{path} contains no tensors: use the file with the network's weights")
    return _without_prefixes(state)


def check_state(
    expected: Mapping[str, Sequence[int]], got: Mapping[str, Tensor], what: str = "the network"
) -> None:
    """Raise `WeightsError` unless `got` has exactly the expected names and shapes."""
    missing = [name for name in expected if name not in got]
    extra = [name for name in got if name not in expected]
    wrong = [
        f"{name} is {tuple(got[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in got and tuple(got[name].shape) != tuple(shape)
    ]
    problems = [
        f"{len(names)} of {len(expected if names is not extra else got)} tensors {verb} ({_some(names)})"
        for names, verb in ((missing, "are missing"), (extra, "are unexpected"), (wrong, "differ in shape"))
        if names
    ]
    if problems:
        raise WeightsError(f"these weights do not fit {what}: {'; '.join(problems)}; use weights made for it")


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for other files."""
    if examine(path) != "safetensors":
        return {}
    return {str(key): str(value) for key, value in (_header(path).get("__metadata__") or {}).items()}


def read_tensors(path: Path) -> dict[str, dict[str, Any]]:
    """The dtype, shape and data_offsets of each tensor of a safetensors file, from its header."""
    return {key: value for key, value in _header(path).items() if key != "__metadata__"}


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that the same tensors and metadata always give, byte for byte.

    The package safetensors sorts the tensors but not the metadata.
    """
    with path.open("wb") as file:
        header, tensors = _laid_out(state, metadata)
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors:
            file.write(_raw(tensor))


def tensor_bytes(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
    """The header of such a file, with its length in front, and the bytes after it; for small files."""
    header, tensors = _laid_out(state, metadata)
    return len(header).to_bytes(8, "little") + header, b"".join(map(_raw, tensors))


def _laid_out(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, list[Tensor]]:
    """The header, and the tensors in the order of safetensors: large numbers first, then by name."""
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        one = state[name]
        start, end = end, end + one.numel() * one.element_size()
        kind = _NAMES[str(one.dtype).removeprefix("torch.")]
        table[name] = {"dtype": kind, "shape": list(one.shape), "data_offsets": [start, end]}
    header = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    return header + b" " * (-len(header) % 8), [state[name] for name in names]


_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "uint8": "U8"}
_NAMES |= {"int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "bool": "BOOL"}


def _raw(tensor: Tensor) -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy())


def check_safetensors(path: Path) -> None:
    """Raise `WeightsError` if the safetensors file is damaged. Reads only the header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise WeightsError(_damaged(path, error)) from error


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except ValueError as error:
        raise WeightsError(f"{path} {_refusal('unknown')}") from error
    return header if isinstance(header, dict) else {}


def _promised_size(path: Path) -> int:
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    if path.stat().st_size < start:
        return start
    tensors = [value for key, value in _header(path).items() if key != "__metadata__"]
    try:
        return start + max((int(tensor["data_offsets"][1]) for tensor in tensors), default=0)
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"{path} {_refusal('unknown')}") from error


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(_damaged(path, error)) from error


def _read_tensorflow(path: Path) -> State:
    import torch

    from atelier.store import tensorflow

    return {name: torch.from_numpy(array) for name, array in tensorflow.read(path).items()}


def _read_pickle(path: Path, kind: Kind) -> State:
    import torch

    from atelier.store import torchscript

    if kind == "zip":
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols that torch does not write
            scripted = kind == "zip" and torchscript.is_torchscript(path)
            load = (
                torchscript.read if scripted else partial(torch.load, map_location="cpu", weights_only=True)
            )
            content = load(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(_refused_pickle(path, error)) from error
    except Exception as error:  # damaged pickles can raise anything
        raise WeightsError(_unreadable(path, error)) from error
    state = dict(_flatten(_unwrap(content)))
    _check_tensors(path, state)
    return state


def _check_archive(path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if "data.pkl" not in names:
        raise WeightsError(f"{path} is a zip archive, not a checkpoint: unpack it and use the file inside")


def _unwrap(content: Any) -> Any:
    for _ in range(3):
        inner = [content[key] for key in _CONTAINERS if isinstance(content, Mapping) and key in content]
        if not inner or not isinstance(inner[0], Mapping):
            break
        content = inner[0]
    return content


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    import torch

    if isinstance(content, torch.Tensor):
        yield prefix.removesuffix(".") or "tensor", content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _flatten(value, f"{prefix}{key}.")


def _check_tensors(path: Path, state: State) -> None:
    import torch

    for name, tensor in state.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu":
            raise WeightsError(f"{path} contains {name} without dense values: save it as a dense CPU tensor")
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if claimed > 4 * path.stat().st_size + _SLACK:
        raise WeightsError(
            f"{path} claims {claimed >> 20} MiB of tensors but is far smaller: it is not trustworthy"
        )


def _without_prefixes(state: State) -> State:
    for prefix in _PREFIXES * 2:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _refusal(kind: Kind) -> str:
    if kind == "html":
        return "is a web page (a login, consent or error page), not weights: download the file itself"
    if kind == "lfs":
        return "is a Git LFS pointer, not the weights: run `git lfs pull` in the repository it came from"
    if kind == "empty":
        return "is empty: download it again"
    return (
        "is not a checkpoint: supported are safetensors (.safetensors), PyTorch files (.pth, .pt, .ckpt) and "
        "TensorFlow checkpoints (.index, .ckpt, .tar.gz)"
    )


def _truncated(path: Path) -> str:
    return f"{path} is truncated: download it again"


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is a damaged safetensors file ({error}): download it again"


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, EOFError) or re.search("EOF|truncated|Ran out of input", str(error)):
        return _truncated(path)
    return f"{path} is damaged or not a checkpoint: download it again"


def _refused_pickle(path: Path, error: Exception) -> str:
    found = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
    if found is None and "nsupported" not in str(error):
        return _unreadable(path, error)
    what = f"Python code ({found[1]})" if found else "more than tensors"
    return (
        f"{path} contains {what}, which could run anything when loaded, so it is rejected: "
        "save only the network's state_dict, preferably as safetensors"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _as_published(state: State) -> State:
    return state


def _features_only(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}


register_converter("plain", _as_published)
register_converter("features", _features_only)
