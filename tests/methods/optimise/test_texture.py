"""Texture: the sample's statistics from noise, at any size, and seamless."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from atelier import Picture, UsageError, features
from atelier.core.progress import Event
from atelier.images import write
from atelier.methods.optimise.texture import _wrapped_resize

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]
METHOD = "texture"
FEW = {"iterations": 3, "coarse_iterations": 2, "smallest": 999}


@pytest.fixture
def make(make: Make) -> Make:
    """The shared one; the content gives the size alone."""

    def call(content: Any = None, **settings: Any) -> Picture:
        return make(np.zeros((48, 48, 3), np.float32) if content is None else content, **settings)

    return call


def seam(pixels: Floats) -> float:
    """The step across the border where copies meet, relative to the usual step from pixel to pixel."""
    across = np.abs(pixels[0] - pixels[-1]).mean() + np.abs(pixels[:, 0] - pixels[:, -1]).mean()
    inside = np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()
    return float(across / inside)


@pytest.mark.parametrize("style_loss", ["gram", "centred-gram", "moments", "wasserstein"])
def test_every_loss_falls(make: Make, style_loss: str) -> None:
    events: list[Event] = []
    make(style_loss=style_loss, iterations=40, smoothness=0, progress=events.append)
    found = [event.losses["style"] for event in events]
    assert np.mean(found[-5:]) < 0.3 * found[0]


def test_published_loss_matches_the_paper(make: Make, painting: Floats, tiny_encoder: Path) -> None:
    def first(scale: str) -> float:
        events: list[Event] = []
        few = {"style_layers": ("relu2_1",), "style_loss": "gram", "iterations": 1}
        make(scale=scale, progress=events.append, **few)
        return events[0].losses["style"]

    # Equation 4 divides the squared differences of the Gram matrices by 4 N^2, not by the sample's squares.
    seen = features.load(tiny_encoder, padding="replicate")(Picture.of(painting).tensor(), ["relu2_1"])
    flat = seen["relu2_1"][0].flatten(1).double()
    squares = (flat @ flat.T / flat.shape[1]).square().sum().item()
    assert first("published") == pytest.approx(first("relative") * squares / (4 * 8**2), rel=1e-4)


def test_only_the_contents_size_is_used(make: Make, photo: Floats) -> None:
    assert np.abs(make(photo).pixels - make(1 - photo).pixels).max() < 1e-6
    assert make(photo).size == (56, 40)
    begun = [make(content, start="content").pixels for content in (photo, 1 - photo)]
    assert np.abs(begun[0] - begun[1]).max() > 0.1


def test_the_seed_changes_the_texture(make: Make) -> None:
    one, again, other = (make(seed=seed).pixels for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_seamless_has_no_seam(make: Make) -> None:
    # A sample that is soft inside, so that a seam would show.
    y, x = np.mgrid[0:64, 0:64].astype(np.float32) / 64
    sample = 0.5 + 0.4 * np.stack([np.sin(9 * x), np.cos(7 * y), np.sin(5 * (x + y))], 2)
    some = {"iterations": 60, "coarse_iterations": 30, "smallest": 24, "step_size": 0.05, "smoothness": 3.0}
    plain, seamless = (make(style=sample, seamless=wrap, **some).pixels for wrap in (False, True))
    assert seam(seamless) < 1.25
    assert seam(plain) > 1.5


def test_seamless_synthesis_is_equivariant_to_rolling(make: Make, tmp_path: Path) -> None:
    # From a start rolled by a multiple of the deepest layer's step comes the same texture, rolled.
    start = np.random.default_rng(0).random((48, 48, 3), dtype=np.float32)
    made = []
    for pixels in (start, np.roll(start, (16, 24), (0, 1))):
        write(Picture.of(pixels), tmp_path / "start.png", overwrite=True)
        made.append(make(start=str(tmp_path / "start.png"), seamless=True).pixels)
    assert np.abs(np.roll(made[0], (16, 24), (0, 1)) - made[1]).mean() < 1e-3


def test_wrapped_resize_stays_tileable() -> None:
    y, x = np.mgrid[0:20, 0:30]
    wave = np.sin(2 * np.pi * x / 30) + np.cos(2 * np.pi * y / 20)
    picture = torch.from_numpy(0.5 + 0.2 * wave).float().expand(1, 3, 20, 30)
    large = _wrapped_resize(picture, (40, 60))
    assert large.shape == (1, 3, 40, 60)
    assert seam(large[0].permute(1, 2, 0).numpy()) < 1.2
    # Where it is rolled does not matter.
    rolled = _wrapped_resize(picture.roll((5, 10), (2, 3)), (40, 60))
    assert torch.allclose(rolled, large.roll((10, 20), (2, 3)), atol=1e-4)
    assert _wrapped_resize(picture, (20, 30)) is picture


def test_two_samples_are_mixed_by_their_weights(make: Make, photo: Floats, painting: Floats) -> None:
    alone = make(style=painting)
    assert np.array_equal(alone.pixels, make(style=[painting, photo], style_weights=(1, 0)).pixels)
    assert not np.array_equal(alone.pixels, make(style=[painting, photo]).pixels)


@pytest.mark.parametrize("quality", ["draft", "best", "published"])
def test_every_quality_runs(make: Make, quality: str) -> None:
    assert np.isfinite(make(quality=quality, iterations=2, smallest=999).pixels).all()


@pytest.mark.parametrize("seamless", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 33), (5, 40)])
def test_small_pictures(make: Make, shape: tuple[int, int], seamless: bool) -> None:
    made = make(np.zeros((*shape, 3), np.float32), seamless=seamless, smallest=16)
    assert made.pixels.shape == (*shape, 3)
    assert np.isfinite(made.pixels).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"style_layers": ()}, "style_layers needs at least one tap"),
        ({"style_loss": "gramm"}, "style_loss = 'gramm' is not allowed"),
        ({"start": "nois"}, "did you mean 'noise'?"),
    ],
)
def test_invalid_settings_are_errors(make: Make, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make(**settings)
    assert sentence in str(caught.value)
