"""Analogies: every use in the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import cKDTree
from skimage.metrics import structural_similarity

import atelier
from atelier import examples
from atelier.colour import rgb_to_lab
from atelier.core.errors import InputError, UsageError
from atelier.core.progress import Event
from atelier.images import Picture, write

Floats = npt.NDArray[np.float32]


def made(photo: Floats, style: Floats, **settings: Any) -> Floats:
    return atelier.stylize(photo, style, method="analogies", **settings).pixels


def saved(pixels: Floats, path: Path) -> Floats:
    """The picture as it is read again from its file."""
    write(Picture.of(pixels), path)
    return Picture.open(path).pixels


def small(name: str, *, grey: bool = False) -> Floats:
    pixels = Picture.of(examples.photo(name)).resized(112).pixels
    return np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2) if grey else pixels


def blurred(image: Floats) -> Floats:
    return cv2.GaussianBlur(image, (0, 0), 1.5)


def threshold(image: Floats) -> Floats:
    return (image > 0.5).astype(np.float32)


def likeness(one: Floats, other: Floats) -> float:
    return float(structural_similarity(one, other, channel_axis=2, data_range=1))


def farthest(result: Floats, style: Floats) -> float:
    """How far a pixel of the result can be from the nearest of the style's."""
    return float(cKDTree(style.reshape(-1, 3)).query(result.reshape(-1, 3))[0].max())


# learning filters


@pytest.mark.parametrize("search", ["tree", "patchmatch"])
@pytest.mark.parametrize("pair", [("astronaut", "chelsea"), ("coffee", "astronaut")])
def test_a_blur_is_learned(pair: tuple[str, str], search: str, tmp_path: Path) -> None:
    before, photo = saved(small(pair[0]), tmp_path / "before.png"), small(pair[1])
    settings = {"quality": "filter", "unfiltered": str(tmp_path / "before.png")}
    result = made(photo, blurred(before), search=search, **settings)
    assert likeness(photo, blurred(photo)) < 0.9
    assert likeness(result, blurred(photo)) > 0.97


@pytest.mark.parametrize("pair", [("astronaut", "chelsea"), ("coffee", "astronaut")])
def test_a_threshold_is_learned(pair: tuple[str, str], tmp_path: Path) -> None:
    before = saved(small(pair[0], grey=True), tmp_path / "before.png")
    photo = small(pair[1], grey=True)
    settings = {"quality": "filter", "unfiltered": str(tmp_path / "before.png")}
    result = made(photo, threshold(before), **settings)
    assert likeness(result, threshold(photo)) > 0.97


def test_learning_needs_the_unfiltered_picture(tmp_path: Path) -> None:
    before, photo = small("astronaut"), small("chelsea")
    assert likeness(made(photo, blurred(before), quality="filter"), blurred(photo)) < 0.9


# texture by numbers


