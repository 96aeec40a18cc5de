"""The UNet of guided diffusion (Dhariwal & Nichol 2021): predicts the noise in a noisy picture.

Modules carry the published names, so that OpenAI's checkpoints load as they are. Two options make networks
that the paper does not have: `patch` folds squares of pixels into channels at the input, which saves time,
and `groups` 0 normalises over the channels of each pixel instead of over the picture. With that and without
attention, each pixel depends only on its surroundings, and a network trained on small crops works for
pictures of any size, whole or in tiles.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.store.checkpoints import check_state

Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class UNetPlan:
    """The shape of a UNet.

    `width` times each of `multiples` gives the channels of a level; `blocks` is the number of residual blocks
    a level. `attention` lists the downsampling factors with attention, in heads of `head` channels.
    `out` is the number of channels of the result: 3, or 6 with a learned variance. `groups` are those of
    group norm (0: normalise each pixel). `classes` is the number of classes of a conditional network.
    `split_first` is the official "new attention order".

    >>> UNetPlan(32, (1, 2, 4)).multiple
    4
    """

    width: int
    multiples: tuple[int, ...]
    blocks: int = 1
    attention: tuple[int, ...] = ()
    head: int = 64
    out: int = 3
    groups: int = 32
    patch: int = 1
    classes: int = 0
    dropout: float = 0.0
    split_first: bool = False

    @property
    def multiple(self) -> int:
        """The sides of the input must be multiples of this many pixels."""
        return self.patch << (len(self.multiples) - 1)

    @property
    def is_local(self) -> bool:
        """Whether each pixel depends only on its surroundings, and not on the whole picture."""
        return self.groups == 0 and not self.attention

    @property
    def reach(self) -> int:
        """The pixels on each side that a pixel depends on, for a local network; a multiple of `multiple`."""
        last = len(self.multiples) - 1
        # The first and the last convolution; then two convolutions a block, in pixels of its level.
        cells = 2
        for level in range(last + 1):
            convolutions = 2 * (2 * self.blocks + 1)
            if level < last:
                convolutions += 2  # of the upsampling block
            if level > 0:
                convolutions += 2  # of the downsampling block
            cells += convolutions << level
        cells += 4 << last  # the middle blocks
        cells += 2 << last  # averaging and repeating pixels
        return math.ceil(cells * self.patch / self.multiple) * self.multiple


def plan_of(state: Mapping[str, Tensor]) -> UNetPlan:
    """The plan of published weights, found in their names and shapes.

    The shapes do not tell the size of a head, the groups and the order of attention: 64, 32 and the official
    order, as in every network that OpenAI published. Raises WeightsError for other tensors.
    """
    try:
        width, blocks = state["time_embed.0.weight"].shape[1], _output_blocks(state)
        multiples = [
            state[f"output_blocks.{index}.0.out_layers.3.weight"].shape[0] // width
            for index in range(len(blocks))
            if index == 0 or _ends_level(blocks[index - 1])
        ]
        first = next((index for index, block in enumerate(blocks) if _ends_level(block)), len(blocks) - 1)
        levels = range(len(multiples) - 1, -1, -1)
        seen = {
            2**level
            for level, block in zip(levels, blocks[:: first + 1], strict=True)
            if any(name.startswith("1.qkv") for name in block)
        }
        return UNetPlan(
            width,
            tuple(reversed(multiples)),
            blocks=first,
            attention=tuple(sorted(seen)),
            out=state["out.2.weight"].shape[0],
            classes=len(state.get("label_emb.weight", ())),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(
            f"these {len(state)} tensors (first: {next(iter(state), 'none')}) are not those of a diffusion "
            "UNet; allowed: OpenAI's guided diffusion checkpoints, or a file of `atelier train ddpm`"
        ) from error


def _output_blocks(state: Mapping[str, Tensor]) -> list[set[str]]:
    """The names of the tensors of each output block, without the block's own name."""
    blocks: dict[int, set[str]] = {}
    for name in state:
        if name.startswith("output_blocks."):
            _, index, rest = name.split(".", 2)
            blocks.setdefault(int(index), set()).add(rest)
    return [blocks[index] for index in range(len(blocks))]


