"""The data of a LoRA: folders, captions and their changes, buckets, the report, and the rows of batches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from atelier.core.errors import InputError, OutputError, TrainingError, UsageError
from atelier.training import bucketed, captions, report
from atelier.training.buckets import Buckets, cropped, prepare
from atelier.training.streams import Decoder

Array = npt.NDArray[np.uint8]
SETTINGS = {
    "crop": 64,
    "bucket_least": 256,
    "bucket_most": 1024,
    "bucket_step": 16,
    "upscale": True,
    "buckets": True,
    "trigger": "",
    "flip": False,
    "batch": 2,
    "held_back": 0,
    "dropped": 0.0,
    "shuffle": True,
    "keep": 0,
    "tags_dropped": 0.0,
    "wildcards": False,
}


def scene(seed: int, shape: tuple[int, int] = (96, 96)) -> Array:
    """Smooth shapes with fine grain."""
    source = np.random.default_rng(seed)
    coarse = source.integers(0, 255, (5, 5, 3)).astype(np.uint8)
    large = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return (large + source.normal(0, 12, (*shape, 3))).clip(0, 255).astype(np.uint8)


Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes a picture, with a caption if there is one."""

    def write(name: str, pixels: Array, caption: str | None = None) -> Path:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels[:, :, ::-1])
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return write


def test_folders_say_how_often_their_pictures_are_seen(put: Put, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("10_my_style/a.png", "2_sky/b.png", "notes/c.png", "d.png", "0_none/e.png", "x_y/f.png"):
        put(name, scene(0))
    found = captions.folders(root)
    assert [(one.path.name, one.repeats, one.words) for one in found] == [
        ("10_my_style", 10, "my_style"),
        ("2_sky", 2, "sky"),
    ]
    assert [path.name for path in captions.left_out(root)] == ["0_none", "d.png", "notes", "x_y"]
    (plain,) = captions.folders(root / "notes")
    assert (plain.repeats, plain.words, [path.name for path in plain.pictures]) == (1, "", ["c.png"])


def test_captions_come_from_files_or_the_folder(put: Put, tmp_path: Path) -> None:
    first, second = (put(f"3_old ink/{name}.png", scene(0)) for name in "ab")
    first.with_suffix(".caption").write_text("a bird\nsecond line")
    (folder,) = captions.folders(tmp_path / "set")
    assert [captions.caption_of(one, folder) for one in (first, second)] == ["a bird\nsecond line", "old ink"]
    first.with_suffix(".txt").write_bytes(b"\xff\xfe bad")
    with pytest.raises(TrainingError, match="not UTF-8"):
        captions.caption_of(first, folder)
    first.with_suffix(".txt").write_text("  \n")
    with pytest.raises(TrainingError, match="is empty"):
        captions.caption_of(first, folder)


def test_captions_are_changed_in_bulk(put: Put, tmp_path: Path) -> None:
    root = tmp_path / "set"
    a = put("a.png", scene(0), "Sky, castle,, bridge, castle")
    b = put("b.png", scene(1), "mystyle, castle")
    c = put("c.png", scene(2))
    edit = captions.Edit(
        first=("mystyle",), last=("ink", "sky"), removed=("BRIDGE",), replaced={"castle": "tower"}
    )
    found = captions.changes(root, edit)
    assert a.with_suffix(".txt").read_text() == "Sky, castle,, bridge, castle"  # nothing is written yet
    captions.write(found)
    texts = [one.with_suffix(".txt").read_text() for one in (a, b, c)]
    assert texts == ["mystyle, Sky, tower, ink\n", "mystyle, tower, ink, sky\n", "mystyle, ink, sky\n"]
    assert captions.statistics(root) == Counter({"mystyle": 3, "ink": 3, "sky": 3, "tower": 2})
    assert not captions.changes(root, captions.Edit(first=("mystyle",), replaced={"moon": "sun"}))
    captions.write(captions.changes(root, captions.Edit(substituted={"tow": "fl"})))
    assert a.with_suffix(".txt").read_text() == "mystyle, Sky, fler, ink\n"
    with pytest.raises(UsageError, match="would become empty"):
        captions.changes(root, captions.Edit(removed=("mystyle", "ink", "sky")))


@pytest.mark.parametrize("upscale", [True, False])
def test_a_bucket_is_covered_and_nearly_as_wide_as_the_picture(upscale: bool) -> None:
    """Over random sizes: the crop lies inside, sides are multiples of 64, and the area is not exceeded."""
    buckets, source = Buckets(upscale=upscale), random.Random(1)
    for _ in range(300):
        size = source.randint(64, 3000), source.randint(64, 3000)
        place = buckets.place(size)
        for axis in (0, 1):
            assert place.bucket[axis] % 64 == 0
            assert 0 <= place.corner[axis] <= place.resized[axis] - place.bucket[axis]
        assert place.bucket[0] * place.bucket[1] <= 512 * 512
        if not upscale:
            assert place.resized[0] <= size[0]
            assert place.resized[1] <= size[1]


def test_a_cropped_picture_is_the_middle_of_the_resized_one() -> None:
    pixels = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 60, axis=0).repeat(3, axis=2)
    place = Buckets((32, 32), least=32, most=32, step=32).place((120, 60))
    made = cropped(pixels, place)
    assert made.shape == (32, 32, 3)
    assert abs(float(made.mean()) - float(pixels.mean())) < 1  # a ramp: only the middle has its mean
    assert float(made[0, -1, 0]) - float(made[0, 0, 0]) == pytest.approx(31 * 2 * 60 / 32, abs=3)


