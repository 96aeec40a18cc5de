"""Traits are measured: each grows on a picture that is made to have more of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from atelier import examples
from atelier.images import Picture
from atelier.lexicon.traits import KINDS, WORDS, measured

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def garden() -> Floats:
    return examples.style("garden", size=256)


def traits(pixels: Floats) -> dict[str, float]:
    return measured(Picture.of(pixels.clip(0, 1).astype(np.float32)))


def test_every_trait_has_words_and_no_word_two_traits() -> None:
    words = [word for pair in WORDS.values() for word in pair if word]
    assert len(words) == len(set(words))
    assert set(KINDS) <= set(WORDS)
    assert list(traits(np.full((64, 48, 3), 0.5, np.float32))) == list(WORDS)


def test_light_and_contrast(garden: Floats) -> None:
    usual, pale, flat = traits(garden), traits(0.5 + 0.5 * garden), traits(0.5 + 0.3 * (garden - 0.5))
    assert pale["lightness"] > usual["lightness"]
    assert usual["contrast"] > flat["contrast"]
    assert usual["chroma"] > flat["chroma"]


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("red", (0.8, 0.1, 0.1)),
        ("orange", (0.95, 0.55, 0.1)),
        ("yellow", (0.95, 0.9, 0.2)),
        ("green", (0.1, 0.6, 0.2)),
        ("turquoise", (0.1, 0.75, 0.75)),
        ("blue", (0.2, 0.4, 0.8)),
        ("violet", (0.6, 0.1, 0.7)),
    ],
)
def test_a_hue_is_highest_for_its_own_colour(name: str, colour: tuple[float, ...]) -> None:
    found = traits(np.tile(np.array(colour, np.float32), (64, 64, 1)))
    hues = ("red", "orange", "yellow", "green", "turquoise", "blue", "violet")
    assert max(hues, key=lambda hue: found[hue]) == name
    assert 0 < traits(_half(colour))[name] < found[name]


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("pink", (1.0, 0.6, 0.7)),
        ("brown", (0.4, 0.25, 0.1)),
        ("gold", (0.75, 0.6, 0.15)),
        ("white", (0.97, 0.97, 0.95)),
        ("grey", (0.5, 0.5, 0.5)),
        ("black", (0.05, 0.05, 0.05)),
    ],
)
def test_other_colours_are_shares_of_the_picture(name: str, colour: tuple[float, ...]) -> None:
    assert traits(np.tile(np.array(colour, np.float32), (64, 64, 1)))[name] > 0.5
    assert traits(np.tile(np.float32((0.1, 0.3, 0.9)), (64, 64, 1)))[name] == 0


def _half(colour: tuple[float, ...]) -> Floats:
    """A picture of which half has this colour, and half is grey."""
    pixels = np.full((64, 64, 3), 0.5, np.float32)
    pixels[:32] = colour
    return pixels


def test_warmth() -> None:
    warm, cold = (traits(np.tile(np.float32(one), (64, 64, 1))) for one in ((0.9, 0.6, 0.2), (0.2, 0.4, 0.9)))
    assert warm["warmth"] > 0 > cold["warmth"]


def test_marks_of_the_brush() -> None:
    drawn = {
        name: traits(examples.style(name, size=256)) for name in ("garden", "etching", "ink", "abstraction")
    }
    assert max(drawn, key=lambda name: drawn[name]["dots"]) == "garden"
    assert max(drawn, key=lambda name: drawn[name]["lines"]) == "etching"
    assert drawn["abstraction"]["patches"] > drawn["garden"]["patches"]


def test_detail_and_flatness() -> None:
    y, x = np.mgrid[0:256, 0:256]
    halves = np.repeat((x > 128).astype(np.float32)[..., None], 3, 2) * 0.6 + 0.2
    noise = np.random.default_rng(0).normal(0, 0.1, halves.shape).astype(np.float32)
    blocks = np.repeat((((x // 16) + (y // 16)) % 2).astype(np.float32)[..., None], 3, 2) * 0.3
    plain, grainy, rough = traits(halves), traits(halves + noise), traits(halves + blocks)
    assert plain["flatness"] > 0.8 > grainy["flatness"]
    assert grainy["fineness"] > plain["fineness"]
    assert rough["roughness"] > plain["roughness"]
