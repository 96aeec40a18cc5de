"""Feature columns: positions in every layer, checked by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.core.errors import UsageError
from atelier.features.columns import columns, layers
from atelier.features.vgg import TINY, VGG, VGG16

RAMP = torch.arange(6.0)[:, None] * 10 + torch.arange(8.0)


def test_smooth_columns_by_hand() -> None:
    places = torch.tensor([[0.0, 0.0], [2.0, 3.0], [2.5, 3.25], [5.0, 7.0], [5.5, 7.75]])
    found = columns([RAMP[None, None]], places, smooth=True)
    # Beyond the last row and column the border goes on.
    assert found[:, 0].tolist() == pytest.approx([0.0, 23.0, 28.25, 57.0, 57.0], abs=1e-4)


def test_rounded_down_columns_by_hand() -> None:
    places = torch.tensor([[2.5, 3.25], [5.9, 7.9]])
    assert columns([RAMP[None, None]], places, smooth=False)[:, 0].tolist() == [23.0, 57.0]


def test_coordinates_are_halved_at_each_pooling() -> None:
    fine = torch.zeros(1, 2, 12, 16)
    found = columns([fine, fine, RAMP[None, None]], torch.tensor([[5, 6]]), smooth=True)
    assert found.shape == (1, 5)
    assert found[0, 4].item() == pytest.approx(25 + 3, abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_integer_coordinates_read_the_positions_exactly(height: int, width: int, seed: int) -> None:
    layer = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    flat = layer[0].flatten(1).T
    assert (columns([layer], places, smooth=True) - flat).abs().max() < 1e-5
    assert torch.equal(columns([layer], places, smooth=False), flat)


def test_layers_match_the_encoder() -> None:
    encoder, picture, taps = VGG(TINY), torch.rand(1, 3, 20, 24), ("relu1_2", "relu4_1")
    found, expected = layers(encoder, picture, taps), encoder(picture, taps)
    assert torch.equal(found[0], picture)
    assert all(torch.equal(a, expected[tap]) for tap, a in zip(taps, found[1:], strict=True))


def test_a_tap_before_its_relu_keeps_its_values() -> None:
    encoder, picture = VGG(TINY), torch.rand(1, 3, 20, 24)
    _, before, after = layers(encoder, picture, ("conv2_1", "relu2_1"))
    assert before.min() < 0
    assert torch.equal(before.relu(), after)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 50)])
def test_thin_pictures_skip_pooling(shape: tuple[int, int]) -> None:
    encoder = VGG(VGG16, padding="replicate")
    found = layers(encoder, torch.rand(1, 3, *shape), ("relu1_1", "relu3_1"))
    assert found[2].shape[2] == 1
    assert columns(found, torch.zeros(1, 2), smooth=True).isfinite().all()


def test_gradients_reach_the_picture() -> None:
    encoder, picture = VGG(TINY), torch.rand(1, 3, 12, 12).requires_grad_()
    found = columns(layers(encoder, picture, ("relu2_1",)), torch.tensor([[4, 5]]), smooth=True)
    (slope,) = torch.autograd.grad(found.sum(), picture)
    seen = slope.abs().sum(1)[0] > 0
    assert seen[4, 5]
    assert not seen[11].any()


def test_an_unknown_tap_is_an_error() -> None:
    with pytest.raises(UsageError, match="no tap 'relu9_1'"):
        layers(VGG(TINY), torch.rand(1, 3, 12, 12), ("relu9_1",))
    with pytest.raises(UsageError, match="at least one tap"):
        layers(VGG(TINY), torch.rand(1, 3, 12, 12), ())
