"""The reversible residual network of CAP-VSTNet: maps pictures to features and back without loss.

Wen, Gao & Zou 2023 (section 3.1). A block maps two halves (x1, x2) to (x2, x1 + F(x2)), which is inverted by
subtracting F(x2), for any F. Between groups of blocks, 2 x 2 pixels become four channels (squeeze). At the
input, the picture's three channels are padded with zero channels (injective padding). At the end, two more
blocks and the inverse of the squeeze give few channels at a high resolution (channel refinement).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import InputError, WeightsError
from atelier.store.checkpoints import check_state

# Positions of the three convolutions in the published `nn.Sequential`; the others are padding and ReLUs.
_CONVS = ("1", "4", "7")
#: The state dict's key for the number of unsqueezes at the end; published files lack it.
SPREAD = "spread"


@dataclass(frozen=True)
class Plan:
    """The layout of a reversible network.

    `channels`, `inner` and `blocks` give, for each group, the channels of one half, the width inside a
    block, and the number of blocks. Each group after the first has half the resolution and four times the
    channels. `hidden` is the number of channels of one half of the features, which are unsqueezed `spread`
    times.
    """

    channels: tuple[int, ...] = (16, 64, 256)
    inner: tuple[int, ...] = (4, 16, 64)
    blocks: tuple[int, ...] = (10, 10, 10)
    hidden: int = 16
    hidden_inner: int = 64
    refining: int = 2
    spread: int = 2

    @property
    def multiple(self) -> int:
        """The number that both sides of a picture must be multiples of."""
        return int(2 ** (len(self.channels) - 1))

    @property
    def width(self) -> int:
        """The number of channels of the features."""
        return 2 * self.hidden

    def inside(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the features of a picture of `size`, excluding those of its padding."""
        scale = self.multiple >> self.spread
        return -(-size[0] // scale), -(-size[1] // scale)

    def padded(self, planes: Tensor) -> Tensor:
        """Planes (B, C, H, W) padded to a valid size by repeating the last row and column."""
        height, width = (
            max(2 * self.multiple, -(-side // self.multiple) * self.multiple) for side in planes.shape[-2:]
        )
        more = (0, width - planes.shape[-1], 0, height - planes.shape[-2])
        return F.pad(planes, more, mode="replicate") if any(more) else planes

    def sizes(self) -> Iterator[tuple[str, int, int, int]]:
        """The name, input channels, inner width and output channels of each block, in order."""
        position, before = 0, self.channels[0]
        for after, inner, count in zip(self.channels, self.inner, self.blocks, strict=True):
            for _ in range(count):
                yield f"stack.{position}", before, inner, after
                position, before = position + 1, after
        refined = self.hidden * 4**self.spread
        for index in range(self.refining):
            yield f"channel_reduction.block_list.{index}", refined, self.hidden_inner, refined

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters, by their published names."""
        found: dict[str, tuple[int, ...]] = {}
        for name, before, inner, after in self.sizes():
            for position, inputs, outputs in _widths(before, inner, after):
                found[f"{name}.conv.{position}.weight"] = (outputs, inputs, 3, 3)
                found[f"{name}.conv.{position}.bias"] = (outputs,)
        return found


PHOTO = Plan()
ART = Plan(hidden=64, spread=1)
#: Half of the published width and half of the published depth: a sixth of the computation.
SLIM = Plan(
    channels=(8, 32, 128), inner=(4, 8, 32), blocks=(3, 5, 7), hidden=8, hidden_inner=32, refining=2, spread=2
)
TINY = Plan(
    channels=(4, 16, 64), inner=(2, 4, 8), blocks=(1, 1, 2), hidden=4, hidden_inner=8, refining=1, spread=2
)


class Block(nn.Module):
    """(x1, x2) to (x2, x1 + F(x2)). If the number of channels grows, both halves are squeezed first."""

    def __init__(self, before: int, inner: int, after: int) -> None:
        super().__init__()
        self.stride = 1 if before == after else 2
        self.conv = nn.ModuleDict(
            {
                position: _unfilled(inputs, outputs, self.stride if position == _CONVS[0] else 1)
                for position, inputs, outputs in _widths(before, inner, after)
            }
        )

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        change = self.residual(second)
        if self.stride == 2:
            first, second = squeeze(first), squeeze(second)
        return second, _moved(first, change, 1)

    def inverse(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of `forward`, from its outputs."""
        if self.stride == 2:
            first = unsqueeze(first)
        second = _moved(second, self.residual(first), -1)
        return (unsqueeze(second) if self.stride == 2 else second), first

    def residual(self, half: Tensor) -> Tensor:
        """F: three 3x3 convolutions with reflect padding, in the dtype of the weights."""
        first, *others = self.conv.values()
        features: Tensor = first(_reflected(half, self.dtype))
        for conv in others:
            features = conv(_reflected(features.relu_(), features.dtype))
        return features

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the convolutions."""
        return self.get_parameter(f"conv.{_CONVS[0]}.weight").dtype


class Refinement(nn.Module):
    """Channel refinement: further blocks at the coarsest resolution, then unsqueezing of the features."""

    def __init__(self, plan: Plan, blocks: list[Block]) -> None:
        super().__init__()
        self.block_list = nn.ModuleList(blocks)
        self.added = plan.hidden * 4**plan.spread - plan.channels[-1]
        self.spread = plan.spread

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if self.added:
            first, second = (_filled(half, self.added) for half in (first, second))
        for block in self.block_list:
            first, second = block(first, second)
        features = torch.cat([first, second], 1)
        for _ in range(self.spread):
            features = unsqueeze(features)
        return features

    def inverse(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of `forward`, from the features."""
        for _ in range(self.spread):
            features = squeeze(features)
        first, second = _halves(features)
        for block in reversed(self.block_list):
            assert isinstance(block, Block)
            first, second = block.inverse(first, second)
        kept = first.shape[1] - self.added
        return first[:, :kept], second[:, :kept]


class Reversible(nn.Module):
    """The network of `plan`, with random weights from `seed` (None: uninitialised weights).

    The two halves stay in float32 whatever the dtype of the convolutions, because each rounding of a half
    would remain in the picture.

    >>> network, picture = Reversible(TINY), torch.rand(1, 3, 8, 12)
    >>> features = network(picture)
    >>> tuple(features.shape), (network(features, inverse=True) - picture).abs().max().item() < 1e-5
    ((1, 8, 8, 12), True)
    """

    def __init__(self, plan: Plan = PHOTO, *, seed: int | None = 0) -> None:
        super().__init__()
        self.plan = plan
        blocks = {name: Block(*widths) for name, *widths in plan.sizes()}
        self.stack = nn.ModuleList(block for name, block in blocks.items() if name.startswith("stack"))
        self.channel_reduction = Refinement(
            plan, [block for name, block in blocks.items() if not name.startswith("stack")]
        )
        self.register_buffer(SPREAD, torch.tensor(plan.spread))
        if seed is not None:
            self._fill(seed)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, tensor: Tensor, *, inverse: bool = False) -> Tensor:
        """The features (B, C, H', W') of pictures (B, 3, H, W); with `inverse`, the pictures of features.

        The output is float32, or float64 if the weights are. H and W must be multiples of `plan.multiple` and
        at least twice that. Raises InputError otherwise. Both directions share one method because wrappers
        for distributed training only intercept calls of the module.
        """
        tensor = tensor.to(torch.promote_types(torch.float32, self.dtype))
        return self._inverse(tensor) if inverse else self._forward(tensor)

    def _forward(self, picture: Tensor) -> Tensor:
        step, (height, width) = self.plan.multiple, picture.shape[-2:]
        if height % step or width % step or min(height, width) < 2 * step:
            raise InputError(
                f"A reversible network needs sides that are multiples of {step} and at least {2 * step} px, "
                f"got {width}x{height} px: pad the picture"
            )
        first, second = _halves(_filled(picture, 2 * self.plan.channels[0] - picture.shape[1]))
        for block in self.stack:
            first, second = block(first, second)
        features: Tensor = self.channel_reduction(first, second)
        return features

    def _inverse(self, features: Tensor) -> Tensor:
        refinement = self.channel_reduction
        assert isinstance(refinement, Refinement)
        first, second = refinement.inverse(features)
        for block in reversed(self.stack):
            assert isinstance(block, Block)
            first, second = block.inverse(first, second)
        return torch.cat([first, second], 1)[:, :3]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the convolutions."""
        return self.get_parameter(f"stack.0.conv.{_CONVS[0]}.weight").dtype

    def prepare(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move to `device`, convert to `dtype`, and freeze for inference."""
        return self.requires_grad_(False).eval().to(device=device, dtype=dtype)

    @torch.no_grad()
    def start_from_colours(self, gain: float) -> Self:
        """Initialise so that the features are roughly two copies of the picture: a transfer moves colours.

        The second block copies the colours into the half that is still zero. The residuals of the other
        blocks are scaled by `gain`.
        """
        for name, weight in self.named_parameters():
            if name.endswith(f"conv.{_CONVS[-1]}.weight"):
                weight.mul_(gain)
        for position in _CONVS:
            weight = self.get_parameter(f"stack.1.conv.{position}.weight")
            weight.zero_()
            weight[range(3), range(3), 1, 1] = 1.0
        return self

    def _fill(self, seed: int) -> None:
        # PyTorch's default for convolutions, but with zero biases, as published.
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_uniform_(parameter, a=5**0.5, generator=generator)


def squeeze(features: Tensor) -> Tensor:
    """(B, C, 2h, 2w) to (B, 4C, h, w): the pixel at (2i + a, 2j + b) goes to the C channels at (2a + b) C."""
    batch, channels, height, width = features.shape
    pixels = features.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, channels)
    pixels = pixels.permute(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)
    return pixels.permute(0, 3, 1, 2)


def unsqueeze(features: Tensor) -> Tensor:
    """(B, 4C, h, w) to (B, C, 2h, 2w), the inverse of `squeeze`."""
    batch, channels, height, width = features.shape
    pixels = features.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, channels // 4)
    pixels = pixels.permute(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)
    return pixels.permute(0, 3, 1, 2)


# The network may be loaded in inference mode and cached for a method that needs gradients.
@torch.inference_mode(False)
def from_state(state: Mapping[str, Tensor], *, spread: int | None = None) -> Reversible:
    """Build the network from `state`, published or atelier's own, of any size.

    `spread` is needed if the state does not hold it: the published photorealistic (2) and artistic (1)
    networks have the same names and shapes. Raises `WeightsError` if it is unknown, or if the tensors do
    not form a reversible network.
    """
    plan = recognise(state, spread=spread)
    network = Reversible(plan, seed=None)
    weights = {name: tensor.float() for name, tensor in state.items() if name != SPREAD}
    check_state(plan.shapes(), weights, "a reversible network")
    network.load_state_dict({**weights, SPREAD: torch.tensor(plan.spread)})
    return network


def recognise(state: Mapping[str, Tensor], *, spread: int | None = None) -> Plan:
    """Infer the plan from the names and shapes in `state`. Raises `WeightsError` if none fits."""
    stack = _blocks(state, r"stack\.(\d+)")
    refined = _blocks(state, r"channel_reduction\.block_list\.(\d+)")
    if not stack or not refined:
        raise WeightsError(
            f"these {len(state)} tensors are not those of a reversible network: use weights published for "
            "CAP-VSTNet (photo_image.pt, art_image.pt, ...) or made by `atelier train cap_vstnet`"
        )
    if SPREAD in state:
        spread = int(state[SPREAD])
    if spread is None:
        raise WeightsError(
            "the weights do not say whether they are photorealistic or artistic, because the published files "
            "have the same shapes: set the knob network to photo or art"
        )
    channels, inner, blocks = _groups(stack)
    width, hidden_inner = refined[0][1], refined[0][0]
    if not 0 <= spread < len(channels) or width % 4**spread or width < channels[-1]:
        raise WeightsError(
            f"the last blocks of these weights have {width} channels, which does not fit {spread} unsqueezes "
            f"and {len(channels)} groups: use the original published file"
        )
    return Plan(channels, inner, blocks, width // 4**spread, hidden_inner, len(refined), spread)


def _blocks(state: Mapping[str, Tensor], pattern: str) -> list[tuple[int, int]]:
    """Inner width and output channels of the blocks whose names match, in order."""
    found: dict[int, tuple[int, int]] = {}
    for name, tensor in state.items():
        if (match := re.fullmatch(rf"{pattern}\.conv\.{_CONVS[-1]}\.weight", name)) and tensor.ndim == 4:
            found[int(match[1])] = (tensor.shape[1], tensor.shape[0])
    return [found[position] for position in sorted(found)]


def _groups(stack: list[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Channels, inner widths and numbers of blocks of each group of blocks with the same channels."""
    channels = tuple(dict.fromkeys(after for _, after in stack))
    if any(4 * one != two for one, two in pairwise(channels)):
        raise WeightsError(
            f"the blocks of these weights have {', '.join(map(str, channels))} channels, but each group of a "
            "reversible network must have four times as many as the previous one: use the original published "
            "file"
        )
    inner = tuple(next(width for width, after in stack if after == one) for one in channels)
    return channels, inner, tuple(sum(after == one for _, after in stack) for one in channels)


def _widths(before: int, inner: int, after: int) -> Iterator[tuple[str, int, int]]:
    """Position, input and output channels of a block's convolutions."""
    return zip(_CONVS, (before, inner, inner), (inner, inner, after), strict=True)


def _filled(features: Tensor, count: int) -> Tensor:
    """Injective padding: append `count` channels of zeros."""
    batch, _, height, width = features.shape
    return torch.cat([features, features.new_zeros((batch, count, height, width))], 1)


def _halves(features: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second half of the channels, as copies."""
    first, second = features.chunk(2, 1)
    return first.clone(memory_format=torch.channels_last), second.clone(memory_format=torch.channels_last)


def _moved(half: Tensor, change: Tensor, sign: int) -> Tensor:
    """half + sign * change; in place if no gradient is needed, since the network owns the halves."""
    if half.requires_grad or change.requires_grad:
        return half + sign * change
    return half.add_(change, alpha=sign)


def _reflected(features: Tensor, dtype: torch.dtype) -> Tensor:
    """The features in `dtype` with reflect padding of one pixel, converted and padded in one copy."""
    if features.requires_grad or features.dtype == dtype:
        return F.pad(features.to(dtype), (1, 1, 1, 1), mode="reflect")
    batch, channels, height, width = features.shape
    padded = torch.empty((batch, height + 2, width + 2, channels), dtype=dtype, device=features.device)
    padded[:, 1:-1, 1:-1] = features.permute(0, 2, 3, 1)
    padded[:, 0], padded[:, -1] = padded[:, 2], padded[:, -3]
    padded[:, :, 0], padded[:, :, -1] = padded[:, :, 2], padded[:, :, -3]
    return padded.permute(0, 3, 1, 2)


def _unfilled(before: int, after: int, stride: int) -> nn.Conv2d:
    # The plain constructor would advance the caller's global random state.
    return nn.Conv2d(before, after, 3, stride=stride, device="meta").to_empty(device="cpu")
