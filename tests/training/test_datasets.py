"""Data sets: declared by kind, checked before the run, decoded on demand, drawn by step and row."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from atelier.core.errors import TrainingError
from atelier.training import datasets, streams
from atelier.training.settings import DATA

_spec = importlib.util.spec_from_file_location("training_pictures", Path(__file__).parent / "conftest.py")
pictures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pictures)

SHADES = {"dark": 40, "middle": 120, "light": 220}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Five pictures of one grey in each folder, with captions that say the grey and the number."""
    for name, grey in SHADES.items():
        (tmp_path / name).mkdir()
        for index in range(5):
            Image.new("RGB", (30 + index, 24), (grey + index,) * 3).save(tmp_path / name / f"{index}.png")
            (tmp_path / name / f"{index}.txt").write_text(f" {name}\n picture {index}\n", encoding="utf-8")
    return {name: tmp_path / name for name in SHADES}


def read(kind: str, **given: Any) -> datasets.DataSet:
    return datasets.read(kind, DATA[kind](**{"held_back": 0, "crop": 16} | given))


def draws(data: datasets.DataSet, seed: int = 0, budget: int = 2**20) -> streams.Draws:
    return streams.Draws(data.learn, 16, seed, streams.Decoder(budget))


def batch(data: datasets.DataSet, count: int = 60) -> dict[str, Any]:
    drawn = draws(data)
    return streams.stacked([drawn[0, row] for row in range(count)])


def greys(pictures: torch.Tensor) -> set[int]:
    assert pictures.dtype == torch.uint8
    assert pictures.shape[1:] == (3, 16, 16)
    return set(pictures.flatten(1).float().mean(1).round().int().tolist())


def five(name: str) -> set[int]:
    return set(range(SHADES[name], SHADES[name] + 5))


# what each kind gives


def test_pairs_are_drawn_independently(folders: dict[str, Path]) -> None:
    found = batch(read("pairs", photos=(str(folders["dark"]),), paintings=(str(folders["light"]),)))
    assert greys(found["photos"]) == five("dark")
    assert greys(found["paintings"]) == five("light")
    pairs = zip(*(found[name].flatten(1).float().mean(1).tolist() for name in found), strict=True)
    assert len({(round(a), round(b)) for a, b in pairs}) > 15  # of 25


def test_each_domain_is_its_own_stream(folders: dict[str, Path]) -> None:
    found = batch(read("domains", a=(str(folders["dark"]),), b=(str(folders["middle"]),)))
    assert found.keys() == {"a", "b"}
    assert (greys(found["a"]), greys(found["b"])) == (five("dark"), five("middle"))


def test_labelled_domains_are_equally_likely(folders: dict[str, Path]) -> None:
    for index in range(1, 5):
        (folders["dark"] / f"{index}.png").unlink()
    data = read("labelled", domain=tuple(f"{name}={path}" for name, path in folders.items()))
    assert data.info.domains == ("dark", "middle", "light")
    assert str(data) == "1 dark, 5 middle, 5 light"
    found = batch(data, 300)
    assert found["domain"].dtype == torch.int64
    # A third of 300 is 100 with a deviation of 8.
    assert all(70 < count < 130 for count in found["domain"].bincount().tolist())
    for number, name in enumerate(SHADES):
        assert greys(found["pictures"][found["domain"] == number]) <= five(name)


def test_captions_belong_to_their_pictures(folders: dict[str, Path]) -> None:
    found = batch(read("captioned", pictures=(str(folders["dark"]), str(folders["light"]))))
    assert len(found["captions"]) == 60
    for picture, caption in zip(found["pictures"], found["captions"], strict=True):
        name, _, index = caption.split()
        assert round(float(picture.float().mean())) == SHADES[name] + int(index)


def test_captioned_pictures_are_neither_mirrored_nor_stretched(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a ramp")
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None] * 8, (32, 32, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "a.png")
    found = draws(read("captioned", pictures=(str(tmp_path),)))
    # The whole square, halved: the mean of each two columns.
    expected = torch.arange(16) * 16 + 4
    for row in range(8):
        assert (found[0, row]["pictures"].int() - expected).abs().max() <= 1


