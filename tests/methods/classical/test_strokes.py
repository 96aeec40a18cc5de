"""Strokes: manners, the style's palette and stroke size, and the exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import atelier
from atelier.core.errors import OutputError, UsageError
from atelier.core.progress import Event

MANNERS = ["impressionist", "expressionist", "wash", "pointillist", "numbers"]


def made(photo: np.ndarray, style: np.ndarray | list[np.ndarray], **settings: Any) -> np.ndarray:
    return atelier.stylize(photo, style, method="strokes", **{"iterations": 1} | settings).pixels


def width_of_detail(image: np.ndarray) -> float:
    """How far the picture is like itself shifted: larger with larger strokes."""
    grey = image.mean(axis=2) - image.mean()
    return float((grey[:, 1:] * grey[:, :-1]).mean() / (grey**2).mean())


#: One worker compiles the kernels of relaxation.
RELAXED = [
    pytest.param(one, marks=[pytest.mark.xdist_group("relaxation")] * (one == "numbers")) for one in MANNERS
]


@pytest.mark.parametrize("manner", RELAXED)
def test_every_manner_resembles_the_photo(photo: np.ndarray, manner: str) -> None:
    result = made(photo, photo, manner=manner, palette="photo", sizes="manner", brush=2, texture=0, impasto=0)
    assert 0.005 < np.abs(result - photo).mean() < 0.2
    assert result[14:26, 22:34].mean(axis=(0, 1))[0] > result[14:26, 22:34].mean(axis=(0, 1))[2]


def test_larger_brushes_omit_more_detail(photo: np.ndarray) -> None:
    noisy = (photo + np.random.default_rng(0).normal(0, 0.2, photo.shape)).clip(0, 1).astype(np.float32)
    details = [
        width_of_detail(
            made(noisy, noisy, brush=brush, sizes="manner", palette="photo", texture=0, impasto=0)
        )
        for brush in (4, 8)
    ]
    assert details[0] < details[1]


def test_colours_come_from_the_styles_palette(photo: np.ndarray) -> None:
    two = np.zeros((40, 40, 3), np.float32)
    two[:, :20], two[:, 20:] = (0.9, 0.8, 0.1), (0.1, 0.1, 0.6)
    plain = {"texture": 0, "impasto": 0, "brush": 2, "sizes": "manner"}
    from_style = made(photo, two, palette="style", colours=2, **plain)
    # Blue with yellow make no red.
    assert (from_style[..., 0] - from_style[..., 1]).max() < 0.3
    assert made(photo, two, palette="photo", **plain)[20, 28, 0] > 0.6


def test_stroke_size_follows_the_styles_marks(photo: np.ndarray, tmp_path: Path) -> None:
    x = np.mgrid[:120, :120][1]
    counts = []
    for width in (2, 7):
        style = np.repeat((0.5 + 0.4 * np.sin(np.pi * x / width))[..., None], 3, axis=2).astype(np.float32)
        path = tmp_path / f"{width}.svg"
        made(photo, style, palette="photo", size=112, brush=2, svg=str(path))
        counts.append(path.read_text().count("<path"))
    assert counts[0] > 2 * counts[1] > 0


def test_several_styles_mix_their_palettes(photo: np.ndarray) -> None:
    red, blue = (np.full((30, 30, 3), colour, np.float32) for colour in ((0.9, 0.1, 0.1), (0.1, 0.1, 0.9)))
    result = made(photo, [red, blue], style_weights=(0.5, 0.5), impasto=0, colours=0)
    assert result[..., 0].mean() > 0.3
    assert result[..., 2].mean() > 0.3


def test_texture_impasto_and_opacity_change_the_picture(photo: np.ndarray) -> None:
    plain = {"texture": 0.0, "impasto": 0.0, "opacity": 1.0, "brush": 3}
    base = made(photo, photo, **plain)
    for knob, value in (("texture", 1.0), ("impasto", 1.0), ("opacity", 0.3)):
        assert np.abs(made(photo, photo, **plain | {knob: value}) - base).mean() > 0.002, knob


# exports


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_exports(photo: np.ndarray, tmp_path: Path, suffix: str) -> None:
    files = {"svg": str(tmp_path / "strokes.svg"), "timelapse": str(tmp_path / f"film.{suffix}")}
    result = made(photo, photo, brush=3, **files)
    assert (tmp_path / "strokes.svg").read_text().startswith("<svg")
    with Image.open(tmp_path / f"film.{suffix}") as film:
        assert film.n_frames > 10
        assert film.size == (56, 40)
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB"), np.float32) / 255
    assert np.abs(last - result).mean() < 0.06
    assert {path.name for path in tmp_path.iterdir()} == {"strokes.svg", f"film.{suffix}"}
    # The same again is no complaint: a recipe is replayed.
    assert np.array_equal(made(photo, photo, brush=3, **files), result)
    with pytest.raises(OutputError, match="exists: choose another name"):
        made(photo, photo, brush=4, **files)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (
            {"svg": "strokes.png"},
            UsageError,
            "svg = 'strokes.png' does not have a supported extension: use .svg",
        ),
        ({"timelapse": "film.mp4"}, UsageError, "use .gif or .webp"),
        ({"svg": "nowhere/strokes.svg"}, OutputError, "the folder 'nowhere' does not exist"),
    ],
)
def test_unsupported_export_files_are_errors_before_work(
    photo: np.ndarray, settings: dict[str, str], error: type[Exception], words: str
) -> None:
    events: list[Event] = []
    with pytest.raises(error, match=words):
        made(photo, photo, progress=events.append, **settings)
    assert not events


def test_stopping_keeps_the_strokes_so_far(photo: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "strokes.svg"
    first = made(photo, photo, brush=3, svg=str(path), progress=lambda event: False)
    whole = made(photo, photo, brush=3)
    assert path.read_text().count("<path") > 0
    assert np.abs(first - photo).mean() > np.abs(whole - photo).mean()


@pytest.mark.xdist_group("relaxation")
def test_relaxation_reports_a_falling_energy(photo: np.ndarray) -> None:
    events: list[Event] = []
    made(photo, photo, manner="numbers", iterations=4, brush=3, progress=events.append)
    energies = [event.losses["energy"] for event in events if event.losses]
    assert len(energies) == 4
    assert energies == sorted(energies, reverse=True)
    assert events[-1].done == events[-1].total == 5
