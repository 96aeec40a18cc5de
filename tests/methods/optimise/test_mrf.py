"""MRF: copies of the style, matching, and the effect of the knobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from atelier import Picture, UsageError
from atelier.core.progress import Event
from atelier.methods.optimise.mrf import style_copies, turned

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]
METHOD = "mrf"
FEW = {"iterations": 3, "coarse_iterations": 2, "smallest": 999}


def losses(make: Make, **settings: Any) -> list[dict[str, float]]:
    events: list[Event] = []
    make(progress=events.append, **settings)
    return [dict(event.losses) for event in events]


def test_the_energy_falls(make: Make) -> None:
    found = [terms["style"] for terms in losses(make, iterations=40, content_weight=0, smoothness=0)]
    assert np.mean(found[-5:]) < 0.7 * found[0]


def test_more_style_copies_never_raise_the_loss(make: Make) -> None:
    some = {"iterations": 1, "style_layers": ("relu2_1",), "stride": 1}
    (plain,), (turned_too,) = losses(make, **some), losses(make, rotations=(-20, 20), scales=(0.8, 1), **some)
    assert turned_too["style"] != plain["style"]
    assert turned_too["style"] < 1.05 * plain["style"]


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("patch", 2),
        ("stride", 1),
        ("colours", False),
        ("match_every", 1),
        ("rotations", (90,)),
        ("scales", (0.7,)),
    ],
)
def test_a_knob_changes_the_picture(make: Make, knob: str, value: Any) -> None:
    plain = make(style_layers=("relu2_1",), iterations=6, step_size=0.1)
    other = make(style_layers=("relu2_1",), iterations=6, step_size=0.1, **{knob: value})
    assert not np.array_equal(plain.pixels, other.pixels)


def test_higher_strength_moves_further_from_the_photo(make: Make, photo: Floats) -> None:
    far = [np.abs(make(strength=strength, iterations=12).pixels - photo).mean() for strength in (0.1, 1)]
    assert far[0] < far[1]


def test_two_styles_share_the_objective_by_weight(make: Make, photo: Floats, painting: Floats) -> None:
    alone = make(style=painting)
    assert np.array_equal(alone.pixels, make(style=[painting, photo], style_weights=(1, 0)).pixels)


def test_a_90_degree_rotation_is_exact() -> None:
    picture = torch.rand(1, 3, 8, 8)
    values, inside = turned(picture, 90)
    assert (values - picture.rot90(1, (2, 3))).abs().max() < 1e-4
    assert inside.mean() > 0.7


def test_a_rotation_keeps_proportions() -> None:
    # A horizontal bar through the middle of a wide picture, turned by 90 degrees, is as thick as before.
    picture = torch.zeros(1, 3, 21, 41)
    picture[:, :, 9:12] = 1
    values, inside = turned(picture, 90)
    middle = values[0, 0, 10]
    assert middle.sum().item() == pytest.approx(3, abs=0.3)
    assert inside[0, 0, 10, 10:31].all()
    assert not inside[0, 0, 10, :9].any()


def test_the_unchanged_style_comes_first() -> None:
    style = torch.rand(1, 3, 20, 30)
    copies = style_copies(style, (15.0,), (0.5, 1.0))
    assert torch.equal(copies[0][0], style)
    assert [tuple(picture.shape[-2:]) for picture, _ in copies] == [(20, 30), (10, 15), (20, 30)]
    assert [bool(mask.all()) for _, mask in copies] == [True, False, False]
    assert len(style_copies(style, (0.0,), (1.0,))) == 1


@pytest.mark.parametrize("quality", ["draft", "best", "published"])
def test_every_quality_runs(make: Make, quality: str) -> None:
    assert np.isfinite(make(quality=quality, iterations=1).pixels).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 33), (5, 40)])
def test_small_and_flat_pictures(make: Make, painting: Floats, shape: tuple[int, int]) -> None:
    content = np.zeros((*shape, 3), np.float32)
    for style in (painting, np.ones((2, 3, 3), np.float32)):
        made = make(content, style, rotations=(0, 30), scales=(0.5, 1), smallest=16)
        assert made.pixels.shape == content.shape
        assert np.isfinite(made.pixels).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"style_layers": ()}, "style_layers needs at least one tap"),
        ({"style_layers": ("relu3_9",)}, "has no tap 'relu3_9'"),
        ({"style_layer_weights": (1,)}, "style_layer_weights has 1 numbers for 3 style_layers"),
        ({"patch": 0}, "patch = 0 is not allowed"),
    ],
)
def test_invalid_settings_are_errors(make: Make, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(**settings)
    assert sentence in str(caught.value)
