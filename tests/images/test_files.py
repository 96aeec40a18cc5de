from __future__ import annotations

import errno
import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from atelier.core.errors import InputError, OutputError, ResourceError, UsageError
from atelier.images import WRITABLE, Picture, check_writable, encode, read, read_recipe, reading, write

RECIPE = {"method": "gatys", "knobs": {"strength": 0.5, "layers": ["relu1_1"]}, "note": "Öl auf Holz \u0000"}
# Every format at every depth that it holds.
FORMS = [(suffix, bits) for suffix in WRITABLE for bits in (8, 16) if bits == 8 or suffix in encode.DEEP]
ROUND = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def shapes(channels: list[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from(channels))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sentence_of(use: Callable[[Path], object], path: Path) -> str:
    """The InputError that a file gives, empty where it is read; anything else escapes and fails."""
    try:
        use(path)
    except InputError as error:
        return str(error)
    return ""


def noise(height: int = 24, width: int = 32, channels: int = 3) -> Picture:
    values = np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Picture.of(values)


def smooth() -> Picture:
    rows, columns = np.mgrid[0:48, 0:64]
    return Picture(np.stack([rows / 48, columns / 64, (rows + columns) / 112], axis=-1), recipe=RECIPE)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@given(values=hnp.arrays(np.uint8, shapes([3, 4])))
@ROUND
def test_8_bits_round_trip_exactly(tmp_path: Path, suffix: str, values: np.ndarray) -> None:
    path = tmp_path / f"a{suffix}"
    write(Picture.of(values), path, bits=8, overwrite=True)
    assert np.array_equal(np.asarray(read(path).pil()), values)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@given(values=hnp.arrays(np.uint16, shapes([3, 4])))
@ROUND
def test_16_bits_round_trip_exactly(tmp_path: Path, suffix: str, values: np.ndarray) -> None:
    path = tmp_path / f"a{suffix}"
    write(Picture.of(values), path, bits=16, overwrite=True)
    back = read(path)
    layers = [back.pixels] if back.alpha is None else [back.pixels, back.alpha[..., None]]
    assert np.array_equal(np.rint(np.concatenate(layers, axis=2) * 65535).astype(np.uint16), values)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".webp"])
def test_lossy_formats_come_near(tmp_path: Path, suffix: str) -> None:
    picture = smooth()
    write(picture, tmp_path / f"a{suffix}")
    assert np.abs(read(tmp_path / f"a{suffix}").pixels - picture.pixels).mean() < 0.01


