"""A reader for TensorFlow checkpoints, without TensorFlow: bundles (.index and .data) and older single files.

Both are LevelDB tables with sorted keys and protocol buffers as values. In a bundle, the values give the
location of each variable in the data files; in the older format, they contain the variable. Every block of a
table and every variable of a bundle has a checksum, a masked CRC-32C, which is verified.
"""

from __future__ import annotations

import json
import math
import struct
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atelier.core.errors import WeightsError

Arrays = dict[str, npt.NDArray[Any]]

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
#: NumPy types of TensorFlow's type numbers, for the types that weights have.
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
_LARGEST = 16 << 30
_DAMAGE = (OSError, EOFError, AttributeError, LookupError, TypeError, ValueError)
_PARTS = (".index", ".data-", ".ckpt")
# LevelDB masks a checksum before storing it (rotate, then add), because data may itself contain checksums.
_MASK = 0xA282EAD8


def is_table(path: Path) -> bool:
    """Whether the file at `path` has the footer of a TensorFlow table: a bundle's index or an older file."""
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - 8))
        return length >= _FOOTER and file.read() == struct.pack("<Q", _MAGIC)


def read(path: Path) -> Arrays:
    """Read the variables of a bundle (by its .index file), an older single file, or a tar archive of either.

    A manifest.json is read by `read_manifest`. Non-numeric variables are skipped. Raises `WeightsError`
    if the file is damaged, according to its checksums, or stores variables in slices.
    """
    try:
        if is_table(path):
            return _read_table(path)
        return read_manifest(path) if path.suffix == ".json" else _read_archive(path)
    except (*_DAMAGE, struct.error, tarfile.TarError) as error:
        raise WeightsError(
            f"{path} is damaged or not a TensorFlow checkpoint: use an .index file next to its .data file, "
            "a .ckpt file, or the original published archive"
        ) from error


def read_manifest(path: Path) -> Arrays:
    """The variables that a manifest.json of deeplearn.js lists, from the files beside it, float32.

    Raises `WeightsError` if a file is missing or has another size than its shape asks for.
    """
    found: Arrays = {}
    for name, entry in json.loads(path.read_text(encoding="utf-8")).items():
        file, shape = Path(entry["filename"]), tuple(int(side) for side in entry["shape"])
        if file.name != entry["filename"]:
            raise WeightsError(f"{path} lists the file {file} in another folder: keep all files in one")
        if not (path.parent / file).is_file():
            raise WeightsError(f"{path} lists the file {file}, which is not beside it: copy it there")
        numbers = np.fromfile(path.parent / file, "<f4")
        if numbers.size != math.prod(shape):
            raise WeightsError(f"{path.parent / file} does not hold the shape {shape}: copy it again")
        found[name] = numbers.reshape(shape)
    return found


