"""MicroAST's network against its formula in plain layers, at any size, and what a style's signals are."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.core.errors import WeightsError
from atelier.networks.microast import MicroAST, blended, from_published, from_state


@pytest.fixture(scope="module")
def network() -> MicroAST:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = MicroAST(4).requires_grad_(False)
    for name, part in made.named_parameters():
        if part.ndim == 1:  # new ones are zero
            part.add_(0.1 * torch.randn(part.shape, generator=torch.Generator().manual_seed(len(name))))
    return made


def random(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


# the formula, in plain layers


class Plain:
    """The paper's network, layer by layer, from a state dict."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state

    def conv(self, pixels: Tensor, name: str, *, stride: int = 1) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        padded = F.pad(pixels, (weight.shape[-1] // 2,) * 4, mode="reflect")
        return F.conv2d(padded, weight, bias, stride, groups=pixels.shape[1] // weight.shape[1])

    def residual(self, x: Tensor, name: str, weight: Tensor | float = 1, bias: Tensor | float = 0) -> Tensor:
        inner = (weight * self.conv(x, f"{name}.first") + bias * x).relu()
        return x + weight * self.conv(inner, f"{name}.second") + bias * inner

    def features(self, pixels: Tensor, part: str) -> tuple[Tensor, Tensor]:
        for name, stride in (("colours", 1), ("down1", 2), ("mix1", 1), ("down2", 2), ("mix2", 1)):
            pixels = self.conv(pixels, f"{part}.{name}", stride=stride).relu()
        shallow = self.residual(pixels, f"{part}.shallow")
        return shallow, self.residual(shallow, f"{part}.deep")

    def picture(self, content: Tensor, style: Tensor, strength: float = 1.0) -> Tensor:
        x, seen = self.features(content, "content_encoder")[1], self.features(style, "style_encoder")
        for depth, name in ((2, "deep"), (1, "shallow")):
            looks = seen[depth - 1]
            moved = (x - mean(x)) / deviation(x) * deviation(looks) + mean(looks)
            signal = [mean(self.conv(looks, f"modulator.{kind}{depth}")) for kind in ("weight", "bias")]
            x = self.residual(strength * moved + (1 - strength) * x, f"decoder.{name}", *signal)
        for up, mix in (("up1", "mix1"), ("up2", "mix2")):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = self.conv(self.conv(x, f"decoder.{up}").relu(), f"decoder.{mix}").relu()
        return self.conv(x, "decoder.colours")


def mean(features: Tensor) -> Tensor:
    return features.mean((2, 3), keepdim=True)


def deviation(features: Tensor) -> Tensor:
    return (features.var((2, 3), keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("shape", [(32, 48), (33, 47), (34, 45), (35, 40), (8, 9), (16, 101)])
@pytest.mark.parametrize("prepared", [False, True])
def test_any_size_as_in_plain_layers(network: MicroAST, shape: tuple[int, int], prepared: bool) -> None:
    content, style = random(*shape), random(shape[1], 31, seed=1)
    plain = Plain(network.state_dict())
    used = copy.deepcopy(network).prepare("cpu", torch.float32) if prepared else network
    for strength in (1.0, 0.4):
        found = used.paint(content, used.signals(style), strength=strength)
        torch.testing.assert_close(found, plain.picture(content, style, strength), atol=2e-5, rtol=1e-4)


def test_gradients_are_those_of_plain_layers(network: MicroAST) -> None:
    content, style, target = random(21, 30), random(24, 26, seed=1), random(24, 32, seed=2)
    state = {name: value.clone().requires_grad_() for name, value in network.state_dict().items()}
    (Plain(state).picture(content, style) - target).square().mean().backward()
    trained = copy.deepcopy(network).requires_grad_(True)
    (trained(content, style) - target).square().mean().backward()
    for name, weight in trained.named_parameters():
        assert weight.grad is not None, name
        torch.testing.assert_close(weight.grad, state[name].grad, atol=1e-6, rtol=1e-3)


def test_a_batch_is_its_pictures(network: MicroAST) -> None:
    contents, styles = (torch.cat([random(24, 32, seed), random(24, 32, seed + 5)]) for seed in (0, 1))
    found = network(contents, styles)
    for index in (0, 1):
        alone = network(contents[index : index + 1], styles[index : index + 1])
        torch.testing.assert_close(found[index : index + 1], alone, atol=1e-5, rtol=1e-5)


def test_signals_of_a_picture_and_of_its_style(network: MicroAST) -> None:
    content, style = random(24, 32), random(40, 28, seed=1)
    seen = network(content, style, signals=True)
    assert torch.equal(seen.picture, network(content, style))
    for found, expected in ((seen.wanted, style), (seen.found, seen.picture)):
        for one, other in zip(found, network.signals(expected), strict=True):
            assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_half_precision_is_near(network: MicroAST) -> None:
    content, style = random(64, 96), random(64, 64, seed=1)
    exact, half = (copy.deepcopy(network).prepare("cpu", dtype) for dtype in (torch.float32, torch.bfloat16))
    one, other = (used.paint(content, used.signals(style)) for used in (exact, half))
    assert other.dtype == torch.float32
    assert 0 < (one - other).abs().mean() < 0.03 * one.std()


def test_hidden_places_do_not_count(network: MicroAST) -> None:
    """The signals with a mask of visible places: means and deviations over them, and means of the filters."""
    style, seen = random(32, 48), torch.ones(1, 1, 32, 48)
    seen[..., 24:] = 0
    features = Plain(network.state_dict()).features(style, "style_encoder")
    for depth, signal in enumerate(network.signals(style, seen), 1):
        looks, conv = features[depth - 1], Plain(network.state_dict()).conv
        torch.testing.assert_close(signal.mean, mean(looks[..., :6]), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(signal.deviation, deviation(looks[..., :6]), atol=1e-5, rtol=1e-4)
        for kind, value in (("weight", signal.weight), ("bias", signal.bias)):
            expected = mean(conv(looks, f"modulator.{kind}{depth}")[..., :6])
            torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-4)


def test_styles_blend(network: MicroAST) -> None:
    one, other = (network.signals(random(24, 24, seed)) for seed in (0, 1))
    mixed = blended([(0.25, one), (0.75, other)])
    for depth in (0, 1):
        for found, first, second in zip(mixed[depth], one[depth], other[depth], strict=True):
            torch.testing.assert_close(found, 0.25 * first + 0.75 * second)


def test_smallest_pictures_are_painted(network: MicroAST) -> None:
    found = network(random(1, 3), random(2, 1))
    assert found.shape == (1, 3, 8, 8)
    assert torch.isfinite(found).all()


# weights


def test_a_state_makes_the_network_again(network: MicroAST) -> None:
    state = {name: value.half() for name, value in network.state_dict().items()}
    again = from_state(state)
    assert again.width == 4
    assert {part.dtype for part in again.parameters()} == {torch.float32}
    with pytest.raises(WeightsError, match=r"not those of MicroAST; allowed: its published files"):
        from_state({"conv1_1.weight": torch.ones(1)})
    state["decoder.other.bias"] = state.pop("decoder.up1.bias")
    with pytest.raises(WeightsError, match=r"missing \(decoder.up1.bias\).*unexpected \(decoder.other"):
        from_state(state)


def test_published_names_that_do_not_fit(network: MicroAST) -> None:
    with pytest.raises(WeightsError, match="not those of MicroAST"):
        from_published({"decoder.dec3.1.conv_layer.bias": torch.ones(4)})