def test_prepared_pictures_have_the_size_of_their_bucket(put: Put, tmp_path: Path) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    put("5_ink/a.png", scene(0, (90, 140)), "one")
    put("5_ink/a.jpg", scene(1, (140, 90)))
    buckets = Buckets.of(64, least=32, most=128, step=16)
    assert sorted(path.name for path in prepare(root, out, buckets)) == ["a-2.png", "a.png"]
    shapes = {cv2.imread(str(path)).shape[:2] for path in (out / "5_ink").glob("*.png")}
    assert shapes == {(48, 80), (80, 48)}
    assert (out / "5_ink" / "a.txt").read_text() == "one"
    with pytest.raises(OutputError, match="exists"):
        list(prepare(root, out, buckets))
    (root / "5_ink" / "b.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match="cannot be decoded"):
        list(prepare(root, tmp_path / "again", buckets))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "set"]  # nothing half-written


def test_the_report_names_what_is_wrong(put: Put, tmp_path: Path) -> None:
    root = tmp_path / "set"
    one = scene(0, (128, 128))
    put("2_ink/a.png", one, "ink, sky")
    put("2_ink/copy.jpg", cv2.resize(one, (90, 90), interpolation=cv2.INTER_AREA), "ink")
    put("2_ink/mirror.png", np.ascontiguousarray(one[:, ::-1]), ", ".join(["ink"] * 80))
    put("2_ink/soft.png", cv2.GaussianBlur(scene(3, (128, 128)), (0, 0), 6), "ink")
    put("1_sky/b.png", scene(4, (128, 200)))
    (root / "1_sky" / "cut.png").write_bytes((root / "2_ink" / "a.png").read_bytes()[:300])
    found = report.of(root, Buckets.of(128, least=64))
    assert found.folders == (("1_sky", 1, 2), ("2_ink", 2, 4))
    assert found.epoch == 10
    assert found.sizes == {(128, 128): 9}
    assert [path.name for path in found.damaged] == ["cut.png"]
    assert [{path.name for path in group} for group in found.doubled] == [{"a.png", "copy.jpg", "mirror.png"}]
    assert [path.name for path in found.blurred] == ["soft.png"]
    assert [path.name for path in found.small] == ["copy.jpg"]
    assert [path.name for path in found.uncaptioned] == ["b.png", "cut.png"]
    assert [path.name for path in found.long] == ["mirror.png"]
    assert found.tags["sky"] == 1
    text = "\n".join(found.remarks())
    assert "damaged, to be replaced or removed (1): cut.png" in text
    assert "6 pictures are few" in text


