"""TensorFlow checkpoints, written by a small writer that follows the format's documentation."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atelier.core.errors import WeightsError
from atelier.store import checkpoints
from atelier.store.tensorflow import is_table, read

Array = npt.NDArray[Any]
KINDS = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "float16": 19}
MAGIC = 0xDB4775248B80FB57

ARRAYS: dict[str, Array] = {
    "Conv/biases": np.arange(5, dtype=np.float32),
    "Conv/weights": np.random.default_rng(0).normal(size=(3, 2, 1, 300)).astype(np.float32),
    "global_step": np.array(70_000, np.int64),
    "half": np.linspace(0, 1, 7, dtype=np.float16),
    "exact": np.linspace(0, 1, 7),
    "nothing": np.zeros((0, 3), np.float32),
}


# a writer


def varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def crc32c(content: bytes) -> int:
    """CRC-32C bit by bit: the reflected Castagnoli polynomial, as in RFC 3720."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def masked(content: bytes) -> bytes:
    value = crc32c(content)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def shape(array: Array) -> bytes:
    return b"".join(field(2, field(1, side)) for side in array.shape)


def block(entries: list[tuple[bytes, bytes]], every: int = 4) -> bytes:
    """Entries share the beginning of their keys with the one before, but for every few."""
    content, restarts, last = b"", [], b""
    for index, (key, value) in enumerate(entries):
        common = 0
        if index % every == 0:
            restarts.append(len(content))
        else:
            while common < min(len(key), len(last)) and key[common] == last[common]:
                common += 1
        content += varint(common) + varint(len(key) - common) + varint(len(value)) + key[common:] + value
        last = key
    return content + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def snapped(content: bytes) -> bytes:
    """Packed as Snappy does it, with each of its pieces: literals short and long, copies near and far."""
    packed, position, limit = varint(len(content)), 0, 70
    while position < len(content):
        size = 12
        while size > 3:
            back = position - content.rfind(content[position : position + size], 0, position + size - 1)
            if len(content) - position >= size and 0 < back <= position:
                break
            size -= 1
        if size > 3 and back < 2048 and size < 12:
            packed += bytes([back >> 8 << 5 | size - 4 << 2 | 1, back & 0xFF])
        elif size > 3:
            packed += bytes([size - 1 << 2 | 2]) + struct.pack("<H", back)
        else:
            size, limit = min(limit, len(content) - position), 130 - limit
            head = [size - 1 << 2] if size <= 60 else [60 << 2, size - 1]
            packed += bytes(head) + content[position : position + size]
        position += size
    return packed


def table(entries: list[tuple[bytes, bytes]], per_block: int = 3, compressed: bool = False) -> bytes:
    content, index = b"", []

    def add(part: bytes) -> bytes:
        nonlocal content
        part = snapped(part) if compressed else part
        handle = varint(len(content)) + varint(len(part))
        trailed = part + bytes([compressed])
        content += trailed + masked(trailed)
        return handle

    for start in range(0, len(entries), per_block):
        some = entries[start : start + per_block]
        index.append((some[-1][0], add(block(some))))
    handles = add(block([])) + add(block(index))
    return content + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def bundle(arrays: dict[str, Array], path: Path, shards: int = 1, **more: Any) -> None:
    """`path`.index and its data files; variables go to the files in turn."""
    data = [b""] * shards
    entries = [(b"", field(1, shards) + field(3, field(1, 1)))]
    for turn, (name, array) in enumerate(sorted(arrays.items())):
        shard, raw = turn % shards, array.tobytes()
        entry = field(1, KINDS[array.dtype.name]) + field(2, shape(array)) + field(3, shard)
        entry += field(4, len(data[shard])) + field(5, len(raw)) + varint(6 << 3 | 5) + masked(raw)
        data[shard] += raw
        entries.append((name.encode(), entry))
    entries.append((b"zz_graph", field(1, 7) + field(5, 3)))
    path.with_name(f"{path.name}.index").write_bytes(table(entries, **more))
    for number, raw in enumerate(data):
        path.with_name(f"{path.name}.data-{number:05d}-of-{shards:05d}").write_bytes(raw)


