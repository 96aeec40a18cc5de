"""The trunk of Inception-v3 (Szegedy et al. 2016) up to Mixed_6e, which Ghiasi et al. use to encode styles.

Layer names are those of TF-slim, oddities included: in Mixed_6a the layers named 1x1 have 3x3 kernels.
Unlike the standard Inception-v3, activations are capped at 6 (ReLU6), as in the published style network.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import InputError
from atelier.networks.tensorflow import Convolution, Padding

Branch = tuple[tuple[str, int], ...]

#: The smallest side of a picture, in pixels, for which every convolution and pooling has an output.
SMALLEST = 43
_STEM: Branch = (
    ("Conv2d_1a_3x3", 32),
    ("Conv2d_2a_3x3", 32),
    ("Conv2d_2b_3x3", 64),
    ("Conv2d_3b_1x1", 80),
    ("Conv2d_4a_3x3", 192),
)
_VALID = {"Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"}
_POOLED = {"Conv2d_2b_3x3", "Conv2d_4a_3x3"}


def _mixed_5(pooled: int, narrow: str = "Conv2d_0a_1x1", wide: str = "Conv2d_0b_5x5") -> tuple[Branch, ...]:
    return (
        (("Conv2d_0a_1x1", 64),),
        ((narrow, 48), (wide, 64)),
        (("Conv2d_0a_1x1", 64), ("Conv2d_0b_3x3", 96), ("Conv2d_0c_3x3", 96)),
        (("Conv2d_0b_1x1", pooled),),
    )


def _mixed_6(inner: int) -> tuple[Branch, ...]:
    down = (("Conv2d_0b_7x1", inner), ("Conv2d_0c_1x7", inner), ("Conv2d_0d_7x1", inner))
    return (
        (("Conv2d_0a_1x1", 192),),
        (("Conv2d_0a_1x1", inner), ("Conv2d_0b_1x7", inner), ("Conv2d_0c_7x1", 192)),
        (("Conv2d_0a_1x1", inner), *down, ("Conv2d_0e_1x7", 192)),
        (("Conv2d_0b_1x1", 192),),
    )


_MIXED: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64, "Conv2d_0b_1x1", "Conv_1_0c_5x5"),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": (
        (("Conv2d_1a_1x1", 384),),
        (("Conv2d_0a_1x1", 64), ("Conv2d_0b_3x3", 96), ("Conv2d_1a_1x1", 96)),
    ),
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
}


class Trunk(nn.Module):
    """Inception-v3 up to Mixed_6e with `thin` times fewer channels, initialised from torch's global seed.

    >>> Trunk(thin=16).eval()(torch.rand(1, 3, 43, 59)).shape
    torch.Size([1, 48, 1, 2])
    """

    def __init__(self, thin: int = 1) -> None:
        super().__init__()
        inputs = 3
        for name, width in _STEM:
            self.add_module(name, _unit(name, inputs, width // thin))
            inputs = width // thin
        for name, branches in _MIXED.items():
            block = Mixed(inputs, branches, thin)
            self.add_module(name, block)
            inputs = block.outputs
        self.outputs = inputs

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, 768 / thin, h, w) of `image` (B, 3, H, W), RGB in 0..1.

        Raises `InputError` if a side is shorter than `SMALLEST` px.
        """
        if min(image.shape[-2:]) < SMALLEST:
            height, width = image.shape[-2:]
            raise InputError(
                f"A picture of {width}x{height} px is too small for Inception, which needs at least "
                f"{SMALLEST} px a side: enlarge the picture"
            )
        dtype = self.get_submodule("Conv2d_1a_3x3").get_parameter("weight").dtype
        features = image.to(dtype, memory_format=torch.channels_last)
        for name, _ in _STEM:
            features = F.relu6(self.get_submodule(name)(features), inplace=True)
            if name in _POOLED:
                features = F.max_pool2d(features, 3, 2)
        for name in _MIXED:
            features = self.get_submodule(name)(features)
        return features


class Mixed(nn.Module):
    """An Inception block: parallel branches of convolutions, and one with average pooling.

    A block that halves the resolution uses max pooling instead.
    """

    def __init__(self, inputs: int, branches: Iterable[Branch], thin: int) -> None:
        super().__init__()
        self.outputs = 0
        for index, branch in enumerate(branches):
            units, before = nn.ModuleDict(), inputs
            for name, width in branch:
                units[name] = _unit(name, before, width // thin)
                before = width // thin
            self.add_module(f"Branch_{index}", units)
            self.outputs += before
        self.halves = index == 1
        if self.halves:
            self.outputs += inputs

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W), or to half the height and width."""
        found = []
        for name, branch in self.named_children():
            part = features
            if name == "Branch_3":
                part = F.avg_pool2d(part, 3, 1, 1, count_include_pad=False)
            for unit in branch.children():
                part = F.relu6(unit(part), inplace=True)
            found.append(part)
        if self.halves:
            found.append(F.max_pool2d(features, 3, 2))
        return torch.cat(found, 1)


def _unit(name: str, inputs: int, outputs: int) -> Convolution:
    """The convolution described by a layer name of TF-slim."""
    if name == "Conv2d_1a_1x1":
        return Convolution(inputs, outputs, (3, 3), stride=2, padding="valid", norm=True)
    height, width = (int(side) for side in name.rsplit("_", 1)[1].split("x"))
    padding: Padding = "valid" if name in _VALID else "same"
    stride = 2 if name == "Conv2d_1a_3x3" else 1
    return Convolution(inputs, outputs, (height, width), stride=stride, padding=padding, norm=True)