def _read_archive(path: Path) -> Arrays:
    """Read the only checkpoint in a tar archive with any compression."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
        parts = [one for one in archive if one.isfile() and any(part in one.name for part in _PARTS)]
        if sum(one.size for one in parts) > _LARGEST:
            raise WeightsError(f"{path} unpacks to more than {_LARGEST >> 30} GiB and is not trustworthy")
        archive.extractall(folder, parts, filter="data")
        tables = [one for one in sorted(Path(folder).rglob("*")) if one.is_file() and is_table(one)]
        if len(tables) != 1:
            raise WeightsError(
                f"{path} contains {len(tables)} TensorFlow checkpoints instead of one: unpack it and "
                "use the .index file of the right one"
            )
        return _read_table(tables[0])


def _read_table(path: Path) -> Arrays:
    entries = list(_table(path.read_bytes()))
    header, *rest = entries
    # The first entry has an empty key. It is a table of contents in older files, a header in bundles.
    if any(number == 1 and isinstance(value, bytes) for number, value in _fields(header[1])):
        return _single(path, header[1], [value for _, value in rest])
    prefix = path.with_suffix("")
    shards = int(_only(header[1], 1, 1))
    data = [_mapped(prefix.with_name(f"{prefix.name}.data-{n:05d}-of-{shards:05d}")) for n in range(shards)]
    found = {key.decode(): _from_bundle(path, value, data) for key, value in rest}
    return {name: array for name, array in found.items() if array is not None}


def _from_bundle(path: Path, entry: bytes, data: list[npt.NDArray[np.uint8]]) -> npt.NDArray[Any] | None:
    """The variable described by a BundleEntryProto; None if it is not numeric."""
    kind = _TYPES.get(_only(entry, 1, 0))
    if kind is None:
        return None
    if _only(entry, 7, None) is not None:
        raise WeightsError(f"{path} stores variables in slices, which is not supported: save them whole")
    start, size = _only(entry, 4, 0), _only(entry, 5, 0)
    stored = data[_only(entry, 3, 0)][start : start + size].tobytes()
    _check(stored, _only(entry, 6, bytes(4)))
    variable: npt.NDArray[Any] = np.frombuffer(stored, kind).reshape(_shape(_only(entry, 2, b""))).copy()
    return variable


def _single(path: Path, contents: bytes, values: list[bytes]) -> Arrays:
    """The variables in the older format: shapes are in the table of contents, values in the entries."""
    metas = [value for number, value in _fields(_only(contents, 1, b"")) if number == 1]
    shapes = {_only(meta, 1, b""): _shape(_only(meta, 2, b"")) for meta in metas}
    found: Arrays = {}
    for value in values:
        piece = _only(value, 2, b"")
        name, tensor = _only(piece, 1, b""), _only(piece, 3, b"")
        # TensorProto has floats in field 5 and doubles in field 6. Integers are only step counters.
        for field, kind in ((5, "<f4"), (6, "<f8")):
            numbers = b"".join(part for number, part in _fields(tensor) if number == field)
            if numbers:
                if name.decode() in found or len(numbers) != math.prod(shapes[name]) * int(kind[2]):
                    raise WeightsError(
                        f"{path} stores variables in slices, which is not supported: save them whole"
                    )
                found[name.decode()] = np.frombuffer(numbers, kind).reshape(shapes[name]).copy()
    return found


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table: an index of blocks, whose entries have prefix-compressed keys."""
    footer = content[-_FOOTER:]
    position = 0
    handles = []
    for _ in range(2):
        offset, position = _varint(footer, position)
        size, position = _varint(footer, position)
        handles.append((offset, size))
    metadata, index = handles
    list(_block(content, *metadata))  # empty, but its checksum verifies the footer
    for _, handle in _block(content, *index):
        start, after = _varint(handle, 0)
        yield from _block(content, start, _varint(handle, after)[0])


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block = content[offset : offset + size]
    _check(content[offset : offset + size + 1], content[offset + size + 1 : offset + size + 5])
    if content[offset + size]:  # some builds of TensorFlow compress blocks
        block = _unsnapped(block)
    (restarts,) = struct.unpack("<I", block[-4:])
    key, position, end = b"", 0, len(block) - 4 * (restarts + 1)
    while position < end:
        shared, position = _varint(block, position)
        unshared, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared + length
        yield key, block[position - length : position]


def _check(content: bytes, checksum: bytes) -> None:
    """Raise ValueError unless the masked CRC-32C of `content` equals `checksum` (little-endian)."""
    import google_crc32c

    plain = google_crc32c.value(content)
    masked = ((plain >> 15 | plain << 17) + _MASK) & 0xFFFFFFFF
    if checksum != struct.pack("<I", masked):
        raise ValueError("a checksum differs")


def _unsnapped(packed: bytes) -> bytes:
    """Decompress a Snappy block, which consists of literals and copies of earlier output."""
    length, position = _varint(packed, 0)
    content = bytearray()
    while position < len(packed):
        tag, position = packed[position], position + 1
        if tag & 3 == 0:
            size, more = tag >> 2, max(0, (tag >> 2) - 59)
            if more:
                size = int.from_bytes(packed[position : position + more], "little")
            position += more + size + 1
            content += packed[position - size - 1 : position]
            continue
        width = (1, 2, 4)[(tag & 3) - 1]
        size, back = (tag >> 2) + 1, int.from_bytes(packed[position : position + width], "little")
        if width == 1:
            size, back = (tag >> 2 & 7) + 4, back | tag >> 5 << 8
        position += width
        if not 0 < back <= len(content):
            raise ValueError("not packed by Snappy")
        for _ in range(size):  # byte by byte, because a copy may overlap its own output
            content.append(content[-back])
    if len(content) != length:
        raise ValueError("not packed by Snappy")
    return bytes(content)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A base-128 number with the least significant digit first, and the position after it."""
    value = shift = 0
    while True:
        digit = content[position]
        value |= (digit & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if digit < 0x80:
            return value, position


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The number and value (an integer or bytes) of each field of a protocol buffer."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        length = {1: 8, 5: 4}.get(tag & 7)
        if length is None:
            length, position = _varint(message, position)
        if tag & 7 not in (1, 2, 5) or position + length > len(message):
            raise ValueError("not a protocol buffer")
        yield tag >> 3, message[position : position + length]
        position += length


def _only(message: bytes, number: int, default: Any) -> Any:
    """The last value of a field, which is the one that counts in protocol buffers, or the default."""
    return dict(_fields(message)).get(number, default)


def _shape(message: bytes) -> tuple[int, ...]:
    """The shape in a TensorShapeProto, which has one message in field 2 for each dimension."""
    return tuple(_only(value, 1, 0) for number, value in _fields(message) if number == 2)


def _mapped(path: Path) -> npt.NDArray[np.uint8]:
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)
    return np.memmap(path, np.uint8, mode="r")
