"""The bundled encoder: intact, small, and sensitive to style."""

from __future__ import annotations

import json

import pytest
import torch

from atelier import examples
from atelier.features import vgg
from atelier.images import Picture
from atelier.maths import channel_moments
from atelier.store import weights

NAME = "encoder.atelier"
TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@pytest.fixture(scope="module")
def encoder() -> vgg.VGG:
    return vgg.load(NAME)


def test_bundled_encoder_is_half_precision_and_under_eight_megabytes() -> None:
    assert weights.locate(NAME).stat().st_size < 8e6
    assert {tensor.dtype for tensor in weights.load(NAME).values()} == {torch.float16}


def test_bundled_encoder_has_the_default_plan_and_training_facts(encoder: vgg.VGG) -> None:
    assert (encoder.plan.widths, encoder.plan.convs) == (vgg.ENCODER.widths, vgg.ENCODER.convs)
    facts = weights.metadata(NAME)
    assert json.loads(facts["scores"])["top1_64"] > 0.5
    assert json.loads(facts["training"])["settings"]["seed"] == 0


def test_no_channel_is_dead_or_exploding(encoder: vgg.VGG) -> None:
    pictures = [Picture.of(load()).resized(256).tensor() for load in examples.photos().values()]
    for tap in TAPS:
        strongest = torch.stack([encoder(picture, [tap])[tap].amax((0, 2, 3)) for picture in pictures]).amax(
            0
        )
        assert (strongest > 0).float().mean() > 0.95, tap
        assert strongest.max() < 200, tap


def test_halves_of_one_style_are_closer_than_two_styles(encoder: vgg.VGG) -> None:
    """The statistics of relu3_1 tell styles apart: what every loss here rests on."""
    halves = {}
    for name in ("nocturne", "woodcut", "etching", "stained_glass", "ink", "garden"):
        picture = Picture.of(examples.style(name, size=256)).tensor()
        halves[name] = [_style(encoder, half) for half in picture.chunk(2, dim=3)]
    for name, (left, right) in halves.items():
        others = [torch.dist(left, half) for other, pair in halves.items() if other != name for half in pair]
        assert torch.dist(left, right) < min(others), name


def _style(encoder: vgg.VGG, picture: torch.Tensor) -> torch.Tensor:
    mean, deviation = channel_moments(encoder(picture, ["relu3_1"])["relu3_1"])
    return torch.cat([mean, deviation], 1)


def test_half_precision_features_match_float32(encoder: vgg.VGG) -> None:
    picture = Picture.of(examples.photo("astronaut")).resized(128).tensor()
    exact = encoder(picture, TAPS)
    quick = vgg.load(NAME).prepare(dtype=torch.bfloat16)(picture, TAPS)
    for tap in TAPS:
        assert torch.dist(quick[tap].float(), exact[tap]) < 0.02 * exact[tap].norm(), tap