def single(arrays: dict[str, Array], path: Path, pieces: int = 1) -> None:
    metas, entries = b"", []
    for number, (name, array) in enumerate(sorted(arrays.items())):
        kind = field(3, KINDS[array.dtype.name])
        metas += field(1, field(1, name.encode()) + field(2, shape(array)) + kind)
        for piece in range(pieces):
            part = array.reshape(-1)[piece::pieces]
            where = {"float32": 5, "float64": 6}.get(array.dtype.name)
            tensor = field(where, part.tobytes()) if where else field(10, varint(int(part.sum())))
            value = field(2, field(1, name.encode()) + field(2, field(1, b"")) + field(3, tensor))
            entries.append((b"\0" + bytes([number, piece]), value))
    path.write_bytes(table([(b"", field(1, metas)), *entries]))


# reading


def same(found: dict[str, Array], expected: dict[str, Array]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].shape == array.shape
        and found[name].dtype == array.dtype
        and np.array_equal(found[name], array)
        for name, array in expected.items()
    )


@pytest.mark.parametrize("shards", [1, 2])
def test_a_bundle(tmp_path: Path, shards: int) -> None:
    bundle(ARRAYS, tmp_path / "model.ckpt", shards)
    assert is_table(tmp_path / "model.ckpt.index")
    assert not is_table(tmp_path / f"model.ckpt.data-00000-of-{shards:05d}")
    assert same(read(tmp_path / "model.ckpt.index"), ARRAYS)


def test_a_compressed_table(tmp_path: Path) -> None:
    more = {f"layer{number}/BatchNorm/moving_mean": np.full(4, number, np.float32) for number in range(40)}
    bundle(ARRAYS | more, tmp_path / "plain")
    bundle(ARRAYS | more, tmp_path / "packed", per_block=50, compressed=True)
    assert (tmp_path / "packed.index").stat().st_size < (tmp_path / "plain.index").stat().st_size
    assert same(read(tmp_path / "packed.index"), ARRAYS | more)


def test_an_older_single_file(tmp_path: Path) -> None:
    floats = {name: array for name, array in ARRAYS.items() if array.dtype.kind == "f" and array.size}
    floats.pop("half")
    single({**floats, "global_step": ARRAYS["global_step"]}, tmp_path / "model.ckpt")
    assert same(read(tmp_path / "model.ckpt"), floats)


@pytest.mark.parametrize("form", ["bundle", "single"])
def test_an_archive(tmp_path: Path, form: str) -> None:
    some = {name: ARRAYS[name] for name in ("Conv/weights", "Conv/biases")}
    (bundle if form == "bundle" else single)(some, tmp_path / "model.ckpt")
    (tmp_path / "model.ckpt.meta").write_bytes(b"a graph")
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        for path in sorted(tmp_path.glob("model.ckpt*")):
            archive.add(path, f"folder/{path.name}")
    assert same(read(tmp_path / "all.tar.gz"), some)


def test_it_is_read_as_any_checkpoint_is(tmp_path: Path) -> None:
    some = {name: ARRAYS[name] for name in ("Conv/weights", "Conv/biases")}
    single(some, tmp_path / "single.ckpt")
    bundle(some, tmp_path / "model.ckpt")
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        for path in sorted(tmp_path.glob("model.ckpt*")):
            archive.add(path, path.name)
    for name, kind in (
        ("single.ckpt", "tensorflow"),
        ("model.ckpt.index", "tensorflow"),
        ("all.tar.gz", "tar"),
    ):
        assert checkpoints.examine(tmp_path / name) == kind
        state = checkpoints.read_checkpoint(tmp_path / name)
        assert same({name: tensor.numpy() for name, tensor in state.items()}, some)


