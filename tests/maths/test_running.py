"""Statistics over the frames of a clip."""

from __future__ import annotations

import torch

from atelier import maths
from atelier.maths.running import SHARE
from atelier.maths.whitening import adain
from atelier.networks.conditional import normalise


def frames() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [(index + 1) * torch.rand((1, 4, 8, 8), generator=generator) + index for index in range(3)]


def test_normalisation_uses_running_means() -> None:
    memory: dict[str, torch.Tensor] = {}
    mean = variance = None
    for features in frames():
        now = features.mean((0, 2, 3)), features.var((0, 2, 3), correction=0)
        mean = now[0] if mean is None else mean + SHARE * (now[0] - mean)
        variance = now[1] if variance is None else variance + SHARE * (now[1] - variance)
        with maths.remembering(memory):
            found = normalise(features, eps=0.0)
        expected = (features - mean[:, None, None]) / variance.sqrt()[:, None, None]
        torch.testing.assert_close(found, expected)


def test_the_first_frame_is_as_a_picture() -> None:
    features, mean, deviation = frames()[1], torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1)
    alone = adain(features, mean, deviation), normalise(features)
    with maths.remembering({}):
        first = adain(features, mean, deviation), normalise(features)
    for one, other in zip(alone, first, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert not maths.holding()


def test_adain_holds_the_statistics_of_the_content() -> None:
    memory: dict[str, torch.Tensor] = {}
    first, second, _ = frames()
    mean, deviation = torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1)
    with maths.remembering(memory):
        adain(first, mean, deviation)
    with maths.remembering(memory):
        held = adain(second, mean, deviation)
    own = first.mean((2, 3), keepdim=True)
    own = own + SHARE * (second.mean((2, 3), keepdim=True) - own)
    spread = [(one.var((2, 3), keepdim=True) + 1e-5).sqrt() for one in (first, second)]
    expected = (second - own) / torch.lerp(*spread, SHARE)
    torch.testing.assert_close(held, expected, atol=1e-4, rtol=1e-4)


def test_another_size_begins_anew() -> None:
    memory: dict[str, torch.Tensor] = {}
    for value in (torch.zeros(2), torch.ones(3)):
        with maths.remembering(memory):
            assert torch.equal(maths.held("mean", value), value)
