"""MMD: losses fall, kernels combine, and invalid settings are errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atelier import Picture, UsageError, stylize
from atelier.core.progress import Event

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]
METHOD = "mmd"
FEW = {"iterations": 3, "coarse_iterations": 2, "smallest": 999}
KERNELS = ["linear", "polynomial", "gaussian", "moments"]


def first(make: Make, **settings: Any) -> dict[str, float]:
    """The terms of the first evaluation, from the style as a start."""
    events: list[Event] = []
    made = {"start": "content", "iterations": 1, "progress": events.append}
    make(**made | settings)
    return dict(events[0].losses)


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_kernel_falls(make: Make, kernel: str) -> None:
    events: list[Event] = []
    make(kernels=(kernel,), iterations=40, content_weight=0, smoothness=0, progress=events.append)
    found = [event.losses["style"] for event in events]
    assert len(found) == 40
    assert np.mean(found[-5:]) < 0.5 * found[0]


def test_several_kernels_give_the_weighted_mean(make: Make) -> None:
    # With every position drawn, the Gaussian estimate is a number and not a draw.
    some = {"samples": 10_000}
    alone = {kernel: first(make, kernels=(kernel,), **some)["style"] for kernel in ("linear", "gaussian")}
    fused = first(make, kernels=("linear", "gaussian"), kernel_weights=(3, 1), **some)["style"]
    assert fused == pytest.approx(0.75 * alone["linear"] + 0.25 * alone["gaussian"], rel=1e-5)


def test_the_polynomial_kernel_equals_gatys(
    make: Make, photo: Floats, painting: Floats, tiny_encoder: Path
) -> None:
    events: list[Event] = []
    few = {"encoder": str(tiny_encoder), "iterations": 1, "smallest": 999, "device": "cpu", "half": False}
    stylize(photo, painting, method="gatys", style_loss="gram", progress=events.append, **few)
    mine = first(make, kernels=("polynomial",))
    assert mine == pytest.approx(dict(events[0].losses), rel=1e-5)


@pytest.mark.parametrize(
    ("knob", "value"), [("bandwidth", 0.3), ("estimator", "linear"), ("samples", 20), ("offset", 1.0)]
)
def test_a_knob_changes_its_kernel(make: Make, knob: str, value: Any) -> None:
    kernel = ("polynomial",) if knob == "offset" else ("gaussian",)
    assert first(make, kernels=kernel) != first(make, kernels=kernel, **{knob: value})


def test_the_seed_changes_the_positions(make: Make) -> None:
    drawn = {"kernels": ("gaussian",), "samples": 20}
    one, again, other = (make(seed=seed, **drawn).pixels for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_lbfgs_uses_a_fixed_objective(make: Make) -> None:
    events: list[Event] = []
    make(kernels=("gaussian",), samples=50, optimiser="lbfgs", iterations=30, progress=events.append)
    assert sum(events[-1].losses.values()) < 0.7 * sum(events[0].losses.values())


def test_two_styles_share_the_objective_by_weight(make: Make, photo: Floats, painting: Floats) -> None:
    alone = make(style=painting)
    assert np.array_equal(alone.pixels, make(style=[painting, photo], style_weights=(1, 0)).pixels)
    events: list[Event] = []
    make(style=[painting, photo], progress=events.append)
    assert [event.done for event in events] == [1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kernels": ()}, "kernels needs at least one kernel"),
        ({"kernels": ("linear", "linear")}, "none of them twice"),
        ({"kernels": ("gausian",)}, "kernels = 'gausian' is not allowed"),
        ({"kernel_weights": (1,)}, "kernel_weights has 1 numbers for 2 kernels"),
        ({"style_layer_weights": (1, 2)}, "style_layer_weights has 2 numbers for 4 style_layers"),
        ({"samples": 1}, "samples = 1 is not allowed"),
        ({"bandwidth": 0}, "bandwidth = 0 is not allowed"),
    ],
)
def test_invalid_settings_are_errors(make: Make, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(**settings)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("quality", ["draft", "best", "published"])
def test_every_quality_runs(make: Make, quality: str, tiny_encoder: Path) -> None:
    made = make(quality=quality, iterations=2, optimiser="adam")
    assert made.recipe is not None
    assert made.recipe["weights"].keys() == {tiny_encoder.name}


@pytest.mark.parametrize("shape", [(1, 1), (1, 33), (5, 40)])
def test_small_and_flat_pictures(make: Make, painting: Floats, shape: tuple[int, int]) -> None:
    content = np.zeros((*shape, 3), np.float32)
    for style in (painting, np.ones((20, 20, 3), np.float32)):
        made = make(content, style, kernels=tuple(KERNELS))
        assert made.pixels.shape == content.shape
        assert np.isfinite(made.pixels).all()
