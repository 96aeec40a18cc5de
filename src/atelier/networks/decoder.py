"""Decoders that mirror a VGG-like encoder, layer by layer, from the first ReLU of a stage to the picture.

The mirror of `conv3_2` is also called `conv3_2`, with input and output channels swapped. One class serves
the published decoders of AdaIN (Huang & Belongie 2017, from relu4_1) and of WCT (Li et al. 2017, from relu1_1
to relu5_1), which mirror VGG-19, and slim decoders for any other encoder. As an extension to the papers, a
decoder can have skip connections from earlier stages of the encoder, and residual blocks after the first
skip connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import UsageError, WeightsError, did_you_mean
from atelier.features.vgg import VGG, VGG19, Plan
from atelier.maths.upsampling import upsampled_convolution, upsampling_kernel
from atelier.store.checkpoints import check_state

_PADDINGS = ("replicate", "reflect", "zeros")


@dataclass(frozen=True)
class DecoderPlan:
    """The layout of a decoder: channels and convolutions of the encoder's stages, up to the decoded stage.

    `skips` is the number of stages below the deepest that have a skip connection. `blocks` is the number of
    residual blocks after the first skip connection.
    """

    widths: tuple[int, ...]
    convs: tuple[int, ...]
    skips: int = 0
    blocks: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.skips < len(self.widths):
            raise UsageError(
                f"A decoder with {len(self.widths)} stages cannot have {self.skips} skip connections: "
                f"use 0 to {len(self.widths) - 1}."
            )
        if self.blocks and not self.skips:
            raise UsageError(
                f"{self.blocks} blocks need a skip connection: set skips to 1 or more, or blocks to 0"
            )

    @classmethod
    def of(
        cls, encoder: Plan, stage: int = 4, *, skips: int = 0, blocks: int = 0, convs: Sequence[int] = ()
    ) -> Self:
        """The mirror of `encoder` from the first ReLU of `stage`; `convs` replaces its convolutions by stage.

        Raises UsageError for an unknown stage, and for too few `convs`.
        """
        if not 1 <= stage <= len(encoder.widths):
            raise UsageError(f"{encoder.name} has no stage {stage}: use 1 to {len(encoder.widths)}.")
        above = tuple(convs or encoder.convs)[: stage - 1]
        if len(above) < stage - 1 or min(above, default=1) < 1:
            raise UsageError(
                f"a decoder of level {stage} needs the convolutions of {stage - 1} stages, 1 or more each: "
                f"got {', '.join(map(str, above))}"
            )
        return cls(encoder.widths[:stage], (*above, 1), skips, blocks)

    @property
    def stage(self) -> int:
        """The stage whose first ReLU the decoder takes as input."""
        return len(self.widths)

    @property
    def joins(self) -> tuple[int, ...]:
        """The stages with a skip connection, in the order of computation."""
        return tuple(range(self.stage - 1, self.stage - 1 - self.skips, -1))

    @property
    def taps(self) -> tuple[str, ...]:
        """The encoder's taps that the decoder needs, deepest first."""
        return tuple(f"relu{stage}_1" for stage in (self.stage, *self.joins))

    @property
    def enlarging(self) -> str:
        """The upsampling mode: nearest for the published sizes, otherwise bilinear.

        Nearest-neighbour upsampling produces a fine hatch pattern in flat areas.
        """
        return "nearest" if self.widths == VGG19.widths[: self.stage] else "bilinear"

    def layers(self) -> Iterator[tuple[int, int, int, int]]:
        """Stage, number within the stage, input and output channels of each convolution, in order."""
        for stage in range(self.stage, 0, -1):
            width, below = self.widths[stage - 1], self.widths[stage - 2] if stage > 1 else 3
            for number in range(self.convs[stage - 1], 0, -1):
                yield stage, number, width, width if number > 1 else below

    def official_names(self) -> dict[str, str]:
        """Map names in the published `nn.Sequential` (`"5.weight"`) to atelier's names."""
        position, names = 1, {}
        for stage, number, _, _ in self.layers():
            for part in ("weight", "bias"):
                names[f"{position}.{part}"] = f"conv{stage}_{number}.{part}"
            # Padding, convolution, ReLU; plus an upsampling layer after each stage.
            position += 4 if number == 1 else 3
        return names


