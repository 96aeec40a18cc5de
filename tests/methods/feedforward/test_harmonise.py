"""Harmonising: only the object is repainted, by what surrounds it, in colours between both."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import atelier
from atelier.core.errors import UsageError
from atelier.images.regions import feather

Floats = npt.NDArray[np.float32]
FAST = {"engine": "adain", "device": "cpu"}


@pytest.fixture
def meadow() -> Floats:
    """Green strokes, (64, 80, 3)."""
    y, x = np.mgrid[0:64, 0:80].astype(np.float32)
    strokes = 0.5 + 0.25 * np.sin(x / 2 + np.sin(y / 7))
    return np.stack([0.5 * strokes, strokes, 0.4 * strokes], 2)


@pytest.fixture
def mask() -> Floats:
    mask = np.zeros((64, 80), np.float32)
    mask[16:48, 24:56] = 1
    return mask


@pytest.fixture
def composite(meadow: Floats, mask: Floats) -> Floats:
    """A red square with shades in the meadow."""
    shades = np.linspace(0.5, 1, 80, dtype=np.float32)
    rose = np.broadcast_to(shades[:, None] * np.float32([0.9, 0.1, 0.1]), (64, 80, 3))
    return np.where(mask[..., None] > 0, rose, meadow)


def test_the_painting_stays_as_it_is_and_the_object_does_not(
    composite: Floats, mask: Floats, meadow: Floats
) -> None:
    made = atelier.harmonise(composite, mask, **FAST).pixels
    outside = feather(mask, 2) == 0
    assert np.array_equal(made[outside], composite[outside])
    assert np.abs(made - composite)[mask > 0].mean() > 0.02


def test_what_surrounds_the_object_is_its_style(composite: Floats, mask: Floats, meadow: Floats) -> None:
    """Of two paintings that differ only under the object, the same comes out; with another one, another."""
    alone = atelier.harmonise(composite, mask, **FAST).pixels
    given = atelier.harmonise(composite, mask, composite, **FAST, own_colours=0).pixels
    blind = atelier.harmonise(composite, mask, **FAST, own_colours=0).pixels
    inside = mask > 0
    green = [one[inside][:, 1].mean() - one[inside][:, 0].mean() for one in (blind, given)]
    assert green[0] > green[1] + 0.02  # the object's red counts where the composite itself is the style
    other = atelier.harmonise(composite, mask, 1 - meadow, **FAST).pixels
    assert np.abs(other - alone)[inside].mean() > 0.02


def test_the_object_keeps_its_colours_as_far_as_is_asked(composite: Floats, mask: Floats) -> None:
    inside = mask > 0
    red = [
        (one[inside][:, 0] - one[inside][:, 1]).mean()
        for share in (0.0, 0.5, 1.0)
        for one in [atelier.harmonise(composite, mask, **FAST, own_colours=share).pixels]
    ]
    own = (composite[inside][:, 0] - composite[inside][:, 1]).mean()
    assert red[0] < red[1] < red[2]
    assert abs(red[2] - own) < 0.3 * abs(red[0] - own)
    assert red[0] < 0


def test_the_soft_edge_shows_the_painting_and_not_the_photo(
    composite: Floats, mask: Floats, meadow: Floats
) -> None:
    """With the painting given, the edge at half strength lies between it and the painted object."""
    settings: dict[str, Any] = {**FAST, "own_colours": 0.0, "feather": 6}
    made = atelier.harmonise(composite, mask, meadow, **settings).pixels
    soft = feather(mask, 6)
    rim = (soft > 0.5) & (soft < 0.8)
    assert (made[rim][:, 0] - made[rim][:, 1]).max() < 0.1  # no red
    assert (composite[rim][:, 0] - composite[rim][:, 1]).min() > 0.3


@pytest.mark.parametrize("engine", ["nnst_d", "cap_vstnet"])
def test_other_methods_do_the_work(engine: str, composite: Floats, mask: Floats) -> None:
    made = atelier.harmonise(composite, mask, engine=engine, device="cpu")
    assert made.recipe is not None
    assert f"{engine}.atelier" in made.recipe["weights"]
    assert np.array_equal(made.pixels[:8], composite[:8])


def test_a_mask_that_leaves_no_painting_is_refused(composite: Floats, mask: Floats, meadow: Floats) -> None:
    whole = np.ones_like(mask)
    with pytest.raises(UsageError, match="no painting round the object"):
        atelier.harmonise(composite, whole, **FAST)
    assert atelier.harmonise(composite, whole, meadow, **FAST).size == (80, 64)
    with pytest.raises(UsageError, match="harmonise needs a mask"):
        atelier.stylize(composite, method="harmonise")