def settings(root: Path, **changes: Any) -> Any:
    return SimpleNamespace(pictures=(str(root),), **{**SETTINGS, **changes})


@pytest.fixture
def root(put: Put, tmp_path: Path) -> Path:
    for index in range(3):
        put(f"2_wide/{index}.png", scene(index, (64, 100)), f"red, sky {index}, sea, sun")
    for index in range(2):
        put(f"1_tall/{index}.png", scene(index, (100, 64)), "blue")
    return tmp_path / "set"


def test_an_epoch_shows_every_picture_as_often_as_its_folder_says(root: Path) -> None:
    chosen = settings(root)
    data = bucketed.read(chosen)
    source = data.learn[0].sources[0]
    assert data.info.facts["batches"] == 4  # 6 and 2 pictures in batches of two of one shape
    assert data.info.facts["images"] == 8
    draws = bucketed.Arranged(source, chosen, 5, Decoder(0))
    names: Counter[str] = Counter()
    for step in range(4):
        rows = [draws[step, row] for row in range(2)]
        assert len({row["pictures"].shape for row in rows}) == 1
        names.update(Path(row["names"]).parent.name for row in rows)
    assert names == {"2_wide": 6, "1_tall": 2}
    again = bucketed.Arranged(source, chosen, 5, Decoder(0))[6, 1]
    assert again["names"] == draws[6, 1]["names"]
    assert again["captions"] == draws[6, 1]["captions"]
    orders = {
        tuple(draws[step, row]["names"] for step in range(at, at + 4) for row in (0, 1)) for at in (0, 4, 8)
    }
    assert len(orders) == 3  # every epoch has its own order


def test_the_trigger_and_the_kept_tags_stay_in_front(root: Path) -> None:
    chosen = settings(root, trigger="mystyle", keep=1)
    draws = bucketed.Arranged(bucketed.read(chosen).learn[0].sources[0], chosen, 0, Decoder(0))
    seen = {draws[step, row]["captions"] for step in range(12) for row in (0, 1)}
    wide = {one for one in seen if "red" in one}
    assert all(one.startswith("mystyle, red, ") for one in wide)
    assert len(wide) > 6  # the rest is shuffled
    assert {one for one in seen if "blue" in one} == {"mystyle, blue"}


def test_photographs_on_their_side_get_the_bucket_of_what_they_show(put: Put, tmp_path: Path) -> None:
    from PIL import Image

    for index in range(4):
        path = put(f"{index}.jpg", scene(index, (64, 100)), "x")
        with Image.open(path) as opened:
            exif = opened.getexif()
            exif[0x0112] = 6
            opened.save(path, exif=exif)
    chosen = settings(tmp_path / "set")
    data = bucketed.read(chosen)
    row = bucketed.Arranged(data.learn[0].sources[0], chosen, 0, Decoder(0))[0, 0]
    height, width = row["pictures"].shape[-2:]
    assert height > width


@pytest.mark.parametrize(
    ("prepare_set", "sentence"),
    [
        (
            lambda root: [path.unlink() for path in root.rglob("[02].png")],
            "3 pictures are too few|2 pictures",
        ),
        (lambda root: (root / "1_tall" / "0.png").write_bytes(b"x"), "it is not a picture"),
        (lambda root: (root / "1_tall" / "0.txt").write_text(""), "is empty"),
    ],
)
def test_sets_that_are_refused(prepare_set: Any, sentence: str, root: Path) -> None:
    prepare_set(root)
    with pytest.raises(TrainingError, match=sentence):
        bucketed.read(settings(root))


def test_pictures_without_captions_need_a_trigger(put: Put, tmp_path: Path) -> None:
    for index in range(4):
        put(f"{index}.png", scene(index))
    with pytest.raises(TrainingError, match=r"has no caption: write 0\.txt"):
        bucketed.read(settings(tmp_path / "set"))
    found = bucketed.read(settings(tmp_path / "set", trigger="mystyle"))
    assert set(found.learn[0].sources[0].captions) == {"mystyle"}
    with pytest.raises(InputError, match="does not exist"):
        captions.folders(tmp_path / "none")