def test_jpeg_keeps_full_chroma(tmp_path: Path) -> None:
    write(smooth(), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


@pytest.mark.parametrize(("suffix", "bits"), FORMS)
@pytest.mark.parametrize("alpha", [False, True])
def test_the_recipe_survives_in_every_format(tmp_path: Path, suffix: str, bits: int, alpha: bool) -> None:
    picture = noise(channels=4 if alpha else 3)
    picture.recipe = RECIPE
    path = tmp_path / f"a{suffix}"
    write(picture, path, bits=bits)
    assert read_recipe(path) == read(path).recipe == RECIPE
    assert read(path).size == picture.size


@pytest.mark.parametrize(
    ("suffix", "depth"), [(".png", 8), (".jpg", 8), (".webp", 8), (".tif", 16), (".tiff", 16)]
)
def test_the_default_depth_is_16_for_tiff_only(tmp_path: Path, suffix: str, depth: int) -> None:
    picture = Picture(np.full((4, 4, 3), 1000 / 65535))
    write(picture, tmp_path / f"a{suffix}")
    kept = np.abs(read(tmp_path / f"a{suffix}").pixels * 65535 - 1000).max() < 0.01
    assert kept == (depth == 16)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_noise_at_the_best_quality_can_be_written(tmp_path: Path, suffix: str) -> None:
    write(noise(400, 500), tmp_path / f"a{suffix}", quality=100)
    assert read(tmp_path / f"a{suffix}").size == (500, 400)


@pytest.mark.parametrize("suffix", WRITABLE)
def test_other_programs_can_open_what_is_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(smooth(), path, bits=8)
    with Image.open(path) as image:
        image.load()
        assert image.size == (64, 48)
        assert image.getexif()[270].startswith("atelier-recipe:")
        assert image.info.get("icc_profile") or image.info.get("srgb") is not None


def test_a_picture_without_recipe_has_none(tmp_path: Path) -> None:
    write(noise(), tmp_path / "a.png")
    assert read_recipe(tmp_path / "a.png") is None
    exif = Image.Exif()
    exif[270] = "a boat"
    Image.new("RGB", (3, 3)).save(tmp_path / "b.jpg", exif=exif)
    assert read_recipe(tmp_path / "b.jpg") is None


def test_a_recipe_too_long_for_jpeg_is_refused_and_fits_png(tmp_path: Path) -> None:
    picture = noise()
    picture.recipe = {"strokes": "x" * 70_000}
    with pytest.raises(OutputError, match=r"write \.png"):
        write(picture, tmp_path / "a.jpg")
    write(picture, tmp_path / "a.png")
    assert read_recipe(tmp_path / "a.png") == picture.recipe
    assert names(tmp_path) == ["a.png"]


def test_name_and_hash_are_the_files(tmp_path: Path) -> None:
    write(noise(), tmp_path / "a.png")
    picture = Picture.open(tmp_path / "a.png")
    assert picture.name == str(tmp_path / "a.png")
    assert picture.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()


def test_the_same_picture_gives_the_same_file(tmp_path: Path) -> None:
    for suffix in WRITABLE:
        for name in "ab":
            write(smooth(), tmp_path / f"{name}{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_jpeg_lays_alpha_on_white(tmp_path: Path) -> None:
    write(Picture(np.zeros((8, 8, 3)), np.zeros((8, 8))), tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg").pixels.min() > 0.99


def test_rights_are_those_of_a_new_file_or_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    (tmp_path / "plain").write_bytes(b"")
    write(noise(), path)
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    path.chmod(0o640)
    write(noise(), path, overwrite=True)
    assert path.stat().st_mode & 0o777 == 0o640


def bomb(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"hello", "is not a picture"),
        (b"%PDF-1.7 ...", "is not a picture"),
        (bomb(20_000, 20_000), "limit"),
        (bomb(2**31 - 1, 2**31 - 1), "limit"),
        (bomb(0, 5), "damaged|at least one"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (b"GIF89a", "damaged"),
        (b"BM", "damaged"),
        (b"II*\0", "damaged"),
        (b"II*\0\xff\xff\xff\xff", "damaged"),
        (b"RIFF\0\0\0\0WEBP", "damaged"),
    ],
    ids=range(13),
)
def test_what_is_no_picture_gets_one_sentence(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=sentence) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_limit_is_an_option_and_pillows_own_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(noise(), tmp_path / "a.png")
    with pytest.raises(InputError, match="max_pixels"):
        read(tmp_path / "a.png", max_pixels=24 * 32 - 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read(tmp_path / "a.png", max_pixels=24 * 32).size == (32, 24)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(("suffix", "bits"), FORMS)
def test_cut_files_are_refused(tmp_path: Path, suffix: str, bits: int) -> None:
    write(noise(), tmp_path / f"whole{suffix}", bits=bits)
    data = (tmp_path / f"whole{suffix}").read_bytes()
    for tenth in range(10):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(InputError):
            read(path)


@pytest.mark.parametrize(
    "head", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF1234WEBP", b"MM\0*"]
)
@given(tail=st.binary(max_size=300))
@ROUND
def test_noise_behind_a_true_head_never_escapes(tmp_path: Path, head: bytes, tail: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(head + tail)
    for use in (read, read_recipe):
        assert "\n" not in sentence_of(use, path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@given(where=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8))
@ROUND
def test_flipped_bytes_never_escape(tmp_path: Path, suffix: str, where: list[tuple[float, int]]) -> None:
    path = tmp_path / f"a{suffix}"
    picture = noise()
    picture.recipe = RECIPE
    write(picture, path, overwrite=True)
    data = bytearray(path.read_bytes())
    for place, value in where:
        data[int(place * len(data))] = value
    path.write_bytes(bytes(data))
    for use in (read, read_recipe):
        sentence = sentence_of(use, path)
        assert str(path) in sentence or not sentence


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    write(noise(), tmp_path / "harbour.png")
    with pytest.raises(InputError, match=r"did you mean '.*harbour\.png'"):
        read(tmp_path / "habour.png")
    with pytest.raises(InputError, match="does not exist: check the name"):
        read(tmp_path / "zzz")
    with pytest.raises(InputError, match="nor does its folder"):
        read(tmp_path / "no" / "a.png")
    with pytest.raises(InputError):
        read(tmp_path / "harbour.png" / "a.png")


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000 + ".png"])
def test_impossible_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / name)
    with pytest.raises(OutputError):
        write(noise(), tmp_path / name)


def test_folders_pipes_and_closed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="not a regular file"):
        read(tmp_path / "pipe.png")
    write(noise(), tmp_path / "a.png")

    def refuse(_: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        read(tmp_path / "a.png")


def test_a_file_longer_than_its_pixels_could_take_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(reading._METADATA + 33)  # sparse: takes no room
    with pytest.raises(InputError, match="bytes"):
        read(tmp_path / "a.png", max_pixels=1)


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt", ".png"])
def test_unknown_extensions_name_the_allowed(tmp_path: Path, name: str) -> None:
    for use in (lambda path: write(noise(), path), check_writable):
        with pytest.raises(UsageError, match=r"\.jpg, \.jpeg, \.png"):
            use(tmp_path / name)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {"bits": 16}), ("a.webp", {"bits": 16}), ("a.png", {"bits": 12}), ("a.jpg", {"quality": 0})],
)
def test_values_that_are_not_allowed(tmp_path: Path, name: str, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        write(noise(), tmp_path / name, **options)
    assert names(tmp_path) == []


def test_an_output_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    for use in (lambda: write(noise(), path), lambda: check_writable(path)):
        with pytest.raises(OutputError, match="--overwrite"):
            use()
    assert path.read_bytes() == b"precious"
    check_writable(path, overwrite=True)
    write(noise(), path, overwrite=True)
    assert read(path).size == (32, 24)


def test_outputs_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        check_writable(tmp_path / "no" / "a.png")
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OutputError, match="not a regular file"):
        check_writable(tmp_path / "d.png", overwrite=True)
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(OutputError, match="not a regular file"):
        check_writable(tmp_path / "p.png", overwrite=True)
    with pytest.raises(OutputError, match="too long"):
        check_writable(tmp_path / ("x" * 245 + ".png"))
    write(noise(), tmp_path / ("x" * 231 + ".png"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        check_writable(tmp_path / "a.png")


def full_disk(path: Path, data: bytes) -> int:
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(path: Path, data: bytes) -> int:
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise KeyboardInterrupt


@pytest.mark.parametrize(("failure", "error"), [(full_disk, OutputError), (interrupted, KeyboardInterrupt)])
@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    failure: Callable[[Path, bytes], int],
    error: type[BaseException],
) -> None:
    path = tmp_path / f"a{suffix}"
    write(noise(), path)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", failure)
    with pytest.raises(error):
        write(smooth(), path, overwrite=True)
    with pytest.raises(error):
        write(smooth(), tmp_path / f"b{suffix}")
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == before


def test_memory_that_runs_out_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(noise(), tmp_path / "a.png")

    def exhausted(*_: object, **__: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(encode, "encode", exhausted)
    with pytest.raises(ResourceError, match="memory"):
        write(noise(), tmp_path / "b.png")
    monkeypatch.setattr(Image.Image, "convert", exhausted)
    with pytest.raises(ResourceError, match="memory"):
        read(tmp_path / "a.png")
    assert names(tmp_path) == ["a.png"]


def test_values_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not finite"):
        write(Picture(np.full((2, 2, 3), np.nan)), tmp_path / "a.png")
    assert names(tmp_path) == []


def test_formats_say_when_a_side_is_too_long(tmp_path: Path) -> None:
    strip = Picture(np.zeros((1, 16_384, 3)))
    with pytest.raises(OutputError, match=r"write \.png or \.tif"):
        write(strip, tmp_path / "a.webp")
    write(strip, tmp_path / "a.png")
    assert read(tmp_path / "a.png").size == (16_384, 1)


@pytest.mark.parametrize(("name", "longest"), [("a.webp", 16_383), ("a.jpg", 65_500), ("A.JPEG", 65_500)])
def test_a_side_too_long_for_the_format_is_told_before_the_work(
    tmp_path: Path, name: str, longest: int
) -> None:
    check_writable(tmp_path / "a.png", size=(10**6, 3))
    check_writable(tmp_path / name, size=(3, longest))
    for size in ((longest + 1, 3), (3, longest + 1)):
        with pytest.raises(OutputError, match=f"at most {longest:,} pixels per side"):
            check_writable(tmp_path / name, size=size)


@pytest.mark.parametrize(("suffix", "longest"), [(".webp", 16_383), (".jpg", 65_500)])
def test_the_longest_side_of_a_format_can_be_written(tmp_path: Path, suffix: str, longest: int) -> None:
    strip = Picture(np.zeros((1, longest, 3)))
    write(strip, tmp_path / f"a{suffix}")
    assert read(tmp_path / f"a{suffix}").size == (longest, 1)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_quick_file_holds_the_same_pixels(tmp_path: Path, bits: int) -> None:
    pixels = np.random.default_rng(0).random((8, 8, 4), dtype=np.float32).repeat(8, 0).repeat(8, 1)
    for name in ("small", "quick"):
        write(Picture.of(pixels), tmp_path / f"{name}.png", bits=bits, quick=name == "quick")
    small, quick = (Picture.open(tmp_path / f"{name}.png") for name in ("small", "quick"))
    assert np.array_equal(small.pixels, quick.pixels)
    assert np.array_equal(small.alpha, quick.alpha)
    assert (tmp_path / "small.png").read_bytes() != (tmp_path / "quick.png").read_bytes()
