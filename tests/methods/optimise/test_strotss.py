"""STROTSS: sampling, regions, sizes, and knobs; reference numbers are in tests/parity."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier import InputError, Picture, UsageError
from atelier.core.progress import Event
from atelier.images import write
from atelier.methods.base import Job
from atelier.methods.optimise import strotss
from atelier.methods.optimise.strotss import draw, first_picture, mask_at, merge, split

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]
METHOD = "strotss"
FEW = {"iterations": 3, "coarse_iterations": 2, "smallest": 32, "places": 200, "style_places": 300}
# Style alone, and enough steps to get there.
PAINTED: dict[str, Any] = {"smallest": 999, "iterations": 40, "step_size": 0.03, "content_weight": 0}


def test_events_count_all_sizes_and_name_their_terms(make: Make) -> None:
    events: list[Event] = []
    make(smallest=16, progress=events.append)
    assert [event.done for event in events] == list(range(1, 8))
    assert list(dict.fromkeys(event.stage for event in events)) == ["16 x 11", "30 x 21", "56 x 40"]
    assert all(event.losses.keys() == {"content", "transport", "moments", "palette"} for event in events)


def test_the_loss_falls(make: Make) -> None:
    events: list[Event] = []
    make(smallest=999, iterations=40, content_weight=0.1, progress=events.append)
    found = [sum(event.losses.values()) for event in events]
    tenths = [np.mean(found[index : index + 4]) for index in range(0, 40, 4)]
    assert tenths[-1] < 0.6 * tenths[0]
    assert all(b < a * 1.05 for a, b in itertools.pairwise(tenths))


def test_content_weight_halves_with_each_size(make: Make) -> None:
    def shares(weight: float) -> list[float]:
        events: list[Event] = []
        make(smallest=16, iterations=1, coarse_iterations=1, content_weight=weight, progress=events.append)
        return [event.losses["content"] for event in events]

    # At weight w the term is w / (w + 2) of the loss, so its ratio says which w it had.
    for heavy, light, weight in zip(shares(1.0), shares(0.5), (16, 8, 4), strict=True):
        assert heavy / light == pytest.approx(2 * (weight / 2 + 2) / (weight + 2), rel=0.05)


def test_the_average_and_the_seed_matter(make: Make) -> None:
    plain, averaged, other = make(average=0), make(average=0.9), make(average=0, seed=1)
    assert not np.array_equal(plain.pixels, averaged.pixels)
    assert not np.array_equal(plain.pixels, other.pixels)
    assert np.array_equal(plain.pixels, make(average=0).pixels)


def test_styles_are_sampled_by_their_weights(make: Make, photo: Floats, painting: Floats) -> None:
    alone = make(style=painting)
    assert np.array_equal(alone.pixels, make(style=[painting, photo], style_weights=(1, 0)).pixels)
    assert not np.array_equal(alone.pixels, make(style=[painting, photo]).pixels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 33), (5, 40), (17, 2)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_small_and_flat_pictures(make: Make, painting: Floats, shape: tuple[int, int], value: float) -> None:
    content = np.full((*shape, 3), value, np.float32)
    for style in (painting, np.zeros((20, 20, 3), np.float32)):
        made = make(content, style, smallest=16)
        assert made.pixels.shape == content.shape
        assert np.isfinite(made.pixels).all()


@pytest.mark.parametrize("quality", ["draft", "best", "published"])
def test_every_quality_runs(make: Make, quality: str) -> None:
    layers = ("relu1_1", "relu3_1")
    assert np.isfinite(make(quality=quality, iterations=1, layers=layers).pixels).all()


# the start and the pyramid


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_merging_the_pyramid_restores_the_picture(height: int, width: int) -> None:
    image = torch.rand(1, 3, height, width)
    levels = split(image)
    assert len(levels) == 6
    assert (merge(levels) - image).abs().max() < 1e-5


def test_the_first_picture() -> None:
    content, colour = torch.rand(1, 3, 20, 30), torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1)
    begun = first_picture(content, colour, None, final=False)
    assert (begun.mean((2, 3)) - colour.flatten()).abs().max() < 0.02
    flat = torch.full((1, 3, 10, 15), 0.3)
    kept = first_picture(content, colour, flat, final=True)
    assert (kept - 0.3).abs().max() < 1e-6
    more = first_picture(content, colour, flat, final=False)
    assert torch.allclose(more - 0.3, begun - colour, atol=1e-6)


# draws


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 60), total=st.integers(1, 200), seed=st.integers(0, 9))
def test_positions_are_sampled_evenly(count: int, total: int, seed: int) -> None:
    places = torch.arange(total)[:, None].expand(-1, 2)
    drawn = draw(places, count, torch.Generator().manual_seed(seed))[:, 0]
    assert len(drawn) == min(count, total)
    assert drawn.unique().numel() == len(drawn)
    # Never further from an even spacing than one run.
    spacing = torch.arange(len(drawn)) * (total / len(drawn))
    assert (drawn - spacing).abs().max() <= total / len(drawn) + 1


def test_every_position_is_sampled_eventually() -> None:
    generator, places = torch.Generator().manual_seed(0), torch.arange(50)[:, None].expand(-1, 2)
    seen = {int(place) for _ in range(60) for place in draw(places, 10, generator)[:, 0]}
    assert seen == set(range(50))


# regions


def guide(path: Path, split_at: int, size: tuple[int, int]) -> str:
    """Left red, right blue."""
    pixels = np.zeros((*size, 3), np.float32)
    pixels[:, :split_at, 0], pixels[:, split_at:, 2] = 1, 1
    write(Picture.of(pixels), path)
    return str(path)


def test_guided_regions_take_their_own_colours(make: Make, photo: Floats, tmp_path: Path) -> None:
    style = np.zeros((40, 40, 3), np.float32)
    style[:, :20], style[:, 20:] = (0.9, 0.2, 0.1), (0.1, 0.3, 0.9)
    style += np.random.default_rng(0).normal(0, 0.03, style.shape).astype(np.float32)
    regions = {
        "content_regions": guide(tmp_path / "content.png", 28, (40, 56)),
        "style_regions": guide(tmp_path / "style.png", 20, (40, 40)),
    }
    made = make(photo, style.clip(0, 1), **PAINTED, **regions)
    left, right = made.pixels[:, :24].mean((0, 1)), made.pixels[:, 32:].mean((0, 1))
    assert left[0] > left[2] + 0.2
    assert right[2] > right[0] + 0.2
    assert made.recipe is not None
    assert made.recipe["files"].keys() == regions.keys()


def test_each_region_has_its_own_style(make: Make, photo: Floats) -> None:
    left = np.zeros(photo.shape[:2], np.float32)
    left[:, :28] = 1
    red, blue = (np.full((30, 30, 3), colour, np.float32) for colour in ((0.9, 0.2, 0.1), (0.1, 0.3, 0.9)))
    made = make(photo, [red, blue], regions=[left, 1 - left], feather=0, **PAINTED)
    assert made.pixels[:, :24, 0].mean() > made.pixels[:, :24, 2].mean() + 0.2
    assert made.pixels[:, 32:, 2].mean() > made.pixels[:, 32:, 0].mean() + 0.2


def test_an_empty_region_is_ignored() -> None:
    content, styles = torch.rand(1, 3, 6, 8), [torch.rand(1, 3, 5, 5)] * 3
    regions = torch.zeros(3, 1, 6, 8)
    regions[0, :, :, :4], regions[2, :, :2] = 0.4, 0.6
    job = Job(content, styles, [1 / 3] * 3, torch.device("cpu"), torch.float32, regions=regions)
    first, last = strotss._areas(job, strotss.Strotss.Knobs())
    assert (first.shares, last.shares) == ((1, 0, 0), (0, 0, 1))
    assert first.content.sum() == 4 * 4
    assert last.content.sum() == 2 * 8
    job.regions = torch.zeros_like(regions)
    assert len(strotss._areas(job, strotss.Strotss.Knobs())) == 1


def test_masks_by_colour() -> None:
    content, style = np.zeros((4, 6, 3), np.uint8), np.zeros((5, 5, 3), np.uint8)
    content[:, 3:], style[2:] = (9, 0, 0), (9, 0, 0)
    style[0, 0] = (1, 2, 3)
    masks = strotss.region_masks(content, style, smallest=5)
    assert [(int(a.sum()), int(b.sum())) for a, b in masks] == [(12, 9), (12, 15)]
    assert masks[1][0][0].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_vanishing_region_covers_everything() -> None:
    mask = torch.zeros(64, 64)
    assert mask_at(mask, (8, 8)).all()
    mask[:, 32:] = 1
    assert torch.equal(mask_at(mask, (8, 8)).sum(0), torch.tensor([0.0] * 4 + [8.0] * 4))
    weak = torch.zeros(9, 9)
    weak[0, 0] = 1
    assert mask_at(weak, (4, 4)).any()


def test_invalid_regions_are_errors(make: Make, painting: Floats, photo: Floats, tmp_path: Path) -> None:
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    guide(one, 3, (4, 6))
    write(Picture.of(np.full((4, 6, 3), 0.5, np.float32)), other)
    with pytest.raises(UsageError, match="belong together: give both files, or neither"):
        make(content_regions=str(one))
    with pytest.raises(UsageError, match="one style and no other regions"):
        make(style=[painting, photo], content_regions=str(one), style_regions=str(one))
    with pytest.raises(UsageError, match=r"no colour of .*one\.png is in .*other\.png"):
        make(content_regions=str(other), style_regions=str(one))
    with pytest.raises(InputError, match="gone"):
        make(content_regions=str(tmp_path / "gone.png"), style_regions=str(one))
