"""The bundled photographs and the styles painted by code."""

from __future__ import annotations

import functools
import itertools
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from atelier import examples
from atelier.core.errors import OutputError, ResourceError, UsageError

SIZE = 160


@functools.cache
def painted(name: str) -> NDArray[np.float32]:
    return examples.style(name, size=SIZE)


def bands(image: NDArray[np.float32]) -> list[float]:
    """The deviation of each level of the luminance's Laplacian pyramid, fine to coarse."""
    level, found = image.mean(-1), []
    for _ in range(5):
        coarse = cv2.pyrDown(level)
        found.append(float((level - cv2.pyrUp(coarse, dstsize=level.shape[::-1])).std()))
        level = coarse
    return found


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("astronaut", (512, 512, 3)),
        ("chelsea", (300, 451, 3)),
        ("coffee", (400, 600, 3)),
        ("rocket", (427, 640, 3)),
    ],
)
@pytest.mark.usefixtures("offline")
def test_photos_have_their_sizes_and_leave_the_home_alone(
    name: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "SKIMAGE_DATADIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    image = examples.photo(name)
    assert image.shape == shape
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert 0.9 < image.max() <= 1
    assert list(tmp_path.iterdir()) == []


def test_a_known_pixel_of_the_astronaut() -> None:
    from skimage import data

    assert np.array_equal(np.round(examples.photo("astronaut") * 255).astype(np.uint8), data.astronaut())


@pytest.mark.parametrize("name", examples.STYLES)
def test_a_style_is_a_sound_picture(name: str) -> None:
    image = painted(name)
    assert image.shape == (SIZE, SIZE, 3)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1
    assert np.quantile(image, 0.95) - np.quantile(image, 0.05) > 0.3


@pytest.mark.parametrize("name", examples.STYLES)
def test_the_seed_decides_every_pixel(name: str) -> None:
    again = examples.style(name, size=64, seed=3)
    assert np.array_equal(again, examples.style(name, size=64, seed=3))
    assert np.abs(again - examples.style(name, size=64, seed=4)).mean() > 0.004


@pytest.mark.parametrize("name", examples.STYLES)
def test_a_style_has_detail_at_every_scale(name: str) -> None:
    assert min(bands(painted(name))) > 0.015


@pytest.mark.parametrize("name", examples.STYLES)
def test_a_style_keeps_its_composition_at_another_size(name: str) -> None:
    large = cv2.resize(examples.style(name, size=SIZE * 3 // 2), (12, 12), interpolation=cv2.INTER_AREA)
    small = cv2.resize(painted(name), (12, 12), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(large.ravel(), small.ravel())[0, 1] > 0.8


def test_styles_differ_in_colour_or_grain() -> None:
    marks = {}
    for name in examples.STYLES:
        flat = painted(name).reshape(-1, 3)
        marks[name] = np.concatenate(
            [flat.mean(0), flat.std(0), np.cov(flat.T)[np.triu_indices(3, 1)] * 5, bands(painted(name))]
        )
    for one, other in itertools.combinations(marks, 2):
        assert np.linalg.norm(marks[one] - marks[other]) > 0.08, (one, other)


def test_tables_agree() -> None:
    assert set(examples.photos()) == set(examples.PHOTOS) == {"astronaut", "chelsea", "coffee", "rocket"}
    assert set(examples.styles()) == set(examples.STYLES)
    assert len(examples.STYLES) >= 9
    assert np.array_equal(examples.styles()["ink"](size=64), examples.style("ink", size=64))
    assert all(text.endswith(".") for text in [*examples.PHOTOS.values(), *examples.STYLES.values()])


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_write_makes_every_file(tmp_path: Path) -> None:
    paths = examples.write(tmp_path / "new", size=64)
    assert {path.stem for path in paths} == {*examples.PHOTOS, *examples.STYLES}
    assert sorted(p for p in (tmp_path / "new").rglob("*") if p.is_file()) == sorted(paths)
    with Image.open(tmp_path / "new" / "styles" / "mosaic.png") as picture:
        saved = np.asarray(picture)
    assert np.array_equal(saved, np.round(examples.style("mosaic", size=64) * 255).astype(np.uint8))


def test_write_spares_what_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "STYLES", {"ink": "Ink."})
    mine = tmp_path / "styles" / "ink.png"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already"):
        examples.write(tmp_path, size=64)
    assert mine.read_bytes() == b"mine"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [mine]
    examples.write(tmp_path, size=64, overwrite=True)
    with Image.open(mine) as picture:
        assert picture.size == (64, 64)


def test_write_says_why_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot be made"):
        examples.write(tmp_path / "file", size=64)


def test_bad_names_sizes_and_seeds_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean 'astronaut'"):
        examples.photo("astronaut2")
    with pytest.raises(UsageError, match="did you mean 'mosaic'"):
        examples.style("mosaik")
    with pytest.raises(UsageError, match="64 to 4096"):
        examples.style("ink", size=5)
    with pytest.raises(UsageError, match="negative"):
        examples.style("ink", size=64, seed=-1)
    monkeypatch.setitem(examples._FILES, "coffee", "gone.png")
    with pytest.raises(ResourceError, match=r"gone\.png"):
        examples.photo("coffee")


def test_the_package_is_light() -> None:
    code = "import sys, atelier.examples; print({'torch', 'cv2', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
