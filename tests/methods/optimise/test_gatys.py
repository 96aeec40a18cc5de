"""Gatys: the effect of every knob."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from atelier import InputError, Picture, UsageError, WeightsError, stylize
from atelier.core.progress import Event
from atelier.images import write

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]
METHOD = "gatys"
FEW = {"iterations": 4, "coarse_iterations": 3, "smallest": 32}


def totals(events: list[Event], stage: str) -> list[float]:
    return [sum(event.losses.values()) for event in events if event.stage == stage]


def test_strength_0_is_the_content_to_the_bit(make: Make, photo: Floats) -> None:
    assert np.array_equal(make(strength=0).pixels, photo)


def test_higher_strength_moves_further_from_the_photo(make: Make, photo: Floats) -> None:
    far = [np.abs(make(strength=strength, iterations=15).pixels - photo).mean() for strength in (0.1, 0.5, 1)]
    assert 0 < far[0] < far[1] < far[2]


def test_the_same_seed_gives_the_same_pixels(make: Make) -> None:
    first, again, other = (make(start="noise", seed=seed).pixels for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
@pytest.mark.parametrize("style_loss", ["gram", "centred-gram", "moments", "wasserstein"])
def test_every_style_loss_falls(make: Make, style_loss: str, optimiser: str) -> None:
    events: list[Event] = []
    make(style_loss=style_loss, optimiser=optimiser, iterations=25, smallest=999, progress=events.append)
    found = totals(events, "56 x 40")
    assert len(found) == 25
    assert min(found[-5:]) < 0.7 * found[0]


def test_events_count_all_sizes_and_name_their_terms(make: Make) -> None:
    events: list[Event] = []
    make(smallest=16, progress=events.append)
    assert [event.done for event in events] == list(range(1, 11))
    assert {event.total for event in events} == {3 + 3 + 4}
    assert list(dict.fromkeys(event.stage for event in events)) == ["16 x 11", "30 x 21", "56 x 40"]
    assert all(event.losses.keys() == {"style", "content", "smoothness"} for event in events)
    assert events[0].preview is not None
    assert events[0].preview().shape == (1, 3, 11, 16)


def test_a_term_with_zero_weight_is_absent(make: Make) -> None:
    events: list[Event] = []
    make(smoothness=0, content_weight=0, smallest=999, iterations=1, progress=events.append)
    assert events[0].losses.keys() == {"style", "content"}
    assert events[0].losses["content"] == 0


def test_a_weight_scales_its_term(make: Make) -> None:
    def first(**settings: Any) -> Event:
        events: list[Event] = []
        make(smallest=999, iterations=1, start="style", progress=events.append, **settings)
        return events[0]

    plain, heavy = first(), first(content_weight=0.3, smoothness=3.0, strength=0.5)
    assert heavy.losses["content"] == pytest.approx(10 * plain.losses["content"], rel=1e-5)
    assert heavy.losses["smoothness"] == pytest.approx(3 * plain.losses["smoothness"], rel=1e-5)
    assert heavy.losses["style"] == pytest.approx(plain.losses["style"] / 4, rel=1e-5)


def test_a_style_with_zero_weight_is_ignored(make: Make, painting: Floats) -> None:
    alone = make(style=painting)
    both = make(style=[painting, 1 - painting], style_weights=(1, 0))
    assert np.array_equal(alone.pixels, both.pixels)
    even = make(style=[painting, 1 - painting])
    assert not np.array_equal(alone.pixels, even.pixels)


def test_the_same_style_twice_equals_one(make: Make, painting: Floats) -> None:
    alone, twice = make(style=painting), make(style=[painting, painting], style_weights=(1, 3))
    assert np.abs(alone.pixels - twice.pixels).max() < 1e-3


def test_a_layer_with_zero_weight_is_ignored(make: Make) -> None:
    some = make(style_layers=("relu1_1", "relu2_1"), style_layer_weights=(1, 0))
    one = make(style_layers=("relu1_1",))
    assert np.array_equal(some.pixels, one.pixels)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"style_layer_weights": (1, 2)}, "style_layer_weights has 2 numbers for 4 style_layers"),
        ({"style_layer_weights": (1, 2, 3, -4)}, "must not be negative"),
        ({"style_layer_weights": (0, 0, 0, 0)}, "one must be above 0"),
        ({"style_layers": ()}, "style_layers needs at least one tap"),
        ({"style_layers": ("relu1_1", "relu1_1")}, "none of them twice"),
        ({"style_layers": ("relu9_1",)}, "has no tap 'relu9_1': did you mean"),
        ({"content_layers": ("conv1_9",)}, "has no tap 'conv1_9': did you mean"),
        ({"content_layers": ()}, "content_layers needs at least one tap"),
        ({"style_loss": "gramm"}, "style_loss = 'gramm' is not allowed: it should be 'gram'"),
        ({"iterations": 0}, "iterations = 0 is not allowed"),
        ({"average": 1.0}, "average = 1.0 is not allowed: it should be less than 1"),
        ({"iteration": 3}, "gatys has no knob 'iteration': did you mean 'iterations'?"),
    ],
)
def test_invalid_settings_are_errors(make: Make, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(**settings)
    assert sentence in str(caught.value)


def test_missing_weights_are_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*gone\.safetensors"):
        make(encoder=str(tmp_path / "gone.safetensors"))
    with pytest.raises(WeightsError, match=r"vgg19\.imagenet are not installed"):
        make(encoder="vgg19.imagenet")


@pytest.mark.parametrize("start", ["content", "recoloured", "style", "noise", "file"])
def test_start_selects_the_initial_picture(
    make: Make, photo: Floats, painting: Floats, tmp_path: Path, start: str
) -> None:
    path = tmp_path / "start.png"
    write(Picture.of(photo[::-1].copy()), path)
    seen: list[Event] = []
    # A step too small to go anywhere leaves the start in the preview.
    make(
        start=str(path) if start == "file" else start,
        smallest=999,
        iterations=1,
        average=0,
        progress=seen.append,
        style=painting,
    )
    assert seen[0].preview is not None
    found = Picture.from_tensor(seen[0].preview()).pixels
    if start == "content":
        assert np.array_equal(found, photo)
    elif start == "recoloured":
        colours = {"method": "colour", "transfer": "monge-kantorovich", "device": "cpu"}
        recoloured = stylize(photo, painting, **colours).pixels
        assert np.abs(found - recoloured).mean() < 0.01
        assert np.abs(found - photo).mean() > 0.05
    elif start == "file":
        assert np.abs(found - photo[::-1]).max() <= 0.5 / 255 + 1e-6
    elif start == "noise":
        assert abs(found.mean() - 0.5) < 0.02
        assert abs(found.std() - 12**-0.5) < 0.02
    else:
        squeezed = Picture.of(painting).resized((56, 42)).resized((40, 56)).pixels
        assert np.corrcoef(found.ravel(), squeezed.ravel())[0, 1] > 0.9


def test_an_unknown_start_is_an_error(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        make(start=str(tmp_path / "gone.png"))


@pytest.mark.parametrize("last", [1, 2, 5])
def test_stopping_returns_a_full_size_picture(make: Make, last: int) -> None:
    events: list[Event] = []

    def listen(event: Event) -> bool:
        events.append(event)
        return event.done < last

    made = make(progress=listen)
    assert len(events) == last
    assert made.size == (56, 40)
    assert made.recipe is not None
    assert made.recipe["stopped_after"] == last
    assert np.isfinite(made.pixels).all()


def test_stopping_without_averaging_returns_the_best(make: Make, photo: Floats) -> None:
    # With such steps the start has the lowest loss, and the others are far away.
    content = {"style_weight": 0, "smoothness": 0, "step_size": 1.0, "average": 0, "smallest": 999}
    made = make(progress=lambda event: event.done < 3, **content)
    assert np.array_equal(made.pixels, photo)


@pytest.mark.parametrize("style_loss", ["gram", "centred-gram", "moments", "wasserstein"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (1, 33), (17, 2)])
def test_small_pictures(make: Make, painting: Floats, shape: tuple[int, int], style_loss: str) -> None:
    content = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    made = make(content, painting, style_loss=style_loss, smallest=16)
    assert made.pixels.shape == content.shape
    assert np.isfinite(made.pixels).all()


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_small_pictures_with_other_padding(make: Make, padding: str) -> None:
    content = np.full((1, 9, 3), 0.5, np.float32)
    if padding == "zeros":
        assert make(content, padding=padding).size == (9, 1)
    else:
        with pytest.raises(InputError, match="too small for"):
            make(content, padding=padding)


@pytest.mark.parametrize("style_loss", ["gram", "centred-gram", "moments", "wasserstein"])
def test_flat_pictures_stay_finite(make: Make, style_loss: str) -> None:
    black, white = np.zeros((20, 20, 3), np.float32), np.ones((20, 20, 3), np.float32)
    for content, style in ((black, black), (white, black), (black, white)):
        assert np.isfinite(make(content, style, style_loss=style_loss).pixels).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling": "average"},
        {"padding": "zeros"},
        {"scale": "published", "style_weight": 1e3},
        {"scale": "tutorial", "style_weight": 5e6},
        {"half": True},
        {"optimiser": "lbfgs"},
        {"average": 0.0},
    ],
)
def test_each_style_loss_gives_a_different_picture(make: Make, settings: dict[str, Any]) -> None:
    plain, made = make(smallest=999), make(smallest=999, **settings)
    assert np.isfinite(made.pixels).all()
    if settings != {"half": True}:
        assert not np.array_equal(made.pixels, plain.pixels)


@pytest.mark.parametrize("quality", ["draft", "good", "best", "tutorial", "published"])
def test_every_quality_parses_and_runs(make: Make, tiny_encoder: Path, quality: str) -> None:
    made = make(quality=quality, smallest=999, iterations=1)
    assert made.recipe is not None
    assert made.recipe["knobs"]["encoder"] == tiny_encoder.name


def test_published_content_loss_matches_the_paper(make: Make) -> None:
    def content(scale: str) -> float:
        events: list[Event] = []
        make(scale=scale, start="style", content_weight=1, iterations=1, smallest=999, progress=events.append)
        return events[0].losses["content"]

    # Equation 1 sums half the squares; relu4_1 has 16 channels at an eighth of 40 x 56.
    assert content("published") == pytest.approx(content("tutorial") * 16 * 5 * 7 / 2, rel=1e-5)


def test_the_weights_are_in_the_recipe(make: Make, tiny_encoder: Path) -> None:
    import hashlib

    recipe = make().recipe
    assert recipe is not None
    assert recipe["weights"] == {tiny_encoder.name: hashlib.sha256(tiny_encoder.read_bytes()).hexdigest()}
    untouched = make(strength=0).recipe
    assert untouched is not None
    assert untouched["weights"] == {}


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_runs_inside_inference_mode(make: Make, mode: Any) -> None:
    plain = make()
    with mode():
        made = make(half=True) if mode is torch.inference_mode else make()
    assert made.pixels.shape == plain.pixels.shape
    if mode is torch.no_grad:
        assert np.array_equal(made.pixels, plain.pixels)


def test_the_callers_random_state_is_unchanged(make: Make) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make(start="noise")
    assert torch.equal(torch.rand(3), expected)