def test_one_style_accepts_a_single_file(folders: dict[str, Path]) -> None:
    style = folders["light"] / "3.png"
    data = read("one_style", photos=(str(folders["dark"]),), style=str(style), style_side=66)
    (picture,) = data.info.styles
    assert picture.shape == (1, 3, 48, 66)
    assert picture.mean().item() == pytest.approx(223 / 255, abs=1e-3)
    assert batch(data).keys() == {"photos"}
    with pytest.raises(TrainingError, match="light has 5 pictures: this method learns a single style"):
        read("one_style", photos=(str(folders["dark"]),), style=str(folders["light"]))


def test_styles_are_numbered_in_order(folders: dict[str, Path]) -> None:
    names = (str(folders["light"]), str(folders["dark"] / "2.png"))
    data = read("styles", photos=(str(folders["dark"]),), paintings=names)
    found = [round(style.mean().item() * 255) for style in data.info.styles]
    assert found == [220, 221, 222, 223, 224, 42]


def test_held_out_pictures_keep_their_captions(folders: dict[str, Path]) -> None:
    data = read("captioned", pictures=(str(folders["dark"]),), held_back=2)
    learn, judge = data.learn[0].sources[0], data.judge[0].sources[0]
    assert (len(learn.entries), len(judge.entries)) == (3, 2)
    for source in (learn, judge):
        assert [f"dark picture {entry.path.stem}" for entry in source.entries] == list(source.captions)
    assert str(data) == "3 pictures; 2 held out for evaluation"


# what is refused


@pytest.mark.parametrize(
    ("kind", "given", "sentence"),
    [
        ("domains", {"a": ("{gone}",), "b": ("{dark}",)}, "no training data at '.*gone'"),
        ("domains", {"a": ("{empty}",), "b": ("{dark}",)}, r"no pictures below .*empty: use \.bmp"),
        ("labelled", {"domain": ("{dark}",)}, "is not a domain: use NAME=FOLDER"),
        ("labelled", {"domain": ("a={dark}",)}, "at least two domains are needed"),
        ("labelled", {"domain": ("a={dark}", "a={light}")}, "two domains are named 'a'"),
        ("labelled", {"domain": ("a={dark}", "b={empty}")}, "no pictures below .*empty"),
        (
            "labelled",
            {"domain": ("a={dark}", "b={light}"), "held_back": 5},
            "5 pictures are too few to hold out 5",
        ),
        ("captioned", {"pictures": ("{shard}",)}, r"s\.npz is a shard, which has no captions"),
        ("styles", {"photos": ("{dark}",), "paintings": ("{empty}",)}, "no style pictures at .*empty"),
        ("one_style", {"photos": ("{dark}",), "style": "{text}"}, r"no style pictures at .*notes\.md"),
        (
            "pairs",
            {"photos": ("{dark}",), "paintings": ("{bad}",)},
            r"bad\.png cannot be used \(it is",
        ),
        (
            "pairs",
            {"photos": ("{badshard}",), "paintings": ("{dark}",)},
            r"picture 1 of .*b\.npz cannot",
        ),
    ],
)
def test_invalid_data_is_an_error_before_the_run(
    folders: dict[str, Path], tmp_path: Path, kind: str, given: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "notes.md").write_text("text")
    shard = pictures.write_shard(tmp_path / "s.npz", [pictures.stripes(0, 1), pictures.stripes(1, 2)], None)
    with np.load(shard) as whole:
        jpeg, offset = whole["jpeg"].copy(), whole["offset"]
    jpeg[offset[1] :] = 0
    np.savez(tmp_path / "b.npz", jpeg=jpeg, offset=offset)
    places = {name: tmp_path / name for name in (*SHADES, "empty", "gone")}
    places |= {"shard": shard, "badshard": tmp_path / "b.npz", "bad": tmp_path / "bad.png"}
    places |= {"text": tmp_path / "notes.md"}

    def filled(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(one.format(**places) for one in value)
        return value.format(**places) if isinstance(value, str) else value

    with pytest.raises(TrainingError, match=sentence) as caught:
        read(kind, **{name: filled(value) for name, value in given.items()})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"2\.png needs a caption in 2\.txt, but that file cannot be read \(No such file"),
        (b"\xff\xfe\x00", r"needs a caption in 2\.txt, but that file cannot be read \(it is not UTF-8\)"),
        (b" \n", r"the caption .*2\.txt is empty"),
    ],
)
def test_a_missing_caption_is_an_error(
    folders: dict[str, Path], content: bytes | None, sentence: str
) -> None:
    path = folders["dark"] / "2.txt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=sentence):
        read("captioned", pictures=(str(folders["dark"]),))


