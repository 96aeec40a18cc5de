"""MicroAST's network: two small encoders, a modulator and a decoder, half a million weights in all.

The style encoder's features give the decoder two kinds of signal at two depths: means and deviations, which
the content's features take on, and a factor and a share of the input for each channel, which modulate the
decoder's convolutions (Wang et al. 2023, section 3). Layers are computed on blocks of 2 x 2 pixels where the
network has few channels or grouped convolutions, with the same numbers (`pixel_blocks`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.maths import pixel_blocks as blocks
from atelier.maths.moments import channel_moments
from atelier.maths.visible import weight_at
from atelier.maths.whitening import adain
from atelier.store.checkpoints import check_state

Layers = Mapping[str, tuple[Tensor, Tensor]]

#: Smaller sides are padded: the first layer reflects up to five pixels.
SMALLEST = 8
#: The published files, by part of the network, and the published names of the layers in each.
PARTS = ("content_encoder", "style_encoder", "modulator", "decoder")
_ENCODER = {
    "enc1.0": "colours",
    "enc1.2": "down1",
    "enc1.4": "mix1",
    "enc1.6": "down2",
    "enc1.8": "mix2",
    "enc1.10.conv1": "shallow.first",
    "enc1.10.conv2": "shallow.second",
    "enc2.0.conv1": "deep.first",
    "enc2.0.conv2": "deep.second",
}
_PUBLISHED = {
    "content_encoder": _ENCODER,
    "style_encoder": _ENCODER,
    "modulator": {f"{kind}{depth}.0": f"{kind}{depth}" for depth in (1, 2) for kind in ("weight", "bias")},
    "decoder": {
        "dec1.conv1": "deep.first",
        "dec1.conv2": "deep.second",
        "dec2.conv1": "shallow.first",
        "dec2.conv2": "shallow.second",
        "dec3.1": "up1",
        "dec3.3": "mix1",
        "dec3.6": "up2",
        "dec3.8": "mix2",
        "dec3.10": "colours",
    },
}


class Signal(NamedTuple):
    """What a style tells the decoder at one depth, each (B, C, 1, 1).

    Features take on `mean` and `deviation`; a convolution's output is multiplied by `weight`, and its input
    times `bias` is added.
    """

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor


#: The signals of the shallow and the deep features.
Signals = tuple[Signal, Signal]


class Residual(nn.Module):
    """Two 3x3 convolutions beside the way straight through, modulated or not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3), nn.Conv2d(width, width, 3)

    def forward(self, features: Tensor, signal: Signal | None = None) -> Tensor:
        inner = _modulated(features, self.first, signal).relu_()
        return features + _modulated(inner, self.second, signal)


