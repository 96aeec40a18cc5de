"""Tiny shards and folders of pictures, and settings for runs of about a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[np.uint8]
Settings = Callable[..., Any]


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """Accelerate keeps one state for the whole process; every test gets a new one."""
    state = pytest.importorskip("accelerate.state")
    state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)


def stripes(label: int, seed: int, shape: tuple[int, int] = (32, 32)) -> Array:
    """Reddish stripes across for class 0, bluish ones down for class 1."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    wave = 0.5 + 0.5 * np.sin((x if label else y) * random.uniform(0.8, 1.2) + random.uniform(0, 6))
    colour = np.array([(1.0, 0.4, 0.2), (0.2, 0.4, 1.0)][label])
    picture = wave[..., None] * colour + random.normal(0, 0.05, (*shape, 3))
    return (picture.clip(0, 1) * 255).astype(np.uint8)


def write_shard(path: Path, pictures: Sequence[Array], labels: Sequence[int] | None) -> Path:
    """A shard as the package reads it: the files joined, where each starts, and the classes."""
    files = [cv2.imencode(".jpg", picture[:, :, ::-1])[1].ravel() for picture in pictures]
    arrays = {"jpeg": np.concatenate(files), "offset": np.cumsum([0, *(len(file) for file in files)])}
    if labels is not None:
        arrays["label"] = np.asarray(labels, np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train-0.npz, train-1.npz and valid.npz of two classes."""
    folder = tmp_path_factory.mktemp("shards")
    for name, count, seed in (("train-0", 12, 0), ("train-1", 12, 100), ("valid", 10, 200)):
        labels = [index % 2 for index in range(count)]
        pictures = [stripes(label, seed + index) for index, label in enumerate(labels)]
        write_shard(folder / f"{name}.npz", pictures, labels)
    return folder


@pytest.fixture(scope="session")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sub-folders of paintings of several sizes."""
    folder = tmp_path_factory.mktemp("paintings")
    for label, style in enumerate(("across", "down")):
        (folder / style).mkdir()
        for seed in range(3):
            picture = stripes(label, 300 + seed, (40 + 7 * seed, 60))
            cv2.imwrite(str(folder / style / f"{seed}.png"), picture[:, :, ::-1])
    return folder


@pytest.fixture
def settings(shards: Path) -> Settings:
    """Settings of a tiny run; keywords change them."""
    from atelier.training.settings import EncoderSettings

    def make(**changes: Any) -> EncoderSettings:
        small = {
            "photos": (str(shards / "train-*.npz"),),
            "validation": (str(shards / "valid.npz"),),
            "widths": (4, 6, 8),
            "depths": (1, 1, 2),
            "sizes": (16, 20),
            "late_sizes": (24,),
            "steps": 8,
            "batch": 6,
            "warmup": 2,
            "learning_rate": 0.05,
            "half": False,
            "device": "cpu",
            "evaluate_every": 1000,
            "save_every": 1000,
        }
        return EncoderSettings(**small | changes)

    return make