def test_a_tar_archive_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "notes.txt", "notes.txt")
    with pytest.raises(WeightsError, match="contains 0 TensorFlow checkpoints"):
        checkpoints.read_checkpoint(tmp_path / "all.tar.gz")


def test_two_checkpoints_in_an_archive(tmp_path: Path) -> None:
    for name in ("a.ckpt", "b.ckpt"):
        single({"x": np.ones(3, np.float32)}, tmp_path / name)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for name in ("a.ckpt", "b.ckpt"):
            archive.add(tmp_path / name, name)
    with pytest.raises(WeightsError, match="contains 2 TensorFlow checkpoints instead of one"):
        read(tmp_path / "all.tar")


# what is refused


def test_a_missing_data_file(tmp_path: Path) -> None:
    bundle(ARRAYS, tmp_path / "model.ckpt")
    (tmp_path / "model.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(WeightsError, match=r"\.index file next to its \.data file"):
        read(tmp_path / "model.ckpt.index")


@pytest.mark.parametrize("cut", [0, 1, 40, 200])
def test_a_cut_index(tmp_path: Path, cut: int) -> None:
    bundle(ARRAYS, tmp_path / "model.ckpt")
    index = tmp_path / "model.ckpt.index"
    # The end is there, what is before it is not.
    index.write_bytes(index.read_bytes()[cut + 1 :])
    with pytest.raises(WeightsError):
        read(index)


def test_cut_data(tmp_path: Path) -> None:
    bundle(ARRAYS, tmp_path / "model.ckpt")
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="not a TensorFlow checkpoint"):
        read(tmp_path / "model.ckpt.index")


def test_slices(tmp_path: Path) -> None:
    single({"x": np.ones(4, np.float32)}, tmp_path / "model.ckpt", pieces=2)
    with pytest.raises(WeightsError, match="in slices"):
        read(tmp_path / "model.ckpt")


@pytest.mark.parametrize("content", [b"", b"no table", b"\x1f\x8b broken", bytes(500)])
def test_another_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    assert not is_table(path)
    with pytest.raises(WeightsError, match="not a TensorFlow checkpoint"):
        read(path)


def test_the_writers_checksum_is_the_published_one() -> None:
    # RFC 3720, appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def flipped(whole: bytes, position: int) -> bytes:
    return whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :]


FEW = {name: ARRAYS[name] for name in ("Conv/biases", "global_step", "half")}


@pytest.mark.parametrize("compressed", [False, True])
def test_a_flip_anywhere_in_the_index_is_found(tmp_path: Path, compressed: bool) -> None:
    bundle(FEW, tmp_path / "model.ckpt", compressed=compressed)
    index = tmp_path / "model.ckpt.index"
    whole, unread = index.read_bytes(), []
    for position in range(len(whole)):
        index.write_bytes(flipped(whole, position))
        try:
            assert same(read(index), FEW)
            unread.append(position)
        except WeightsError:
            continue
    # The two handles in the footer have 6 bytes here; the rest of its first 40 is padding.
    assert unread == list(range(len(whole) - 48 + 6, len(whole) - 8))


@pytest.mark.parametrize("where", [0, 0.3, 0.9, 1])
def test_a_flip_in_the_values_is_found(tmp_path: Path, where: float) -> None:
    bundle(ARRAYS, tmp_path / "model.ckpt")
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(flipped(whole, round(where * (len(whole) - 1))))
    with pytest.raises(WeightsError, match="is damaged or not a TensorFlow checkpoint"):
        read(tmp_path / "model.ckpt.index")


def test_a_flip_in_an_older_file_is_found(tmp_path: Path) -> None:
    single({"x": np.ones(9, np.float32)}, tmp_path / "model.ckpt")
    whole = (tmp_path / "model.ckpt").read_bytes()
    position = whole.index(np.ones(9, np.float32).tobytes()) + 6
    (tmp_path / "model.ckpt").write_bytes(flipped(whole, position))
    with pytest.raises(WeightsError, match="is damaged or not a TensorFlow checkpoint"):
        read(tmp_path / "model.ckpt")