class _Part(nn.Module, ABC):
    """A part of the network whose kernels are computed from its weights, once if it is prepared."""

    def __init__(self) -> None:
        super().__init__()
        self._ready: Layers = {}

    @abstractmethod
    def layers(self) -> Layers:
        """The kernel and the bias of each layer that has another form than its weights."""

    def prepare(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """Keep the layers on `device`, in `dtype` and channels-last; their kernels are made in float32."""
        self._ready = {
            name: (
                kernel.detach().to(device, dtype).contiguous(memory_format=torch.channels_last),
                bias.detach().to(device, dtype),
            )
            for name, (kernel, bias) in self.layers().items()
        }
        self.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def ready(self) -> Layers:
        """The kept layers, or new ones that carry gradients."""
        return self._ready or self.layers()


class Encoder(_Part):
    """A picture's shallow and deep features at a quarter of its size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = 2 * width, 4 * width
        self.colours = nn.Conv2d(3, width, 9)
        self.down1, self.mix1 = nn.Conv2d(width, half, 3, groups=width), nn.Conv2d(half, half, 1)
        self.down2, self.mix2 = nn.Conv2d(half, quarter, 3, groups=half), nn.Conv2d(quarter, quarter, 1)
        self.shallow, self.deep = Residual(quarter), Residual(quarter)

    def layers(self) -> Layers:
        weight, bias = _weights(self.colours)
        # The layer takes colours round mid-grey, of which half precision has more.
        bias = bias + 0.5 * weight.sum((1, 2, 3))
        down1, bias1 = _weights(self.down1)
        down2, bias2 = _weights(self.down2)
        return {
            "colours": (blocks.blocks_kernel(weight), bias.repeat_interleave(4)),
            "down1": (blocks.halving_kernel(blocks.dense(down1, self.down1.groups)), bias1),
            "down2": (blocks.dense(down2, self.down2.groups), bias2),
        }

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps (B, C, h, w) of a picture (B, 3, H, W) in 0..1; h and w are a quarter, rounded up."""
        layers, (height, width) = self.ready(), picture.shape[-2:]
        padded = F.pad(picture - 0.5, (4, 4 + width % 2, 4, 4 + height % 2), mode="reflect")
        state = F.conv2d(blocks.picture_blocks(padded, self.mix1.weight.dtype), *layers["colours"])
        blocks.mirror_odd_edges(state, height, width)
        state = F.pad(state.relu_(), (1, 0, 1, 0), mode="replicate")
        state = self.mix1(F.conv2d(state, *layers["down1"]).relu_()).relu_()
        state = F.conv2d(F.pad(state, (1, 1, 1, 1), mode="reflect"), *layers["down2"], stride=2)
        shallow = self.shallow(self.mix2(state.relu_()).relu_())
        return shallow, self.deep(shallow)


class Modulator(nn.Module):
    """The factors and shares of the decoder's convolutions: the mean over all places of depth-wise ones."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in _PUBLISHED["modulator"].values():
            self.add_module(name, nn.Conv2d(width, width, 3, groups=width))

    def forward(self, features: Tensor, depth: int, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`weight` and `bias` of a `Signal`, in float32, of features (B, C, h, w) of depth 1 or 2.

        A weight map (B, 1, h, w) says which places count, and how much.
        """
        means = _means_by_tap(features, weight)
        found = []
        for kind in ("weight", "bias"):
            kernel, bias = _weights(self.get_submodule(f"{kind}{depth}"))
            found.append((means * kernel[:, 0].to(means)).sum((2, 3), keepdim=True) + bias[:, None, None])
        return found[0], found[1]


class Decoder(_Part):
    """The picture of features that take on a style's signals."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = 2 * width, 4 * width
        self.deep, self.shallow = Residual(quarter), Residual(quarter)
        self.up1, self.mix1 = nn.Conv2d(quarter, half, 3, groups=half), nn.Conv2d(half, half, 1)
        self.up2, self.mix2 = nn.Conv2d(half, width, 3, groups=width), nn.Conv2d(width, width, 1)
        self.colours = nn.Conv2d(width, 3, 9)

    def layers(self) -> Layers:
        layers = {}
        for up, mix in (("up1", "mix1"), ("up2", "mix2")):
            layer = self.get_submodule(up)
            assert isinstance(layer, nn.Conv2d)
            weight, bias = _weights(layer)
            full = blocks.dense(weight, layer.groups)
            layers[up], layers[f"{up} plain"] = (blocks.doubling_kernel(full), bias), (full, bias)
            weight, bias = _weights(self.get_submodule(mix))
            layers[mix] = (blocks.blocks_kernel(weight), bias.repeat_interleave(4))
        weight, bias = _weights(self.colours)
        # The layer gives colours round mid-grey, of which half precision has more.
        layers["colours"] = (blocks.blocks_kernel(weight), (bias - 0.5).repeat_interleave(4))
        return layers

    def forward(
        self, features: Tensor, style: Signals, strength: float = 1.0, weight: Tensor | None = None
    ) -> Tensor:
        """The picture (B, 3, 4 h, 4 w), float32 and not clamped, of deep features (B, C, h, w).

        `weight` (1, 1, h, w) says which places count in the content's means and deviations.
        """
        layers = self.ready()
        for signal, residual in ((style[1], self.deep), (style[0], self.shallow)):
            state = adain(features, signal.mean, signal.deviation, strength=strength, weight=weight)
            features = residual(state, signal)
        for up, mix in (("up1", "mix1"), ("up2", "mix2")):
            if up == "up2":
                features = F.pixel_shuffle(features, 2)
            kernel, bias = layers[up]
            state = blocks.doubled_convolution(features, kernel, layers[f"{up} plain"][0], bias)
            features = F.conv2d(state.relu_(), *layers[mix]).relu_()
        grey = F.conv2d(blocks.reflected_blocks(features, 2), *layers["colours"])
        return F.pixel_shuffle(grey, 2).float() + 0.5


class MicroAST(nn.Module):
    """The network with `width` channels at full size (published: 16), new from torch's global seed.

    >>> network = MicroAST(4)
    >>> tuple(network(torch.rand(1, 3, 30, 41), torch.rand(1, 3, 24, 24)).shape)
    (1, 3, 32, 44)
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.content_encoder, self.style_encoder = Encoder(width), Encoder(width)
        self.modulator, self.decoder = Modulator(4 * width), Decoder(width)
        self._initialise()

    def forward(self, content: Tensor, style: Tensor, *, signals: bool = False) -> Tensor | Seen:
        """The content (B, 3, H, W) in each style (B, 3, H', W'), with sides rounded up to multiples of 4.

        With `signals` also those of the styles and of the picture itself.
        """
        wanted = self.signals(style)
        picture = self.paint(content, wanted)
        return Seen(picture, wanted, self.signals(picture)) if signals else picture

    def signals(self, style: Tensor, seen: Tensor | None = None) -> Signals:
        """The signals, in float32, of the visible part of a style (B, 3, H, W), RGB in 0..1.

        `seen` is its alpha (1, 1, H, W), or None where all of it is visible.
        """
        shallow, deep = (
            self.signal(features, depth, weight_at(seen, _size(features)))
            for depth, features in enumerate(self.style_encoder(large_enough(style)), 1)
        )
        return shallow, deep

    def signal(self, features: Tensor, depth: int, weight: Tensor | None = None) -> Signal:
        """The signal of a style's features (B, C, h, w) at depth 1 or 2, where `weight` is not 0."""
        mean, deviation = channel_moments(features, unbiased=True, weight=weight)
        return Signal(mean, deviation, *self.modulator(features, depth, weight))

    def paint(
        self, content: Tensor, style: Signals, *, strength: float = 1.0, seen: Tensor | None = None
    ) -> Tensor:
        """The picture of a content (B, 3, H, W), float32, not clamped, sides rounded up to multiples of 4.

        `seen` is the content's alpha (1, 1, H, W). `strength` mixes in the content's own means and
        deviations, as published; the convolutions keep the style's modulation.
        """
        _, deep = self.content_encoder(large_enough(content))
        picture: Tensor = self.decoder(deep, style, strength, weight_at(seen, _size(deep)))
        return picture

    @torch.no_grad()
    def _initialise(self) -> None:
        """He et al. 2015, filters hardly modulated, pictures round mid-grey.

        torch's own initialisation lets the signal fade, and a last ReLU that is zero everywhere never learns.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                weight, bias = _weights(module)
                nn.init.kaiming_normal_(weight, nonlinearity="relu")
                bias.zero_()
        for name, part in self.modulator.named_parameters():
            if part.ndim == 4:
                part.mul_(0.2)
            elif name.startswith("weight"):
                part.fill_(1)
        weight, bias = _weights(self.decoder.colours)
        weight.mul_(0.2)
        bias.fill_(0.5)

    def prepare(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Frozen on `device`, in `dtype` and channels-last; the modulator stays in float32."""
        self.requires_grad_(False).eval().float()
        self.modulator.to(device)
        for part in (self.content_encoder, self.style_encoder, self.decoder):
            part.prepare(device, dtype)
        return self


class Seen(NamedTuple):
    """A picture, the signals of its style, and its own."""

    picture: Tensor
    wanted: Signals
    found: Signals


def from_state(state: Mapping[str, Tensor]) -> MicroAST:
    """The network that holds `state`. Raises WeightsError for tensors that do not fit."""
    first = state.get("content_encoder.colours.weight")
    if first is None or first.ndim != 4:
        raise WeightsError(
            f"these {len(state)} tensors (first: {next(iter(state), 'none')}) are not those of MicroAST; "
            "allowed: its published files by `atelier weights add`, or a file of `atelier train microast`"
        )
    # On no device: the usual constructor would draw from the global random state, the caller's.
    with torch.device("meta"):
        network = MicroAST(first.shape[0])
    check_state({name: part.shape for name, part in network.state_dict().items()}, state, "MicroAST")
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return network


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the published files, each with its part before its name, under atelier's names.

    Raises WeightsError for tensors that do not fit.
    """
    names = {
        f"{part}.{theirs}.conv_layer.{kind}": f"{part}.{ours}.{kind}"
        for part, layers in _PUBLISHED.items()
        for theirs, ours in layers.items()
        for kind in ("weight", "bias")
    }
    named = {names.get(name, name): tensor for name, tensor in state.items()}
    from_state(named)
    return named


def blended(styles: Sequence[tuple[float, Signals]]) -> Signals:
    """The signals of several styles by their shares: all that they do is linear."""

    def at(depth: int) -> Signal:
        kinds = zip(*(signals[depth] for _, signals in styles), strict=True)
        return Signal(*(torch.stack(kind).mul(shares).sum(0) for kind in kinds))

    first = styles[0][1][0].mean
    shares = first.new_tensor([share for share, _ in styles]).view(-1, 1, 1, 1, 1)
    return at(0), at(1)


def large_enough(picture: Tensor) -> Tensor:
    """The picture (B, 3, H, W), padded by repeating the last row and column to the smallest size."""
    height, width = picture.shape[-2:]
    more = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
    return F.pad(picture, more, mode="replicate") if any(more) else picture


def _modulated(features: Tensor, conv: nn.Module, signal: Signal | None) -> Tensor:
    """The features, padded by reflection and convolved, and modulated by a style's signal."""
    weight, bias = _weights(conv)
    found = F.conv2d(F.pad(features, (1, 1, 1, 1), mode="reflect"), weight, bias)
    if signal is None:
        return found
    return signal.weight.to(found.dtype) * found + signal.bias.to(found.dtype) * features


def _means_by_tap(features: Tensor, weight: Tensor | None) -> Tensor:
    """What each tap of a 3x3 convolution sees on average, (B, C, 3, 3) in float32, with reflected borders."""
    if weight is None:
        weight = features.new_ones((1, 1, *features.shape[-2:]), dtype=torch.float32)
    share = weight / weight.sum((2, 3), keepdim=True)
    # One product with the share of each place in each tap's mean.
    shifts = [F.pad(share, (column, 2 - column, row, 2 - row)) for row in range(3) for column in range(3)]
    padded = F.pad(features.float(), (1, 1, 1, 1), mode="reflect")
    means = torch.cat(shifts, 1).flatten(2) @ padded.flatten(2).mT
    return means.mT.reshape(*features.shape[:2], 3, 3)


def _weights(conv: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return conv.weight, conv.bias


def _size(features: Tensor) -> tuple[int, int]:
    return features.shape[-2], features.shape[-1]
