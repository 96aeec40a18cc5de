"""PHDiffusion's networks (Lu et al. 2023): an encoder of a composite, and its fusion with a UNet's features.

The encoder sees the picture and the mask of its object, and gives one feature map for each level of the
UNet's encoder. At the upper levels the map is added to the UNet's; at the lower ones both are fused first:
inside of the object, each looks up the background by attention. The UNet itself is frozen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.store.checkpoints import check_state

#: The features that look up the background: those of the encoder of the composite, and the UNet's.
Branch = Literal["encoder", "unet"]
BRANCHES: tuple[Branch, ...] = ("encoder", "unet")
#: Pixels of a picture for each position of the finest features, along a side.
FACTOR = 8
_HEADS = 8


class Shape(NamedTuple):
    """The sizes of the networks: channels of each level, how many levels are fused, and what is fused."""

    channels: tuple[int, ...]
    fused: int = 2
    branches: tuple[Branch, ...] = BRANCHES
    residual: bool = True


class AdaptiveEncoder(nn.Module):
    """Features of a picture with a mask: a map for each level, at 1/8, 1/16, ... of its size.

    Without `residual` its blocks have no identity beside them; the weights have the same names and sizes.
    """

    def __init__(self, channels: Sequence[int], *, residual: bool = True) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4 * FACTOR**2, channels[0], 3, padding=1)
        before = (channels[0], *channels)
        self.body = nn.ModuleList(
            _Block(before[level] if first else width, width, shrink=first and level > 0, residual=residual)
            for level, width in enumerate(channels)
            for first in (True, False)
        )

    def forward(self, picture: Tensor, mask: Tensor) -> list[Tensor]:
        """The maps (B, C, H / 8 / 2^level, ...) of pictures (B, 3, H, W) in -1..1 with masks (B, 1, H, W)."""
        features = self.conv_in(F.pixel_unshuffle(torch.cat([picture, mask], 1), FACTOR))
        found = []
        for number, block in enumerate(self.body):
            features = block(features)
            if number % 2:
                found.append(features)
        return found


class _Block(nn.Module):
    def __init__(self, before: int, after: int, *, shrink: bool, residual: bool) -> None:
        super().__init__()
        self.shrink, self.residual = shrink, residual
        self.in_conv = nn.Conv2d(before, after, 1) if before != after else None
        self.block1 = nn.Conv2d(after, after, 3, padding=1)
        self.block2 = nn.Conv2d(after, after, 1)

    def forward(self, features: Tensor) -> Tensor:
        if self.shrink:
            features = F.avg_pool2d(features, 2)
        if self.in_conv is not None:
            features = self.in_conv(features)
        made: Tensor = self.block2(self.block1(features).relu())
        return made + features if self.residual else made


class DualFusion(nn.Module):
    """Fuses the features of both encoders inside of the object; outside, those of the composite stay."""

    def __init__(self, channels: int, branches: Sequence[Branch] = BRANCHES) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.attentions = nn.ModuleDict({name: _Lookup(channels) for name in branches})
        self.join = nn.Conv1d(len(branches) * channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, encoded: Tensor, unet: Tensor, mask: Tensor) -> Tensor:
        """The features (B, C, h, w) to add to the UNet's, from two maps of that shape and a mask of any size.

        One group norm serves both maps; what stays outside of the object is not normalised.
        """
        mask = F.interpolate(mask, encoded.shape[-2:], mode="nearest").clamp(0, 1)
        maps = {"encoder": encoded, "unet": unet}
        found = [look(self.norm(maps[name]), mask) for name, look in self.attentions.items()]
        fused = self.out(self.join(torch.cat(found, 1)).unflatten(2, encoded.shape[-2:]))
        made: Tensor = mask * fused + (1 - mask) * encoded
        return made


class _Lookup(nn.Module):
    """Attention from the object, (B, C, h, w) times the mask, to the background: (B, C, h w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.to_out = nn.Linear(channels, channels)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        inside, outside = ((one * features).flatten(2).mT for one in (mask, 1 - mask))
        query, key, value = (
            linear(tokens).unflatten(2, (_HEADS, -1)).transpose(1, 2)
            for linear, tokens in ((self.to_q, inside), (self.to_k, outside), (self.to_v, outside))
        )
        seen = mask.flatten(2)[:, :, None] < 1
        # An object that fills the map has no background: its keys and values, and so the result, are zero.
        seen = seen | ~seen.any(-1, keepdim=True)
        made = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        found: Tensor = self.to_out(made.transpose(1, 2).flatten(2)).mT
        return found


class PhDiffusion(nn.Module):
    """The encoder of the composite, and a fusion for each of the lowest levels."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = AdaptiveEncoder(shape.channels, residual=shape.residual)
        lowest = shape.channels[len(shape.channels) - shape.fused :]
        self.fusions = nn.ModuleList(DualFusion(width, shape.branches) for width in lowest)

    def added(self, level: int, encoded: Tensor, unet: Tensor, mask: Tensor) -> Tensor:
        """What is added to the UNet's features of a level."""
        index = level - (len(self.shape.channels) - self.shape.fused)
        if index < 0:
            return encoded
        made: Tensor = self.fusions[index](encoded, unet, mask)
        return made


class Injection:
    """Adds the features of a composite to those of a UNet, at the end of each level of its encoder.

    `see` encodes a composite; from then on every pass of the UNet has its features. The hooks stay until
    `remove`, because gradient checkpointing computes layers again in the backward pass.
    """

    def __init__(self, unet: Any, network: PhDiffusion) -> None:
        self.network = network
        self.encoded: list[Tensor] = []
        self.mask = torch.empty(0)
        self._handles = [
            _last(block).register_forward_hook(self._hook(level))
            for level, block in enumerate(unet.down_blocks)
        ]

    def see(self, picture: Tensor, mask: Tensor) -> None:
        """Encode a composite (B, 3, H, W) in -1..1 with its mask (B, 1, H, W)."""
        self.encoded, self.mask = self.network.encoder(picture, mask), mask

    def remove(self) -> None:
        """Leave the UNet as it was."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, level: int) -> Any:
        def add(module: Any, seen: Any, made: Any) -> Any:
            features = made[0] if isinstance(made, tuple) else made
            found = features + self.network.added(level, self.encoded[level], features, self.mask)
            return (found, *made[1:]) if isinstance(made, tuple) else found

        return add


def _last(block: Any) -> Any:
    """The last part of a level before its downsampler."""
    return (getattr(block, "attentions", None) or block.resnets)[-1]


# files

_PUBLISHED = (
    (r"^ad\.", "encoder."),
    (r"^interact\.", "fusions."),
    (r"\.crossAtt_1\.", ".attentions.encoder."),
    (r"\.crossAtt_2\.", ".attentions.unet."),
    (r"\.to_out\.0\.", ".to_out."),
    (r"^(fusions\.\d+)\.fc\.", r"\1.join."),
    (r"^(fusions\.\d+)\.conv1\.", r"\1.out."),
)


def own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names of this file, from those or from the published ones.

    >>> list(own_names({"interact.0.crossAtt_2.to_out.0.bias": torch.zeros(1)}))
    ['fusions.0.attentions.unet.to_out.bias']
    """
    renamed = dict(state)
    for pattern, name in _PUBLISHED:
        renamed = {re.sub(pattern, name, key): value for key, value in renamed.items()}
    return renamed


def shape_of(state: Mapping[str, Tensor], *, residual: bool = True) -> Shape:
    """The sizes of the networks with these tensors. Files do not say whether blocks are residual."""
    channels: list[int] = []
    while (key := f"encoder.body.{2 * len(channels)}.block2.weight") in state:
        channels.append(state[key].shape[0])
    fused = len({key.split(".")[1] for key in state if key.startswith("fusions.")})
    branches = tuple(one for one in BRANCHES if f"fusions.0.attentions.{one}.to_q.weight" in state)
    return Shape(tuple(channels), fused, branches or BRANCHES, residual)


def read(
    state: Mapping[str, Tensor], widths: Sequence[int], name: str, *, residual: bool = True
) -> PhDiffusion:
    """The networks with these tensors, for a UNet whose levels have these widths. Raises WeightsError."""
    state = own_names(state)
    shape = shape_of(state, residual=residual)
    if not shape.channels:
        raise WeightsError(
            f"{name} holds no networks of phdiffusion: use phdiffusion.published, or a file that "
            "`atelier train phdiffusion` wrote"
        )
    if shape.channels != tuple(widths):
        raise WeightsError(
            f"{name} was made for another base model: its levels have {_listed(shape.channels)} channels, "
            f"and the pipeline's {_listed(widths)}"
        )
    with torch.inference_mode(False):
        with torch.device("meta"):
            network = PhDiffusion(shape)
        check_state({key: one.shape for key, one in network.state_dict().items()}, state, name)
        network.load_state_dict({key: one.float() for key, one in state.items()}, assign=True)
        return network.requires_grad_(False).eval()


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