class Block(nn.Module):
    """A residual block: two 3x3 convolutions and an identity shortcut (He et al. 2016)."""

    def __init__(self, width: int, padding: str) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3), nn.Conv2d(width, width, 3)
        self.padding = padding

    def forward(self, features: Tensor) -> Tensor:
        inner = _convolve(features, self.first, self.padding).relu_()
        return features + _convolve(inner, self.second, self.padding)


class Decoder(nn.Module):
    """The decoder of `plan`, initialised from torch's global seed, with `padding` in its convolutions.

    >>> from atelier.features.vgg import TINY
    >>> decoder = Decoder(DecoderPlan.of(TINY, 2))
    >>> tuple(decoder({"relu2_1": torch.rand(1, 8, 5, 8)}).shape)
    (1, 3, 10, 16)
    """

    def __init__(self, plan: DecoderPlan, *, padding: str = "replicate") -> None:
        super().__init__()
        if padding not in _PADDINGS:
            raise UsageError(f"a decoder has no padding '{padding}': {did_you_mean(padding, _PADDINGS)}")
        self.plan, self.padding = plan, padding
        self._growing: dict[str, Tensor] = {}
        for stage, number, before, after in plan.layers():
            self.add_module(f"conv{stage}_{number}", nn.Conv2d(before, after, 3))
        for stage in plan.joins:
            width = plan.widths[stage - 1]
            self.add_module(f"skip{stage}", nn.Conv2d(width, width, 1))
        for index in range(1, plan.blocks + 1):
            self.add_module(f"block{index}", Block(plan.widths[-2], padding))

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """The picture (B, 3, H, W), float32 and unclamped, from the features at `plan.taps`.

        It can be up to 2^(stage - 1) - 1 pixels larger on each side than the encoder's input; crop it.
        """
        state = features[self.plan.taps[0]]
        for stage, number, _, _ in self.plan.layers():
            name = f"conv{stage}_{number}"
            if name in self._growing:
                kernel, zeros = self._growing[name], self.padding == "zeros"
                state = upsampled_convolution(state, kernel, self._part(name).bias, zeros=zeros).relu_()
                continue
            if self._enters(stage, number):
                state = self._join(self._enlarge(state), features, stage)
            if name != "conv1_1":
                state = _convolve(state, self._part(name), self.padding).relu_()
        return self._picture(state)

    def prepare(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Freeze the decoder and move it to `device` and `dtype`, in channels-last layout."""
        self.requires_grad_(False).eval()
        colour = self._part("conv1_1").bias
        assert colour is not None
        exact = colour.detach().float().to(device, copy=True)
        exact_weights = {name: self._part(name).weight.detach().float() for name in self._nearest()}
        kernels = {name: upsampling_kernel(weight, "nearest") for name, weight in exact_weights.items()}
        self.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The last bias is a colour; half precision would quantise it visibly.
        self._part("conv1_1").bias = nn.Parameter(exact, requires_grad=False)
        self._growing = {name: kernel.to(device, dtype) for name, kernel in kernels.items()}
        return self

    def fill(self, seed: int) -> Self:
        """Initialise the weights from `seed` (He et al. 2015), scaled for outputs around mid-grey."""
        generator = torch.Generator().manual_seed(seed)
        for part in self.parameters():
            if part.ndim == 1:
                nn.init.zeros_(part)
            else:
                nn.init.kaiming_normal_(part, nonlinearity="relu", generator=generator)
        last = self._part("conv1_1")
        assert last.bias is not None
        with torch.no_grad():
            last.weight.mul_(0.2)
            last.bias.fill_(0.5)
        return self

    def _part(self, name: str) -> nn.Conv2d:
        part = self.get_submodule(name)
        assert isinstance(part, nn.Conv2d)
        return part

    def _enters(self, stage: int, number: int) -> bool:
        """Whether upsampling precedes this convolution."""
        return stage < self.plan.stage and number == self.plan.convs[stage - 1]

    def _nearest(self) -> Iterator[str]:
        """The convolutions whose only input is a map from nearest-neighbour upsampling."""
        if self.plan.enlarging == "nearest":
            for stage, number, _, _ in self.plan.layers():
                if self._enters(stage, number) and stage not in self.plan.joins and (stage, number) != (1, 1):
                    yield f"conv{stage}_{number}"

    def _picture(self, state: Tensor) -> Tensor:
        conv = self._part("conv1_1")
        # Half precision is most accurate around zero, so mid-grey is represented by zero until the end.
        assert conv.bias is not None
        shift = conv.bias - 0.5
        grey = _convolve(state, conv, self.padding, bias=shift.to(state.dtype))
        lost = shift - shift.to(state.dtype)
        return grey.to(lost.dtype) + (0.5 + lost)[:, None, None]

    def _enlarge(self, state: Tensor) -> Tensor:
        size = (2 * state.shape[-2], 2 * state.shape[-1])
        return F.interpolate(state, size, mode=self.plan.enlarging)

    def _join(self, state: Tensor, features: Mapping[str, Tensor], stage: int) -> Tensor:
        if stage not in self.plan.joins:
            return state
        skip = features[f"relu{stage}_1"]
        # The encoder's pooling rounds odd sides up.
        state = state[..., : skip.shape[-2], : skip.shape[-1]] + self._part(f"skip{stage}")(skip)
        if stage == self.plan.joins[0]:
            for index in range(1, self.plan.blocks + 1):
                state = self.get_submodule(f"block{index}")(state)
        return state


class Decoders(nn.Module):
    """Several decoders of one encoder, one for each depth; the submodule `level3` decodes relu3_1."""

    def __init__(self, plans: Sequence[DecoderPlan], *, padding: str = "replicate") -> None:
        super().__init__()
        self.levels = tuple(plan.stage for plan in plans)
        for plan in plans:
            self.add_module(f"level{plan.stage}", Decoder(plan, padding=padding))

    def level(self, number: int) -> Decoder:
        """The decoder of relu`number`_1."""
        mirror = self.get_submodule(f"level{number}")
        assert isinstance(mirror, Decoder)
        return mirror

    def prepare(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Call `Decoder.prepare` on each level."""
        for number in self.levels:
            self.level(number).prepare(device, dtype)
        return self

    def fill(self, seed: int) -> Self:
        """Call `Decoder.fill` on each level."""
        for number in self.levels:
            self.level(number).fill(seed)
        return self

    def forward(self, features: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """The picture of each level, by level number, from the level's own tap."""
        return {number: self.level(number)(features) for number in self.levels}


def recognise(state: Mapping[str, Tensor]) -> DecoderPlan:
    """Infer the plan from the names and shapes in `state`. Raises WeightsError if none fits."""
    names = {name.removeprefix("decoder.") for name in state}
    if all(re.fullmatch(r"\d+\.(weight|bias)", name) for name in names):
        plans = [DecoderPlan.of(VGG19, stage) for stage in range(1, 6)]
        near = max(plans, key=lambda plan: len(names & plan.official_names().keys()))
        if "1.weight" in names:
            return near
    widths, convs = _sizes(state)
    if not widths or len(widths) != max(widths):
        raise WeightsError(
            f"these {len(state)} tensors (first: {next(iter(state), 'none')}) are not those of a "
            "decoder that mirrors an encoder; use AdaIN's published decoder.pth or a decoder from atelier"
        )
    stages = range(1, len(widths) + 1)
    return DecoderPlan(
        tuple(widths[stage] for stage in stages),
        tuple(convs[stage] for stage in stages),
        sum(re.fullmatch(r"skip\d\.weight", name) is not None for name in state),
        sum(re.fullmatch(r"block\d+\.first\.weight", name) is not None for name in state),
    )


def from_state(state: Mapping[str, Tensor], *, padding: str = "replicate") -> Decoder:
    """Build a decoder from `state`, which uses atelier's names or those of the published file.

    Raises WeightsError for missing tensors, unexpected tensors or wrong shapes.
    """
    plan = recognise(state)
    official = plan.official_names()
    named = {official.get(name.removeprefix("decoder."), name): tensor for name, tensor in state.items()}
    # On the meta device: the plain constructor would advance the caller's global random state.
    with torch.device("meta"):
        mirror = Decoder(plan, padding=padding)
    check_state({name: part.shape for name, part in mirror.state_dict().items()}, named, "the decoder")
    mirror.load_state_dict({name: tensor.float() for name, tensor in named.items()}, assign=True)
    return mirror


def levels_from_state(state: Mapping[str, Tensor], *, padding: str = "replicate") -> Decoders:
    """Build the decoders of all levels in `state`, whose names begin with `level1.` to `level5.`.

    Raises WeightsError as `from_state` does.
    """
    parts: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if found := re.fullmatch(r"level([1-9])\.(.+)", name):
            parts.setdefault(int(found[1]), {})[found[2]] = tensor
    if not parts or sum(map(len, parts.values())) != len(state):
        raise WeightsError(
            f"these {len(state)} tensors (first: {next(iter(state), 'none')}) are not those of a set of "
            "decoders at several levels: use the decoders of WCT"
        )
    mirrors = Decoders(())
    mirrors.levels = tuple(sorted(parts, reverse=True))
    for number in mirrors.levels:
        mirror = from_state(parts[number], padding=padding)
        if mirror.plan.stage != number:
            raise WeightsError(
                f"level{number} holds the decoder of relu{mirror.plan.stage}_1: correct the tensor names"
            )
        mirrors.add_module(f"level{number}", mirror)
    return mirrors


def check_fit(plan: DecoderPlan, encoder: VGG) -> None:
    """Raise WeightsError unless `plan` mirrors `encoder`."""
    for tap, width in zip(plan.taps, plan.widths[::-1], strict=False):
        if tap not in encoder.taps or encoder.channels(tap) != width:
            there = f"has {encoder.channels(tap)}" if tap in encoder.taps else "has no such tap"
            raise WeightsError(
                f"the decoder needs {width} channels at {tap}, but the encoder ({encoder.plan.name}) "
                f"{there}: use a decoder that was trained for this encoder"
            )


def _sizes(state: Mapping[str, Tensor]) -> tuple[dict[int, int], dict[int, int]]:
    """Channels and number of convolutions by stage, inferred from the tensors."""
    widths: dict[int, int] = {}
    convs: dict[int, int] = {}
    for name, tensor in state.items():
        if (found := re.fullmatch(r"conv([1-9])_([1-9])\.weight", name)) and tensor.ndim == 4:
            stage = int(found[1])
            widths[stage] = tensor.shape[1]
            convs[stage] = max(convs.get(stage, 0), int(found[2]))
    return widths, convs


def _convolve(state: Tensor, conv: nn.Conv2d, padding: str, *, bias: Tensor | None = None) -> Tensor:
    """A 3x3 convolution that keeps the size; `bias` replaces the layer's own bias."""
    bias = conv.bias if bias is None else bias
    if padding == "zeros":
        return F.conv2d(state, conv.weight, bias, padding=1)
    return F.conv2d(F.pad(state, (1, 1, 1, 1), mode=padding), conv.weight, bias)