def _ends_level(block: set[str]) -> bool:
    """Whether an output block ends with a second residual block, which doubles the size."""
    return any(name.startswith(("1.in_layers", "2.in_layers")) for name in block)


def from_state(state: Mapping[str, Tensor], plan: UNetPlan | None = None) -> UNet:
    """The network that holds `state`, float32. Raises WeightsError for tensors that do not fit."""
    with torch.device("meta"):  # the usual constructor would draw from the caller's random state
        network = UNet(plan or plan_of(state))
    check_state({name: part.shape for name, part in network.state_dict().items()}, state, "the UNet")
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return network


def time_embedding(times: Tensor, width: int) -> Tensor:
    """Sinusoidal embeddings (B, width) of time steps (B,), which may be fractional; cosines come first.

    >>> time_embedding(torch.zeros(1), 4).tolist()
    [[1.0, 1.0, 0.0, 0.0]]
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=times.device) / half)
    angles = times.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class PixelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel of a map (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, state: Tensor) -> Tensor:
        last = state.permute(0, 2, 3, 1)
        return F.layer_norm(last, last.shape[-1:], self.weight, self.bias).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two convolutions, with scale and shift from the time embedding, beside a skip connection.

    `resample` 2 doubles the size, 0.5 halves it.
    """

    def __init__(self, plan: UNetPlan, channels: int, out: int, resample: float = 1) -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            _norm(plan, channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(4 * plan.width, 2 * out))
        self.out_layers = nn.Sequential(
            _norm(plan, out), nn.SiLU(), nn.Dropout(plan.dropout), _zeroed(nn.Conv2d(out, out, 3, padding=1))
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, state: Tensor, embedding: Tensor) -> Tensor:
        norm, act, convolution = self.in_layers
        inner = convolution(_resized(act(norm(state)), self.resample))
        scale, shift = self.emb_layers(embedding)[:, :, None, None].chunk(2, dim=1)
        norm, act, dropout, convolution = self.out_layers
        inner = convolution(dropout(act(torch.addcmul(shift, norm(inner), 1 + scale))))
        return cast(Tensor, self.skip_connection(_resized(state, self.resample)) + inner)