# drawing


def test_a_row_depends_only_on_seed_step_and_row(folders: dict[str, Path]) -> None:
    data = read("pairs", photos=(str(folders["dark"]),), paintings=(str(folders["light"]),))
    one, other = draws(data), draws(data)
    first = [one[3, row]["photos"] for row in range(20)]
    backwards = [other[3, row]["photos"] for row in reversed(range(20))][::-1]
    assert all(torch.equal(*pair) for pair in zip(first, backwards, strict=True))
    for changed in (draws(data, seed=1), one):
        step = 3 if changed is not one else 4
        assert not all(torch.equal(changed[step, row]["photos"], first[row]) for row in range(20))


def test_a_shard_equals_its_pictures_as_files(tmp_path: Path) -> None:
    import cv2

    some = [pictures.stripes(index % 2, index) for index in range(4)]
    shard = pictures.write_shard(tmp_path / "a.npz", some, None)
    (tmp_path / "files").mkdir()
    for index, one in enumerate(some):
        content = cv2.imencode(".jpg", one[:, :, ::-1])[1]
        (tmp_path / "files" / f"{index}.jpg").write_bytes(content.tobytes())
    found = [
        batch(read("domains", a=(str(path),), b=(str(path),)))["a"] for path in (shard, tmp_path / "files")
    ]
    assert torch.equal(*found)


def test_parts_of_a_step_interleave_its_rows() -> None:
    whole = list(streams.Keys(2, 4, 6, [(0, 1)]))
    assert whole == [[(step, row) for row in range(6)] for step in (2, 3)]
    parts = list(streams.Keys(2, 4, 6, [(1, 3), (2, 3)]))
    assert parts == [[(step, row) for row in rows] for step in (2, 3) for rows in ((1, 4), (2, 5))]
    assert len(streams.Keys(2, 4, 6, [(1, 3), (2, 3)])) == 4


def test_the_cache_stays_within_its_budget(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    entries = datasets.entries([str(folders["dark"])])
    read_file, opened = datasets.data.read_file, list[str]()

    def counted(path: Path) -> Any:
        opened.append(path.stem)
        return read_file(path)

    monkeypatch.setattr(datasets.data, "read_file", counted)
    sizes = [24 * (30 + index) * 3 for index in range(5)]
    decoder = streams.Decoder(sizes[0] + sizes[1] + sizes[2])
    for index in (0, 1, 2, 0, 1, 2):
        assert decoder(entries[index], 512).shape == (24, 30 + index, 3)
    assert opened == ["0", "1", "2"]
    decoder(entries[0], 512)
    decoder(entries[3], 512)  # 1 has not been used for longest, and 2 must go too
    assert decoder.used <= decoder.budget
    decoder(entries[0], 512)
    assert opened == ["0", "1", "2", "3"]
    decoder(entries[1], 512)
    assert opened == ["0", "1", "2", "3", "1"]


def test_a_zero_cache_decodes_every_time(folders: dict[str, Path]) -> None:
    data = read("domains", a=(str(folders["dark"]),), b=(str(folders["light"]),))
    kept, none = draws(data), draws(data, budget=0)
    for row in range(10):
        assert torch.equal(kept[0, row]["a"], none[0, row]["a"])
    assert none.decoder.used == 0


def test_a_worker_starts_with_an_empty_cache(folders: dict[str, Path]) -> None:
    data = read("domains", a=(str(folders["dark"]),), b=(str(folders["light"]),))
    full = draws(data)
    first = full[0, 0]["a"]
    assert full.decoder.used > 0
    copy = pickle.loads(pickle.dumps(full))
    assert copy.decoder.used == 0
    assert torch.equal(copy[0, 0]["a"], first)
