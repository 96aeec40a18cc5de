"""The decoder that ships: it paints a picture from itself, and gets nearer to a style than its photo is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import atelier
from atelier import examples, features
from atelier.core import weights
from atelier.images import Picture
from atelier.metrics.content import light_similarity
from atelier.metrics.style import style_distance


def test_it_is_half_precision_and_says_how_it_was_made() -> None:
    state = weights.load("nnst_d.atelier")
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert sum(tensor.numel() for tensor in state.values()) < 1.5e6
    assert '"steps": ' in weights.metadata("nnst_d.atelier")["training"]


def test_a_picture_in_its_own_style_comes_back() -> None:
    photo = Picture.of(examples.photo("astronaut")).resized(192)
    made = atelier.stylize(photo, photo, method="nnst_d", device="cpu")
    assert np.abs(made.pixels - photo.pixels).mean() < 0.08


@pytest.mark.parametrize(("photo", "style"), [("chelsea", "stained_glass"), ("coffee", "cubist")])
def test_the_style_arrives_and_the_photo_stays(photo: str, style: str) -> None:
    content = Picture.of(examples.photo(photo)).resized(256)
    painting = Picture.of(examples.style(style, size=256))
    made = atelier.stylize(content, painting, method="nnst_d", device="cpu")
    encoder = features.load(padding="replicate")
    before, after = (style_distance(one.tensor(), painting.tensor(), encoder) for one in (content, made))
    assert after[0] < 0.6 * before[0]
    assert after[1] < 0.8 * before[1]
    assert light_similarity(made.tensor(), content.tensor()) > 0.2
