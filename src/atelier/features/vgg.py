"""VGG-like encoders: stages of 3x3 convolutions and ReLUs, with a 2x2 pooling after each stage.

One class serves torchvision's VGG-16 and VGG-19 (Simonyan & Zisserman 2015), the `vgg_normalised`
network of AdaIN, WCT and CAP-VSTNet, and the encoder bundled with atelier; a `Plan` describes how they
differ. A tap names a layer output: `conv4_2` (before the ReLU), `relu3_1`, `pool3`, `colour`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import InputError, UsageError, WeightsError, did_you_mean

Padding = Literal["zeros", "reflect", "replicate"]
Pooling = Literal["max", "average"]

_PADDINGS = ("zeros", "reflect", "replicate")
_POOLINGS = ("max", "average")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Plan:
    """The layout of a VGG-like encoder and the input it expects.

    `widths` and `convs` give the number of channels and of convolutions in each stage. `ceil_pool` keeps
    an odd last row or column when pooling. `mean` and `std` normalise RGB in 0..1 (None: no
    normalisation). `colour` puts a learned 1x1 convolution first.
    """

    name: str
    widths: tuple[int, ...]
    convs: tuple[int, ...]
    ceil_pool: bool = True
    padding: Padding = "zeros"
    mean: tuple[float, float, float] | None = _IMAGENET_MEAN
    std: tuple[float, float, float] | None = _IMAGENET_STD
    colour: bool = False

    def layers(self) -> Iterator[tuple[str, int, int]]:
        """The name, input channels and output channels of each 3x3 convolution, in order."""
        channels = 3
        for stage, (width, count) in enumerate(zip(self.widths, self.convs, strict=True), start=1):
            for position in range(1, count + 1):
                yield f"conv{stage}_{position}", channels, width
                channels = width

    def taps(self) -> tuple[str, ...]:
        """Every tap, in the order of computation."""
        names = ["colour"] if self.colour else []
        for stage, count in enumerate(self.convs, start=1):
            for position in range(1, count + 1):
                names += [f"conv{stage}_{position}", f"relu{stage}_{position}"]
            names.append(f"pool{stage}")
        return tuple(names)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters, by atelier's names."""
        sizes: dict[str, tuple[int, ...]] = {}
        if self.colour:
            sizes |= {"colour.weight": (3, 3, 1, 1), "colour.bias": (3,)}
        for name, before, after in self.layers():
            sizes |= {f"{name}.weight": (after, before, 3, 3), f"{name}.bias": (after,)}
        return sizes

    def official_names(self) -> dict[str, str]:
        """Map names in the published `nn.Sequential` (`"28.weight"`) to atelier's names."""
        # With a colour layer, padding is a separate layer in the published network: pad, conv, ReLU.
        lead = 1 if self.colour else 0
        position, names = lead, {"0": "colour"} if self.colour else {}
        for stage, count in enumerate(self.convs, start=1):
            for index in range(1, count + 1):
                names[str(position + lead)] = f"conv{stage}_{index}"
                position += 2 + lead
            position += 1
        return {
            f"{key}.{part}": f"{name}.{part}" for key, name in names.items() for part in ("weight", "bias")
        }


_VGG_WIDTHS = (64, 128, 256, 512, 512)

VGG16 = Plan("vgg16", _VGG_WIDTHS, (2, 2, 3, 3, 3), ceil_pool=False)
VGG19 = Plan("vgg19", _VGG_WIDTHS, (2, 2, 4, 4, 4), ceil_pool=False)
VGG_NORMALISED = Plan(
    "vgg_normalised", _VGG_WIDTHS, (2, 2, 4, 4, 4), padding="reflect", mean=None, std=None, colour=True
)
ENCODER = Plan("encoder", (32, 64, 128, 256, 256), (2, 2, 3, 3, 1))
TINY = Plan("tiny", (8, 8, 16, 16, 16), (2, 2, 3, 3, 1))


