"""Conditional instance normalisation: moments, sizes, and layouts inferred from a state dict."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.networks.conditional import (
    Arbitrary,
    Pastiche,
    Statistics,
    Transformer,
    channel_statistics,
    load_arbitrary,
    load_pastiche,
    normalise,
)
from atelier.networks.inception import Trunk

CPU = torch.device("cpu")


def arbitrary(**sizes: Any) -> Arbitrary:
    torch.manual_seed(0)
    return Arbitrary(Statistics(10, 6), **{"vector": 5, "widths": (4, 5, 6), "blocks": 2} | sizes)


def pastiche() -> Pastiche:
    torch.manual_seed(0)
    made = Pastiche(3, (4, 5, 6), 2)
    torch.nn.init.normal_(made.shift)
    torch.nn.init.normal_(made.scale, 1)
    return made


# the normalisation


@pytest.mark.parametrize("batch", [1, 3])
def test_normalise_sets_the_requested_moments(batch: int) -> None:
    torch.manual_seed(0)
    features = 100 + 7 * torch.rand(batch, 4, 9, 8)
    shift, scale = torch.rand(batch, 4), torch.rand(batch, 4) + 0.5
    made = normalise(features, shift, scale)
    variance, mean = torch.var_mean(made, (2, 3), correction=0)
    assert (mean - shift).abs().max() < 1e-3
    assert (variance.sqrt() - scale).abs().max() < 1e-3


def test_single_picture_path_matches_the_general_path() -> None:
    torch.manual_seed(0)
    features = torch.rand(2, 4, 9, 8).to(memory_format=torch.channels_last)
    shift, scale = torch.rand(2, 4), torch.rand(2, 4)
    both = normalise(features, shift, scale)
    each = [normalise(features[i : i + 1], shift[i : i + 1], scale[i : i + 1]) for i in range(2)]
    assert (both - torch.cat(each)).abs().max() < 1e-5


def test_epsilon_matches_the_published_value() -> None:
    features = torch.tensor([[[[0.0, 0.01]]]])  # variance 2.5e-5
    found = normalise(features, torch.zeros(1, 1), torch.ones(1, 1))
    assert found.flatten().tolist() == pytest.approx([-0.005 / 3.5e-5**0.5, 0.005 / 3.5e-5**0.5], rel=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_single_position_becomes_the_shift(batch: int) -> None:
    shift = torch.rand(batch, 3)
    found = normalise(torch.rand(batch, 3, 1, 1), shift, torch.ones(batch, 3))
    assert torch.equal(found[..., 0, 0], shift)


@pytest.mark.parametrize("batch", [1, 2])
def test_normalise_gradient(batch: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.rand(batch, 2, 3, 3), torch.rand(batch, 2), torch.rand(batch, 2)]
    exact = [one.double().requires_grad_() for one in inputs]
    if batch == 1:
        assert torch.autograd.gradcheck(normalise, exact)
    normalise(*[one.requires_grad_() for one in inputs]).square().sum().backward()
    assert all(one.grad is not None and torch.isfinite(one.grad).all() for one in inputs)


# the transformer


@given(height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_output_size_matches_input_for_any_size(height: int, width: int) -> None:
    torch.manual_seed(0)
    network = Transformer((4, 4, 4), 1).eval()
    style = torch.zeros(1, sum(network.channels)), torch.ones(1, sum(network.channels))
    with torch.no_grad():
        made = network(torch.rand(1, 3, height, width), *style)
    assert made.shape == (1, 3, height, width)
    assert torch.isfinite(made).all()
    assert 0 <= made.min() <= made.max() <= 1


def test_channels_list_the_conditioned_layers() -> None:
    assert Transformer().channels == (*[128] * 10, 64, 32, 3)
    assert Transformer(everywhere=True).channels == (32, 64, 128, *[128] * 10, 64, 32, 3)
    assert Transformer((4, 5, 6), 1).channels == (6, 6, 5, 4, 3)


def test_each_channel_has_its_own_style() -> None:
    torch.manual_seed(0)
    network = Transformer((4, 5, 6), 1, everywhere=True).eval()
    image, count = torch.rand(1, 3, 12, 12), sum(network.channels)
    plain = torch.zeros(1, count), torch.ones(1, count)
    with torch.no_grad():
        first = network(image, *plain)
        for channel in (0, 8, 14, 20, 26, 31, count - 1):
            shift = plain[0].clone()
            shift[0, channel] = 1.0
            assert not torch.equal(network(image, shift, plain[1]), first), channel
        # The last three are the picture's own colours: what is in them goes through the sigmoid alone.
        shift = plain[0].clone()
        shift[0, -1] = 0.5
        made = network(image, shift, plain[1])
    assert torch.equal(made[:, :2], first[:, :2])
    assert (made[:, 2].logit() - first[:, 2].logit() - 0.5).abs().max() < 1e-4


def test_one_style_for_a_batch() -> None:
    network = arbitrary().eval()
    images, vector = torch.rand(2, 3, 8, 8), torch.rand(1, 5)
    with torch.no_grad():
        both = network.paint(images, vector)
        each = torch.cat([network.paint(image[None], vector) for image in images])
    assert (both - each).abs().max() < 1e-5


# networks


def test_style_rows_are_mixed_linearly() -> None:
    network, image = pastiche().eval(), torch.rand(1, 3, 12, 12)
    shares = torch.tensor([[0.2, 0.0, 0.8]])
    with torch.no_grad():
        mixed = network(image, shares)
        row = network.shift[0:1] * 0.2 + network.shift[2:3] * 0.8
        rest = network.scale[0:1] * 0.2 + network.scale[2:3] * 0.8
        assert (mixed - network.transformer(image, row, rest)).abs().max() < 1e-6
        assert (network(image, torch.eye(3)[:1]) - network(image, torch.eye(3)[1:2])).abs().max() > 1e-3


def test_new_styles_start_from_the_mean_of_the_old() -> None:
    network = pastiche()
    mean = network.shift.detach().mean(0)
    network.learn(torch.rand(7, 2))
    assert network.styles == len(network.looks) == 7
    assert torch.equal(network.shift, mean.expand(7, -1))
    assert network.scale.requires_grad


def test_nearest_selects_the_most_similar_style() -> None:
    network = pastiche()
    looks = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    network.learn(looks)
    for number, look in enumerate(looks):
        assert network.nearest(look + 0.05)[0].argmax() == number
        assert float(network.nearest(look)[0, number]) > 0.999
    between = network.nearest(torch.tensor([0.5, 0.0]))[0]
    assert between.tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-3)
    assert float(network.nearest(torch.tensor([9.0, 9.0])).sum()) == pytest.approx(1)


@pytest.mark.parametrize("looks", [torch.ones(1, 2), torch.ones(3, 2)])
def test_nearest_with_one_style_or_equal_styles(looks: Tensor) -> None:
    network = pastiche()
    network.learn(looks)
    assert network.nearest(torch.zeros(2))[0].tolist() == pytest.approx([1 / len(looks)] * len(looks))


def test_statistics_are_standardised() -> None:
    torch.manual_seed(0)
    part = Statistics(4, 8).train()
    levels = torch.tensor([1e-3, 1.0, 30.0, 1000.0])
    for _ in range(300):
        part(levels * torch.rand(8, 4).exp())
    seen = (levels * torch.rand(2000, 4).exp() + 1e-3).log()
    even = (seen - part.mean) / (part.variance + 1e-3).sqrt()
    assert even.mean(0).abs().max() < 0.2
    assert (even.std(0)[1:] - 1).abs().max() < 0.2
    before = part.mean.clone()
    part.eval()(torch.rand(2, 4))
    assert torch.equal(part.mean, before)
    assert int(part.seen) == 300


def test_a_flat_black_style_stays_finite() -> None:
    assert torch.isfinite(Statistics(4, 8).eval()(torch.zeros(1, 4))).all()


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("kind", ["statistics", "inception", "pastiche"])
def test_sizes_are_inferred_from_the_state_dict(kind: str, prepared: bool) -> None:
    torch.manual_seed(0)
    load: Any = load_arbitrary
    if kind == "pastiche":
        network, load, seen = pastiche(), load_pastiche, torch.rand(1, 3)
    elif kind == "inception":
        network = Arbitrary(Trunk(thin=16), vector=7, widths=(4, 6, 8), blocks=3)
        seen = torch.rand(1, 3, 50, 60)
    else:
        network, seen = arbitrary(), torch.rand(1, 10)
    drawn = torch.get_rng_state()
    copy = load({name: value.half() for name, value in network.state_dict().items()})
    assert torch.equal(torch.get_rng_state(), drawn)
    assert {name: value.shape for name, value in copy.state_dict().items()} == {
        name: value.shape for name, value in network.state_dict().items()
    }
    if prepared:
        copy = copy.prepare(CPU, torch.float32)
    image = torch.rand(1, 3, 16, 12)
    with torch.no_grad():
        apart = (network.eval()(image, seen) - copy.eval()(image, seen)).abs().max()
    assert apart < 5e-3  # stored in half precision


def test_loading_does_not_modify_the_callers_tensors() -> None:
    state = arbitrary().state_dict()
    before = {name: value.clone() for name, value in state.items()}
    load_arbitrary(state).prepare(CPU, torch.bfloat16)
    assert all(torch.equal(before[name], state[name]) for name in state)


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: {}, "are not those of a network with conditional instance normalisation"),
        (lambda state: {"conv1_1.weight": torch.ones(3)}, "transformer.contract.conv1.weight is missing"),
        (lambda state: without(state, "shift.bias"), "1 of 48 tensors are missing .shift.bias"),
        (lambda state: state | {"more": torch.ones(1)}, "1 of 49 tensors are unexpected .more"),
        (lambda state: state | {"scale.bias": torch.ones(3)}, "scale.bias is .3,. instead of"),
        (lambda state: state | {"bottleneck.weight": torch.ones(())}, "bottleneck.weight is missing"),
        (lambda state: without(state, "predictor.hidden.weight"), "Conv2d_1a_3x3.weight is missing"),
    ],
)
def test_invalid_weights_are_errors(change: Any, sentence: str) -> None:
    state = dict(arbitrary(blocks=2).state_dict())
    count = len(state)
    with pytest.raises(WeightsError, match=sentence.replace("48", str(count)).replace("49", str(count + 1))):
        load_arbitrary(change(state))


def test_gradients_reach_every_weight() -> None:
    network = arbitrary().train()
    network(torch.rand(2, 3, 16, 16), torch.rand(2, 10)).square().mean().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("size", [(9, 16), (24, 41)])
def test_painting_takes_shorter_ways_to_the_same_picture(size: tuple[int, int]) -> None:
    """Without gradients, layers are fused; both ways must agree for odd sizes too."""
    torch.manual_seed(0)
    network = Pastiche(2, (8, 8, 16), 1)
    torch.nn.init.normal_(network.shift)
    photo = torch.rand(1, 3, *size)
    shares = torch.tensor([[0.3, 0.7]])
    plain = network(photo, shares)
    with torch.no_grad():
        painted = network(photo, shares)
    torch.testing.assert_close(painted, plain.detach(), atol=1e-5, rtol=1e-5)
    assert plain.std() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channel_statistics_are_those_of_the_population(dtype: torch.dtype) -> None:
    features = (3 * torch.randn(1, 6, 37, 41) + 20).to(dtype, memory_format=torch.channels_last)
    mean, variance = channel_statistics(features)
    assert mean.dtype == variance.dtype == torch.float32
    torch.testing.assert_close(mean.double(), features.double().mean((0, 2, 3)), atol=1e-3, rtol=1e-5)
    expected = features.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(variance.double(), expected, atol=1e-3, rtol=1e-4)
