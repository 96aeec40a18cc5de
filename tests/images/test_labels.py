"""Label maps: sizes, which regions are alike, and what stands in for one that is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from atelier.core.errors import InputError
from atelier.images import colourspace
from atelier.images.labels import read, read_affinity, resized, shared, with_stand_ins, without_slivers


def row(**counts: int) -> Tensor:
    """A map of one row with so many pixels of each label: _3=20 is twenty of label 3."""
    return torch.cat([torch.full((count,), int(name[1:])) for name, count in counts.items()])[None]


def halves(path: Path, kind: str, one: object, two: object) -> str:
    image = Image.new(kind, (8, 6), one)
    image.paste(two, (4, 0, 8, 6))
    image.save(path)
    return str(path)


def test_a_grey_map_and_a_coloured_one_agree(tmp_path: Path) -> None:
    found = read(halves(tmp_path / "grey.png", "L", 3, 200), (12, 16))
    assert found.shape == (12, 16)
    assert (found[:, :8] == 3).all()
    assert (found[:, 8:] == 200).all()
    assert torch.equal(read(halves(tmp_path / "rgb.png", "RGB", (3, 3, 3), (200, 200, 200)), (12, 16)), found)


def test_colours_are_numbers_above_the_greys(tmp_path: Path) -> None:
    found = read(halves(tmp_path / "colours.png", "RGB", (1, 0, 0), (0, 1, 2)), (6, 8))
    assert found.unique().tolist() == [0x000102, 0x010000]


@pytest.mark.parametrize("profile", [None, colourspace.adobe_rgb()])
def test_labels_are_the_stored_numbers_whatever_their_profile(tmp_path: Path, profile: bytes | None) -> None:
    labels = np.array([[[0, 0, 7], [9, 9, 9]], [[200, 60, 120], [255, 255, 255]]], np.uint8)
    Image.fromarray(labels).save(tmp_path / "map.png", icc_profile=profile)
    assert read(tmp_path / "map.png", (2, 2)).tolist() == [[7, 9], [200 << 16 | 60 << 8 | 120, 255]]


def test_grey_maps_of_16_bits_keep_their_numbers(tmp_path: Path) -> None:
    labels = np.array([[0, 3], [300, 65535]], np.uint16)
    Image.fromarray(labels).save(tmp_path / "map.png")
    assert read(tmp_path / "map.png", (2, 2)).tolist() == labels.tolist()


@pytest.mark.parametrize("table", [np.zeros((3, 3)), np.zeros((3, 4), int), np.zeros(9, int)])
def test_a_table_is_square_and_whole(tmp_path: Path, table: np.ndarray) -> None:
    np.save(tmp_path / "table.npy", table)
    with pytest.raises(InputError, match="not a square table of integers"):
        read_affinity(str(tmp_path / "table.npy"))


def test_tables_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "empty.npy").touch()
    for name in ("objects.npy", "empty.npy", "gone.npy"):
        with pytest.raises(InputError, match=rf"{name} cannot be read as \.npy"):
            read_affinity(str(tmp_path / name))
    np.save(tmp_path / "table.npy", AFFINITY.numpy().astype(np.int16))
    assert torch.equal(read_affinity(str(tmp_path / "table.npy")), AFFINITY)


def test_the_nearest_label_is_the_one_in_the_middle() -> None:
    labels = torch.arange(6).repeat(4, 1)
    assert resized(labels, (2, 3)).tolist() == [[1, 3, 5]] * 2
    assert resized(labels, (4, 12))[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert resized(labels, labels.shape) is labels


def test_the_largest_colours_stay_apart() -> None:
    white = torch.tensor([[2**24 - 1, 2**24 - 2]])
    assert resized(white, (2, 4))[1].tolist() == [2**24 - 1] * 2 + [2**24 - 2] * 2


@pytest.mark.parametrize(
    ("content", "style", "alike"),
    [
        (row(_0=50, _3=50), row(_3=30, _0=20), [0, 3]),
        (row(_0=10, _3=50), row(_0=50, _3=50), [3]),
        (row(_0=11, _3=50), row(_0=50, _3=10), [0]),
        (row(_0=1100, _3=50), row(_0=11, _3=50), [3]),
        (row(_0=1099, _3=50), row(_0=11, _3=50), [0, 3]),
        (row(_0=50), row(_1=50), []),
    ],
)
def test_regions_in_like_numbers_are_shared(content: Tensor, style: Tensor, alike: list[int]) -> None:
    assert shared(content, style) == alike


# Column s lists the labels by their likeness to s, itself first.
AFFINITY = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2], [2, 2, 1, 1], [3, 3, 0, 0]])


def test_slivers_become_what_is_most_alike() -> None:
    found = without_slivers(row(_0=97, _2=1, _1=50), AFFINITY)
    assert torch.equal(found, row(_0=97, _1=51))
    found = without_slivers(row(_3=1, _0=99), AFFINITY)
    assert torch.equal(found, row(_0=100))


def test_slivers_do_not_stand_in_for_each_other() -> None:
    assert torch.equal(without_slivers(row(_2=1, _3=1, _0=98), AFFINITY), row(_0=100))


def test_the_style_stands_in_for_what_it_lacks() -> None:
    found = with_stand_ins(row(_0=20, _2=20, _3=20), row(_3=5, _1=5), AFFINITY)
    assert torch.equal(found, row(_1=20, _3=40))


def test_labels_that_the_table_does_not_know_stay() -> None:
    labels = row(_9=1, _0=99)
    assert torch.equal(without_slivers(labels, AFFINITY), labels)
    assert torch.equal(with_stand_ins(labels, row(_1=5), AFFINITY), row(_9=1, _1=99))