class VGG(nn.Module):
    """A frozen VGG-like encoder with random weights from `seed` (None: uninitialised weights).

    >>> encoder = VGG(TINY)
    >>> {name: tuple(tap.shape) for name, tap in encoder(torch.rand(1, 3, 9, 16), ["relu2_1"]).items()}
    {'relu2_1': (1, 8, 5, 8)}
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        plan: Plan,
        *,
        padding: Padding | None = None,
        pooling: Pooling | None = None,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.padding: str = _one_of("padding", padding or plan.padding, _PADDINGS)
        self.pooling: str = _one_of("pooling", pooling or "max", _POOLINGS)
        self.taps = plan.taps()
        if plan.colour:
            self.colour = _unfilled(3, 3, 1)
        for name, before, after in plan.layers():
            self.add_module(name, _unfilled(before, after, 3))
        mean, std = plan.mean or (0.0, 0.0, 0.0), plan.std or (1.0, 1.0, 1.0)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        if seed is not None:
            self._fill(seed)
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """The features of `image` (B, 3, H, W), RGB in 0..1, at `taps`, in the dtype of the weights.

        Layers after the deepest tap are not computed. Raises `UsageError` for an unknown tap and
        `InputError` for a picture that is too small for the deepest tap.
        """
        wanted = self._check_taps(taps)
        steps = self.taps[: max(self.taps.index(tap) for tap in wanted) + 1]
        self._check_image(image, steps)
        features, found = self.normalise(image), dict[str, Tensor]()
        for step in steps:
            features = self.advance(features, step, keep=any(features is tap for tap in found.values()))
            if step in wanted:
                found[step] = features
        return {tap: found[tap] for tap in wanted}

    def normalise(self, image: Tensor) -> Tensor:
        """The input of the first layer for `image` (B, 3, H, W), RGB in 0..1."""
        # In half precision, a difference of 1/255 would be lost here, before the first layer.
        image = image.to(torch.promote_types(torch.float32, self.dtype))
        if self.plan.mean is not None:
            image = (image - self.mean) / self.std
        return image.to(self.dtype, memory_format=torch.channels_last) if not self.plan.colour else image

    def advance(self, features: Tensor, step: str, *, keep: bool) -> Tensor:
        """The output (B, C', H', W') of the layer `step` for the previous layer's output (B, C, H, W).

        A ReLU overwrites `features` unless `keep` is set.
        """
        if step == "colour":
            bias = self.get_parameter("colour.bias").to(features.dtype)
            features = F.conv2d(features, self._weight("colour").to(features.dtype), bias)
            return features.to(self.dtype, memory_format=torch.channels_last)
        if step.startswith("conv"):
            return self._convolve(features, step)
        if step.startswith("relu"):
            return features.relu() if keep else features.relu_()
        pool = F.max_pool2d if self.pooling == "max" else F.avg_pool2d
        return pool(features, 2, ceil_mode=self.plan.ceil_pool)

    def prepare(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move to `device` and convert the convolutions to `dtype`; normalisation and colour stay float32."""
        self.to(device=device)
        for name, _, _ in self.plan.layers():
            self.get_submodule(name).to(dtype=dtype or self.dtype)
        return self

    def channels(self, tap: str) -> int:
        """The number of channels of `tap`."""
        (tap,) = self._check_taps([tap])
        return 3 if tap == "colour" else self.plan.widths[_stage(tap) - 1]

    def scale(self, tap: str) -> int:
        """The stride of `tap`: the number of picture pixels along the side of one position."""
        (tap,) = self._check_taps([tap])
        stage = 1 if tap == "colour" else _stage(tap)
        return 1 << (stage if tap.startswith("pool") else stage - 1)

    def smallest_side(self, taps: Sequence[str]) -> int:
        """The smallest side, in pixels, of a picture that reaches all of `taps`."""
        wanted = self._check_taps(taps)
        return self._smallest(self.taps[: max(self.taps.index(tap) for tap in wanted) + 1])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the convolutions."""
        return self._weight("conv1_1").dtype

    def _weight(self, name: str) -> Tensor:
        return self.get_parameter(f"{name}.weight")

    def _fill(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)

    def _check_taps(self, taps: Sequence[str]) -> tuple[str, ...]:
        wanted = (taps,) if isinstance(taps, str) else tuple(taps)
        if not wanted:
            raise UsageError(f"{self.plan.name} needs at least one tap; available: {', '.join(self.taps)}")
        for tap in wanted:
            if tap not in self.taps:
                raise UsageError(f"{self.plan.name} has no tap '{tap}': {did_you_mean(tap, self.taps)}")
        return wanted

    def _check_image(self, image: Tensor, steps: Sequence[str]) -> None:
        if image.ndim != 4 or image.shape[1] != 3:
            raise InputError(f"an encoder expects RGB of shape (B, 3, H, W), got {tuple(image.shape)}")
        height, width = image.shape[-2:]
        need = self._smallest(steps)
        if min(height, width) < need:
            raise InputError(
                f"A picture of {width}x{height} px is too small for {steps[-1]} of {self.plan.name} with "
                f"{self.padding} padding, which needs at least {need} px a side: "
                "enlarge the picture or use an earlier layer"
            )

    def _smallest(self, steps: Sequence[str]) -> int:
        need = 1
        for step in reversed(steps):
            if step.startswith("pool"):
                need = 2 * need - 1 if self.plan.ceil_pool else 2 * need
            elif step.startswith("conv") and self.padding == "reflect":
                need = max(need, 2)
        return need

    def _convolve(self, features: Tensor, name: str) -> Tensor:
        bias = self.get_parameter(f"{name}.bias")
        if self.padding == "zeros":
            return F.conv2d(features, self._weight(name), bias, padding=1)
        return F.conv2d(F.pad(features, (1, 1, 1, 1), mode=self.padding), self._weight(name), bias)


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise UsageError(f"an encoder has no {option} '{value}': {did_you_mean(value, allowed)}")
    return value


def _unfilled(before: int, after: int, kernel: int) -> nn.Conv2d:
    # The plain constructor would advance the caller's global random state.
    return nn.Conv2d(before, after, kernel, device="meta").to_empty(device="cpu")


def _stage(tap: str) -> int:
    return int(re.sub(r"\D*(\d+).*", r"\1", tap))


def load(
    name: str | Path = "encoder.atelier",
    *,
    padding: Padding | None = None,
    pooling: Pooling | None = None,
) -> VGG:
    """Load the encoder called `name` from the weights store, or from a file if `name` is a path.

    Raises `WeightsError` if the weights are not found or are not those of a VGG.
    """
    from atelier.store.weights import load as read

    state = read(name)
    try:
        return from_official(recognise(state), state, padding=padding, pooling=pooling)
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error


# The network may be loaded by a method that runs in inference mode and cached for one that needs gradients.
# Tensors created in inference mode do not support autograd.
@torch.inference_mode(False)
def from_official(
    plan: Plan,
    state: Mapping[str, Tensor],
    *,
    padding: Padding | None = None,
    pooling: Pooling | None = None,
) -> VGG:
    """Build the encoder of `plan` from `state`, which uses atelier's names or those of the published file.

    The prefix `features.` is optional, and `classifier.` tensors are ignored. Raises `WeightsError` for
    missing tensors, unexpected tensors or wrong shapes.
    """
    named = _own_names(plan, state)
    _check_names(plan, named)
    encoder = VGG(plan, padding=padding, pooling=pooling, seed=None)
    encoder.load_state_dict({name: tensor.float() for name, tensor in named.items()})
    return encoder


def recognise(state: Mapping[str, Tensor]) -> Plan:
    """Infer the plan from the names and shapes in `state`. Raises `WeightsError` if none fits."""
    names = set(_features_of(state))
    if "conv1_1.weight" in names:
        return _plan_of_own(state)
    for plan in (VGG_NORMALISED, VGG19, VGG16):
        # Most names suffice: the exact check later names any missing or unexpected tensors.
        if len(names & plan.official_names().keys()) > 0.8 * len(plan.official_names()):
            return plan
    raise WeightsError(
        f"these {len(state)} tensors (first: {_some(state)}) are not those of a VGG-like encoder; use "
        "torchvision's vgg16 or vgg19, vgg_normalised, or an encoder trained with atelier"
    )


def _features_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix("features."): tensor
        for key, tensor in state.items()
        if not key.startswith("classifier.")
    }


def _own_names(plan: Plan, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    features = _features_of(state)
    if "conv1_1.weight" in features:
        return features
    official = plan.official_names()
    return {official.get(key, key): tensor for key, tensor in features.items()}


def _check_names(plan: Plan, named: Mapping[str, Tensor]) -> None:
    shapes = plan.shapes()
    missing = [name for name in shapes if name not in named]
    extra = [name for name in named if name not in shapes]
    if missing or extra:
        raise WeightsError(
            f"the weights do not fit {plan.name}: {len(missing)} tensors are missing ({_some(missing)}) "
            f"and {len(extra)} are unexpected ({_some(extra)}); use the original published file"
        )
    for name, shape in shapes.items():
        if tuple(named[name].shape) != shape:
            raise WeightsError(
                f"the weights do not fit {plan.name}: {name} has shape {tuple(named[name].shape)}, "
                f"expected {shape}; use the original published file"
            )


def _plan_of_own(state: Mapping[str, Tensor]) -> Plan:
    """Infer the widths and counts from the tensors, so that encoders of any size load."""
    counts: dict[int, int] = {}
    widths: dict[int, int] = {}
    for key, tensor in state.items():
        if found := re.fullmatch(r"conv([1-9])_([1-9]\d?)\.weight", key):
            stage = int(found[1])
            counts[stage] = max(counts.get(stage, 0), int(found[2]))
            widths[stage] = tensor.shape[0]
    stages = range(1, max(counts) + 1)
    if missing := [f"conv{stage}_1.weight" for stage in stages if stage not in counts]:
        raise WeightsError(f"the weights lack an entire stage of the encoder ({_some(missing)})")
    read = (tuple(widths[stage] for stage in stages), tuple(counts[stage] for stage in stages))
    if "colour.weight" in state:
        return replace(VGG_NORMALISED, widths=read[0], convs=read[1])
    known = [plan for plan in (VGG16, VGG19) if (plan.widths, plan.convs) == read]
    return known[0] if known else replace(ENCODER, widths=read[0], convs=read[1])


def _some(names: Mapping[str, Tensor] | Sequence[str]) -> str:
    first = list(names)[:3]
    return ", ".join(first) + (", ..." if len(names) > 3 else "") if first else "none"
