"""Training pictures: valid and damaged shards, and crops that depend only on the generator."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atelier.core.errors import TrainingError
from atelier.training import data

_spec = importlib.util.spec_from_file_location("training_pictures", Path(__file__).parent / "conftest.py")
pictures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pictures)
stripes, write_shard = pictures.stripes, pictures.write_shard


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_shard_survives_a_round_trip(tmp_path: Path) -> None:
    given = [stripes(index % 2, index) for index in range(5)]
    found, labels = data.read_shard(write_shard(tmp_path / "a.npz", given, [0, 1, 0, 1, 0]))
    assert labels is not None
    assert labels.tolist() == [0, 1, 0, 1, 0]
    # JPEG is not exact, but red is not blue.
    for before, after in zip(given, found, strict=True):
        assert np.abs(before.astype(int) - after).mean() < 20
        assert np.abs(before[..., ::-1].astype(int) - after).mean() > 30


def test_larger_pictures_are_shrunk(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.npz", [stripes(0, 1, (60, 90)), stripes(0, 1, (20, 90))], None)
    found, labels = data.read_shard(path, short_side=30)
    assert labels is None
    assert [picture.shape for picture in found] == [(30, 45, 3), (20, 90, 3)]


def test_shards_are_joined_in_order(shards: Path) -> None:
    paths = data.expand([str(shards / "train-*.npz")])
    assert [path.name for path in paths] == ["train-0.npz", "train-1.npz"]
    labelled = data.read_shards(paths)
    assert labelled.pictures.shape == (24, 32, 32, 3)  # type: ignore[union-attr]
    assert labelled.classes == 2
    assert labelled.labels.tolist() == [0, 1] * 12
    assert np.array_equal(labelled.pictures[12], data.read_shard(paths[1])[0][0])


def spoil(path: Path, **arrays: Any) -> Path:
    with np.load(path) as shard:
        np.savez(path, **dict(shard) | arrays)
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda path: path.write_bytes(b""), "is not a shard"),
        (lambda path: path.write_bytes(b"hello, I am text"), "is not a shard"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "is not a shard"),
        (lambda path: path.unlink(), "is not a shard"),
        (lambda path: np.savez(path, other=np.zeros(3)), "is not a shard"),
        (lambda path: np.savez(path, jpeg=np.array([{}]), offset=np.arange(2)), "is not a shard"),
        (lambda path: spoil(path, jpeg=np.zeros(9)), "'jpeg' must hold bytes"),
        (lambda path: spoil(path, offset=np.array(3)), "'jpeg' must hold bytes"),
        (lambda path: spoil(path, offset=np.array([0])), "'jpeg' must hold bytes"),
        (lambda path: spoil(path, offset=np.array([0, 5, 10**9])), "is damaged"),
        (lambda path: spoil(path, offset=np.array([0, 5, 5])), "is damaged"),
        (lambda path: spoil(path, offset=np.array([-4, 5, 9])), "is damaged"),
        (lambda path: spoil(path, label=np.zeros(5, int)), "has 5 labels for 2 pictures"),
        (lambda path: spoil(path, label=np.array([0, -1])), "has 2 labels for 2 pictures"),
        (
            lambda path: spoil(path, offset=np.array([0, 9, 12])),
            "picture 0 of .* cannot be decoded as a picture",
        ),
    ],
)
def test_damaged_shards_are_errors(tmp_path: Path, change: Any, sentence: str) -> None:
    path = write_shard(tmp_path / "a.npz", [stripes(0, 1), stripes(1, 2)], [0, 1])
    change(path)
    with pytest.raises(TrainingError, match=sentence) as caught:
        data.read_shards([path])
    assert "\n" not in str(caught.value)


def test_an_npy_file_is_not_a_shard(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(4))
    with pytest.raises(TrainingError, match="is not a shard"):
        data.read_shard(tmp_path / "a.npy")


def test_classifier_shards_need_labels_and_one_size(tmp_path: Path) -> None:
    plain = write_shard(tmp_path / "plain.npz", [stripes(0, 1)], None)
    small = write_shard(tmp_path / "small.npz", [stripes(0, 1)], [0])
    large = write_shard(tmp_path / "large.npz", [stripes(0, 1, (40, 40))], [0])
    with pytest.raises(TrainingError, match=r"plain\.npz has no labels"):
        data.read_shards([plain])
    with pytest.raises(TrainingError, match="several sizes"):
        data.read_shards([small, large])
    with pytest.raises(TrainingError, match="no shards given"):
        data.read_shards([])


def test_a_pattern_without_matches_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no training data at '.*gone"):
        data.expand([str(tmp_path / "gone-*.npz")])


def test_a_folder_is_read_in_order(paintings: Path) -> None:
    found = data.read_folder(paintings, short_side=40)
    assert len(found) == 6
    assert min(min(picture.shape[:2]) for picture in found) == 40
    assert found[0][..., 0].mean() > found[0][..., 2].mean()


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_damaged_folders_are_errors(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(TrainingError, match="no pictures below"):
        data.read_folder(tmp_path)
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(TrainingError, match=r"bad\.jpg cannot be decoded as a picture"):
        data.read_folder(tmp_path)


def test_style_classes_are_folders_and_photographs(paintings: Path, shards: Path, tmp_path: Path) -> None:
    styles = data.read_styles(paintings, [shards / "valid.npz"], short_side=32)
    assert styles.classes == 3
    assert styles.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 10
    assert len(styles) == len(styles.pictures) == 16
    assert data.read_styles(paintings, [paintings / "down"], short_side=32).labels.tolist()[-3:] == [2] * 3
    assert data.read_styles(paintings, [], short_side=32).classes == 2
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(TrainingError, match="must contain one subfolder of pictures for each style"):
            data.read_styles(folder, [], short_side=32)


def test_crops_depend_only_on_the_generator() -> None:
    some = [stripes(0, 1, (40, 60)), stripes(1, 2, (33, 20))]
    first, again, other = (data.random_crops(some, [0, 1, 1], 16, 0.3, generator(seed)) for seed in (1, 1, 2))
    assert first.shape == (3, 3, 16, 16)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[1], first[2])


def test_a_crop_lies_inside_its_picture() -> None:
    ramp = np.zeros((50, 80, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(50)[:, None], np.arange(80)
    crops = data.random_crops([ramp], [0] * 200, 8, 0.2, generator())
    heights = (crops[:, 0].amax((1, 2)).int() - crops[:, 0].amin((1, 2))).float()
    widths = (crops[:, 1].amax((1, 2)).int() - crops[:, 1].amin((1, 2))).float()
    # From a fifth of the short side to all of it, up to 4:3 apart.
    assert heights.min() >= 5
    assert heights.max() > 40
    assert (widths / heights).median() == pytest.approx(1, abs=0.2)
    flipped = crops[:, 1, 4, 0] > crops[:, 1, 4, -1]
    assert 60 < flipped.sum() < 140


def test_whole_pictures_are_only_flipped() -> None:
    picture = stripes(1, 3, (16, 16))
    crops = data.random_crops([picture], [0] * 50, 16, 1.0, generator())
    assert crops.shape == (50, 3, 16, 16)
    # A ratio other than 1 cuts one side; the other is always whole.
    assert crops.float().mean().item() == pytest.approx(picture.mean(), rel=0.1)


def test_zero_jitter_changes_nothing() -> None:
    images = torch.rand(4, 3, 8, 8)
    assert torch.allclose(data.jitter(images, 0.0, 0.0, generator()), images, atol=1e-6)


def test_jitter_stays_in_range_and_is_reproducible() -> None:
    images = torch.rand(16, 3, 8, 8)
    first, again, other = (data.jitter(images, 0.8, 0.5, generator(seed)) for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= first.min() <= first.max() <= 1
    # One draw each: pictures that were the same no longer are.
    same = data.jitter(images[:1].expand(2, -1, -1, -1), 0.8, 0.0, generator())
    assert not torch.allclose(same[0], same[1], atol=1e-3)


def test_blur_affects_its_fraction_of_the_batch() -> None:
    images = (torch.arange(64).view(8, 8) % 2).float().expand(10, 3, 8, 8)
    soft = data.jitter(images, 0.0, 1.0, generator())
    assert (soft.std((1, 2, 3)) < 0.3 * images.std((1, 2, 3))).all()
    assert torch.allclose(soft.mean(), images.mean(), atol=0.05)
