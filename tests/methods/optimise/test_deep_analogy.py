"""Deep image analogy: matching, blending, and invalid settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from atelier import Picture, UsageError, features
from atelier.core.knobs import parse
from atelier.core.progress import Event
from atelier.maths.free_descent import FreeDescent
from atelier.methods.base import Job
from atelier.methods.optimise.deep_analogy import Analogy, DeepAnalogy, blended

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]
METHOD = "deep_analogy"
FEW = {"search_iterations": 2, "rebuild_iterations": 3}


def test_events_name_every_level(make: Make) -> None:
    events: list[Event] = []
    make(progress=events.append)
    assert events[0].total == 5 * 2 + 2 * 4 * 3
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages[:4] == ["relu5_1", "relu5_1 to relu4_1", "relu5_1 to relu4_1, back", "relu4_1"]
    assert stages[-1] == "relu1_1"
    assert events[-1].done == events[-1].total
    for event in events:
        assert event.losses.keys() == {"rebuild" if " to " in event.stage else "match"}
        assert all(0 <= value < 100 for value in event.losses.values())


def test_match_and_rebuild_losses_fall(make: Make) -> None:
    events: list[Event] = []
    make(search_iterations=4, rebuild_iterations=15, progress=events.append)
    for stage in dict.fromkeys(event.stage for event in events):
        (found,) = zip(*[event.losses.values() for event in events if event.stage == stage], strict=True)
        assert found[-1] < found[0] or found[0] < 1e-3, stage
        if " to " not in stage:
            assert list(found) == sorted(found, reverse=True)


def test_features_are_rebuilt_in_full_precision(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # The memory of L-BFGS would be no good in bfloat16.
    monkeypatch.setattr("atelier.core.device.compute_dtype", lambda device: torch.bfloat16)
    seen: list[torch.dtype] = []
    descend = FreeDescent.run

    def keep(self: FreeDescent, start: torch.Tensor) -> torch.Tensor:
        seen.append(start.dtype)
        return descend(self, start)

    monkeypatch.setattr(FreeDescent, "run", keep)
    assert np.isfinite(make(half=True).pixels).all()
    assert seen == [torch.float32] * 8


def test_a_picture_is_rebuilt_from_its_own_patches(make: Make, painting: Floats) -> None:
    made = make(painting, painting, search_iterations=6)
    assert np.abs(made.pixels - painting).mean() < 0.02


def test_a_shuffled_style_is_unshuffled(make: Make, photo: Floats) -> None:
    # The same things at other places and in other colours' company: halves exchanged.
    style = np.roll(photo, 28, axis=1)
    made = make(photo, style, search_iterations=10, rebuild_iterations=20)
    assert np.abs(made.pixels - photo).mean() < 0.5 * np.abs(style - photo).mean()


def test_the_analogy_goes_both_ways(photo: Floats, painting: Floats, tiny_encoder: Path) -> None:
    # B of a pair is A' of the pair exchanged. In float64, so that no tie is broken by the order of a sum.
    first, second = (torch.from_numpy(one).permute(2, 0, 1)[None] for one in (photo, painting[:, :31]))
    encoder = features.load(str(tiny_encoder)).double()
    knobs = parse(DeepAnalogy.Knobs, FEW)
    pairs = []
    for content, style in ((first, second), (second, first)):
        job = Job(content.double(), [style.double()], [1.0], torch.device("cpu"), torch.float64, seed=3)
        pairs.append(Analogy(job, knobs, encoder).run())
    (styled, plain), (swapped_styled, swapped_plain) = pairs
    assert plain.shape == second.shape
    torch.testing.assert_close(swapped_styled, plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(swapped_plain, styled, atol=1e-6, rtol=0)


def test_every_colour_comes_from_the_style(make: Make, photo: Floats) -> None:
    style = np.random.default_rng(0).random(photo.shape, dtype=np.float32)
    style[..., 0] = 0.25 + 0.5 * style[..., 0]
    made = make(photo, style)
    assert made.pixels[..., 0].min() >= 0.25 - 1e-6
    assert made.pixels[..., 0].max() <= 0.75 + 1e-6


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("search_iterations", 5),
        ("rebuild_iterations", 9),
        ("content_weights", (0, 0, 0, 0)),
        ("patches", (3, 3, 3, 3, 3)),
        ("layers", ("relu3_1", "relu1_1")),
        ("seed", 3),
    ],
)
def test_a_knob_changes_the_picture(make: Make, knob: str, value: Any) -> None:
    assert not np.array_equal(make().pixels, make(**{knob: value}).pixels)


def test_any_choice_of_levels_is_allowed(make: Make, photo: Floats) -> None:
    for layers in (("relu1_1",), ("relu4_1",), ("conv3_1", "conv2_2")):
        made = make(layers=layers)
        assert made.pixels.shape == photo.shape
        assert np.isfinite(made.pixels).all()


@pytest.mark.parametrize("last", [1, 3, 7, 20])
def test_stopping_returns_a_full_size_picture(make: Make, photo: Floats, last: int) -> None:
    events: list[Event] = []

    def listen(event: Event) -> bool:
        events.append(event)
        return event.done < last

    made = make(progress=listen)
    assert len(events) == last
    assert made.pixels.shape == photo.shape
    assert np.isfinite(made.pixels).all()


def test_blending_keeps_strong_responses() -> None:
    own = torch.zeros(1, 2, 1, 3)
    own[..., 1], own[..., 2] = 1, 3
    new = torch.full_like(own, 7.0)
    found = blended(own, new, 0.8)
    # Squared responses 0, 2, 18 of 18: the first is far below tau, the others above.
    assert found[0, 0, 0].tolist() == pytest.approx([7, 0.8 * 1 + 0.2 * 7, 0.8 * 3 + 0.2 * 7], abs=1e-4)
    assert torch.equal(blended(own, new, 0.0), new)
    assert blended(torch.zeros_like(own), new, 0.8).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layers": ()}, "layers needs at least one tap"),
        ({"layers": ("relu1_1", "relu2_1")}, "layers must go from deep to shallow"),
        ({"layers": ("relu7_1",)}, "has no tap 'relu7_1'"),
        ({"patches": (3,)}, "patches has 1 numbers for 5 layers: give 5"),
        ({"content_weights": (0.5,)}, "content_weights has 1 numbers for 5 layers: give 4"),
        ({"content_weights": (0.5, 0.5, 0.5, 2)}, "content_weights must be from 0 to 1"),
        ({"reaches": (0, 1, 1, 1)}, "patches and reaches must be at least 1"),
    ],
)
def test_invalid_settings_are_errors(make: Make, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(**settings)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("quality", ["draft", "best", "published"])
def test_every_quality_runs(make: Make, quality: str) -> None:
    content = np.full((40, 40, 3), 0.5, np.float32)
    assert np.isfinite(make(content, quality=quality).pixels).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 33), (5, 40)])
def test_small_and_flat_pictures(make: Make, painting: Floats, shape: tuple[int, int]) -> None:
    content = np.zeros((*shape, 3), np.float32)
    for style in (painting, np.ones((2, 3, 3), np.float32)):
        made = make(content, style)
        assert made.pixels.shape == content.shape
        assert np.isfinite(made.pixels).all()


def test_hidden_pixels_of_a_style_are_not_copied(photo: Floats, tiny_encoder: Path) -> None:
    """A style whose hidden half is green, which here is left green: none of it is in the picture."""
    style = torch.rand((1, 3, 48, 64), generator=torch.Generator().manual_seed(0))
    style[:, 1] = 0
    style[..., 32:] = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    alpha = torch.ones(1, 1, 48, 64)
    alpha[..., 32:] = 0
    content = torch.from_numpy(photo).permute(2, 0, 1)[None]
    content[:, :, :, 28:] = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    knobs = parse(DeepAnalogy.Knobs, {"encoder": str(tiny_encoder), **FEW})
    green = []
    for seen in (alpha, None):
        job = Job(content, [style], [1.0], torch.device("cpu"), torch.float32, styles_seen=[seen])
        green.append(float(DeepAnalogy().picture(job, knobs)[:, 1].mean()))
    assert green[0] < 0.02
    assert green[1] > 0.2