class AttentionBlock(nn.Module):
    """Self-attention over all positions of a map (B, C, H, W)."""

    def __init__(self, plan: UNetPlan, channels: int) -> None:
        super().__init__()
        self.heads, self.split_first = channels // plan.head, plan.split_first
        self.norm = _norm(plan, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, state: Tensor) -> Tensor:
        batch, channels, height, width = state.shape
        parts = self.qkv(self.norm(state).flatten(2))
        # Official order: each head's own queries, keys and values; or first all queries, and so on.
        shape = (batch, 3, self.heads) if self.split_first else (batch, self.heads, 3)
        parts = parts.reshape(*shape, channels // self.heads, height * width).mT
        queries, keys, values = parts.unbind(1 if self.split_first else 2)
        found = F.scaled_dot_product_attention(queries, keys, values)
        found = self.proj_out(found.mT.reshape(batch, channels, height * width))
        return state + cast(Tensor, found).reshape(state.shape)


class Layers(nn.Sequential):
    """Layers in sequence, of which residual blocks also receive the time embedding."""

    def forward(self, state: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            state = layer(state, embedding) if isinstance(layer, ResidualBlock) else layer(state)
        return state


class UNet(nn.Module):
    """The network of a plan, initialised from torch's global seed.

    >>> network = UNet(UNetPlan(32, (1, 2)))
    >>> tuple(network(torch.zeros(1, 3, 16, 24), torch.zeros(1)).shape)
    (1, 3, 16, 24)
    """

    #: The memory layout of maps; half precision is much faster with channels last.
    layout = torch.channels_last

    def __init__(self, plan: UNetPlan) -> None:
        super().__init__()
        self.plan = plan
        wide = 4 * plan.width
        self.time_embed = nn.Sequential(nn.Linear(plan.width, wide), nn.SiLU(), nn.Linear(wide, wide))
        if plan.classes:
            self.label_emb = nn.Embedding(plan.classes, wide)
        self.input_blocks, kept = _downward(plan)
        middle = kept[-1]
        self.middle_block = Layers(
            ResidualBlock(plan, middle, middle),
            *([AttentionBlock(plan, middle)] if plan.attention else []),
            ResidualBlock(plan, middle, middle),
        )
        self.output_blocks, channels = _upward(plan, kept)
        last = nn.Conv2d(channels, plan.out * plan.patch**2, 3, padding=1)
        self.out = nn.Sequential(_norm(plan, channels), nn.SiLU(), _zeroed(last))

    def forward(self, picture: Tensor, times: Tensor, classes: Tensor | None = None) -> Tensor:
        """The prediction (B, out, H, W), float32, for noisy pictures (B, 3, H, W) at time steps (B,).

        H and W must be multiples of `plan.multiple`. Pictures are in -1..1 before noise is added.
        """
        embedding = self._embedding(times, classes)
        skips = list(self._descend(picture, embedding))
        state = self.middle_block(skips[-1], embedding)
        for block in self.output_blocks:
            state = block(torch.cat([state, skips.pop()], dim=1), embedding)
        norm, act, last = self.out
        found: Tensor = last(act(norm(state)))
        return F.pixel_shuffle(found, self.plan.patch).float()

    def features(self, picture: Tensor, times: Tensor, blocks: Collection[int]) -> dict[int, Tensor]:
        """The outputs of these input blocks, (B, C, h, w) each; goes no deeper than the last of them."""
        found = {}
        for index, state in enumerate(self._descend(picture, self._embedding(times, None))):
            if index in blocks:
                found[index] = state
            if index >= max(blocks):
                break
        return found

    def _embedding(self, times: Tensor, classes: Tensor | None) -> Tensor:
        embedding = self.time_embed(time_embedding(times, self.plan.width).to(self._dtype))
        if self.plan.classes and classes is not None:
            embedding = embedding + self.label_emb(classes)
        return cast(Tensor, embedding)

    def _descend(self, picture: Tensor, embedding: Tensor) -> Iterator[Tensor]:
        state = F.pixel_unshuffle(picture.to(self._dtype), self.plan.patch)
        state = state.contiguous(memory_format=self.layout)
        for block in self.input_blocks:
            state = block(state, embedding)
            yield state

    @property
    def _dtype(self) -> torch.dtype:
        return cast(Tensor, self.out[2].weight).dtype


def _downward(plan: UNetPlan) -> tuple[nn.ModuleList, list[int]]:
    """The input blocks, and the channels of the output of each."""
    channels = plan.width * plan.multiples[0]
    blocks = [Layers(nn.Conv2d(3 * plan.patch**2, channels, 3, padding=1))]
    kept = [channels]
    for level, multiple in enumerate(plan.multiples):
        for _ in range(plan.blocks):
            blocks.append(_level(plan, channels, plan.width * multiple, level))
            channels = plan.width * multiple
            kept.append(channels)
        if level < len(plan.multiples) - 1:
            blocks.append(Layers(ResidualBlock(plan, channels, channels, resample=0.5)))
            kept.append(channels)
    return nn.ModuleList(blocks), kept


def _upward(plan: UNetPlan, kept: Sequence[int]) -> tuple[nn.ModuleList, int]:
    """The output blocks, each taking one of the `kept` channels as well, and the channels of the last."""
    blocks, left, channels = list[nn.Module](), list(kept), kept[-1]
    for level, multiple in reversed(list(enumerate(plan.multiples))):
        for _ in range(plan.blocks + 1):
            blocks.append(_level(plan, channels + left.pop(), plan.width * multiple, level))
            channels = plan.width * multiple
        if level > 0:
            cast(Layers, blocks[-1]).append(ResidualBlock(plan, channels, channels, resample=2))
    return nn.ModuleList(blocks), channels


def _level(plan: UNetPlan, channels: int, out: int, level: int) -> Layers:
    attention = [AttentionBlock(plan, out)] if 2**level in plan.attention else []
    return Layers(ResidualBlock(plan, channels, out), *attention)


def _norm(plan: UNetPlan, channels: int) -> nn.Module:
    return nn.GroupNorm(plan.groups, channels) if plan.groups else PixelNorm(channels)


def _zeroed(layer: Layer) -> Layer:
    """The layer with weights of zero: a new block passes its input on unchanged."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
    return layer


def _resized(state: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return state
    return F.avg_pool2d(state, 2) if factor < 1 else F.interpolate(state, scale_factor=2, mode="nearest")