def test_texture_by_numbers(tmp_path: Path) -> None:
    y, x = np.mgrid[:72, :96]
    colours = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1)], np.float32)
    labels = colours[x // 32]
    noise = np.random.default_rng(0).random((72, 96, 1)).astype(np.float32)
    # Grass, sky and bricks, more or less.
    textures = np.where((x < 32)[..., None], (0.2, 0.6, 0.1), (0.3, 0.4, 0.9)) * (0.6 + 0.4 * noise)
    textures[:, 64:] = np.where((y % 8 < 2) | (x % 12 < 2), 0.9, 0.4)[:, 64:, None]
    saved(labels, tmp_path / "labels.png")
    yy, xx = np.mgrid[:60, :80]
    numbers = np.where(yy < 20, 2, np.where((yy - 40) ** 2 + (xx - 40) ** 2 < 200, 0, 1))
    result = made(
        colours[numbers],
        textures.astype(np.float32),
        quality="numbers",
        unfiltered=str(tmp_path / "labels.png"),
        style_scale=96 / 80,
    )
    kinds = np.where(np.ptp(result, axis=2) < 0.02, 2, np.where(result.argmax(2) == 1, 0, 1))
    for number in range(3):
        inside = cv2.erode(np.uint8(numbers == number), np.ones((3, 3))) > 0
        assert (kinds[inside] == number).mean() > 0.95
    assert result[2:18].std() > 0.15


# painting


def test_the_result_is_made_of_the_styles_pixels(photo: Floats, painting: Floats) -> None:
    result = made(photo, painting, style_scale=48 / 56)
    assert farthest(result, painting) < 1e-6


def test_luminance_mode_keeps_the_photos_colours(photo: Floats, painting: Floats) -> None:
    grey = 0.5 + 0.3 * (photo - 0.5)
    result = made(grey, painting, channels="luminance")
    assert np.abs(result - grey).mean() > 0.01
    matrix = np.array(((0.596, -0.274, -0.322), (0.211, -0.523, 0.312)))
    inside = ((result > 0.02) & (result < 0.98)).all(axis=2)
    assert inside.mean() > 0.8
    np.testing.assert_allclose((result @ matrix.T)[inside], (grey @ matrix.T)[inside], atol=1e-4)


def test_remap_matches_the_photos_luminance(photo: Floats, painting: Floats) -> None:
    dark = 0.3 * photo
    matched, as_it_is = (made(dark, painting, channels="luminance", remap=remap) for remap in (True, False))
    assert abs(matched.mean() - dark.mean()) < 0.02 < abs(as_it_is.mean() - dark.mean())


def test_remap_uses_all_of_the_styles_colours(photo: Floats, painting: Floats) -> None:
    dark = 0.2 * photo
    matched, as_it_is = (made(dark, painting, remap=remap) for remap in (True, False))
    assert abs(matched.mean() - painting.mean()) < 0.05 < abs(as_it_is.mean() - painting.mean())


def test_the_default_unfiltered_picture_has_no_strokes() -> None:
    from atelier.methods.classical.analogies import Analogies, _unfiltered

    style = examples.style("nocturne", size=128)
    smooth, smoother = (_unfiltered(style, Analogies.Knobs(smoothing=width), None) for width in (1.0, 3.0))
    rough = [np.abs(np.diff(one, axis=0)).mean() for one in (style, smooth, smoother)]
    assert rough[0] > 1.2 * rough[1] > 1.2 * rough[2]
    assert _unfiltered(style, Analogies.Knobs(smoothing=0), None) is style


def test_variation_uses_more_of_the_style(painting: Floats) -> None:
    flat = np.full((40, 56, 3), 0.5, np.float32)
    even, uneven, other = (
        made(flat, painting, variation=variation, seed=seed) for variation, seed in ((0, 0), (1, 0), (1, 1))
    )
    assert len(np.unique(uneven.reshape(-1, 3), axis=0)) > 1.1 * len(np.unique(even.reshape(-1, 3), axis=0))
    assert not np.array_equal(uneven, other)


@pytest.mark.parametrize("channels", ["colour", "luminance"])
def test_flat_photos_and_flat_styles(photo: Floats, painting: Floats, channels: str) -> None:
    flat = np.full((40, 56, 3), (0.7, 0.2, 0.4), np.float32)
    textured = made(flat, painting, channels=channels)
    assert textured.std(axis=(0, 1)).min() > 0.02
    plain = made(photo, flat, channels=channels)
    if channels == "colour":
        assert np.allclose(plain, flat[0, 0], atol=1e-6)
    else:
        light = rgb_to_lab(Picture.of(plain).tensor())[0, 0]
        assert light.std() < rgb_to_lab(Picture.of(photo).tensor())[0, 0].std()


@pytest.mark.parametrize("shape", [(1, 1), (2, 90), (90, 1)])
@pytest.mark.parametrize("quality", ["good", "published", "filter"])
def test_extreme_sizes(painting: Floats, shape: tuple[int, int], quality: str) -> None:
    content = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    assert made(content, painting, quality=quality).shape == content.shape
    result = made(painting, content, quality=quality)
    assert result.shape == painting.shape
    assert np.isfinite(result).all()


def test_patchmatch_gives_similar_results_on_large_pictures() -> None:
    photo, style = (
        np.ascontiguousarray(cv2.resize(small(name), (208, 200))) for name in ("coffee", "chelsea")
    )
    events: list[Event] = []
    result = made(photo, style, progress=events.append)
    # Two rounds of the largest size, one of what is coarser.
    assert 2 * 208 * 200 < events[-1].total < 2.5 * 208 * 200
    assert farthest(result, style) < 1e-6


# bad input


def test_the_recipe_names_the_unfiltered_picture(photo: Floats, painting: Floats, tmp_path: Path) -> None:
    path = tmp_path / "before.png"
    write(Picture.of(painting), path)
    result = atelier.stylize(photo, painting, method="analogies", unfiltered=str(path))
    assert result.recipe is not None
    assert result.recipe["files"]["unfiltered"] == [
        {"name": "before.png", "sha256": Picture.open(path).sha256}
    ]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"window": 4}, UsageError, "window must be odd, not 4: use 5"),
        ({"unfiltered": "nowhere.png"}, InputError, "nowhere.png"),
        ({"unfiltered": "wide.png"}, InputError, "must have the proportions of the style"),
    ],
)
def test_invalid_settings_are_errors(
    photo: Floats,
    painting: Floats,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Picture.of(np.ones((20, 60, 3), np.float32)), tmp_path / "wide.png")
    with pytest.raises(error, match=words):
        made(photo, painting, **settings)
