"""TensorFlow's conventions: convolutions without bias, batch norm without a scale, kernels (H, W, in, out).

The networks of Dumoulin et al. and Ghiasi et al. were published in it. Their modules here carry its names
with dots for slashes, so that a checkpoint is translated by a rule and not by a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.features.vgg import VGG16

Padding = Literal["reflect", "same", "valid"]

_SLIM_MEAN = (123.68, 116.779, 103.939)
_ENDINGS = {
    "/BatchNorm/beta": ".norm.bias",
    "/BatchNorm/moving_mean": ".norm.running_mean",
    "/BatchNorm/moving_variance": ".norm.running_var",
    "/weights": ".weight",
    "/biases": ".bias",
}


class BatchNorm(nn.Module):
    """Batch norm with a shift and no scale, as TF-slim has it: epsilon 1e-3."""

    running_mean: Tensor
    running_var: Tensor
    eps = 1e-3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) by the batch's moments in training, else by the running ones."""
        return F.batch_norm(
            features, self.running_mean, self.running_var, None, self.bias, self.training, 0.01, self.eps
        )


class Convolution(nn.Module):
    """A convolution without bias and, with `norm`, the batch norm behind it.

    `padding` "reflect" mirrors half a kernel on every side; "same" pads with zeros and is for a stride
    of 1, where TensorFlow's is symmetric; "valid" pads nothing.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        padding: Padding = "reflect",
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel))
        self.bias: nn.Parameter | None = None
        self.norm = BatchNorm(outputs) if norm else None
        self.stride, self.padding = stride, padding
        # Not the normal one: on the meta device it makes torch import 800 modules, which takes a second.
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, outputs, H', W')."""
        height, width = (side // 2 for side in self.weight.shape[2:])
        if self.padding == "reflect":
            features = F.pad(features, (width, width, height, height), mode="reflect")
        around = (height, width) if self.padding == "same" else (0, 0)
        features = F.conv2d(features, self.weight, self.bias, self.stride, around)
        return features if self.norm is None else self.norm(features)

    def fold(self) -> None:
        """Take the batch norm into the weights: the same numbers with one pass over the features less."""
        if self.norm is None:
            return
        scale = (self.norm.running_var + self.norm.eps).rsqrt()
        self.weight = _frozen(self.weight * scale[:, None, None, None])
        self.bias = _frozen(self.norm.bias - self.norm.running_mean * scale)
        self.norm = None


def fold(network: nn.Module, dtype: torch.dtype) -> None:
    """Ready every convolution in `network` for use: batch norm folded in, channels last, in `dtype`."""
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, Convolution):
                part.fold()
                part.weight = _frozen(part.weight.to(dtype, memory_format=torch.channels_last))
                part.bias = None if part.bias is None else _frozen(part.bias.to(dtype))


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TensorFlow's variables under the names and in the shapes that modules have here.

    >>> translate({"a/conv/weights": torch.ones(3, 5, 2, 8)})["a.conv.weight"].shape
    torch.Size([8, 2, 3, 5])
    """
    found = {}
    for name, value in state.items():
        ending = next((ending for ending in _ENDINGS if name.endswith(ending)), "")
        plain = (name.removesuffix(ending) + _ENDINGS.get(ending, "")).replace("/", ".")
        found[plain] = value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
    return found


def vgg_from_slim(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TF-slim's VGG-16 as `features.load` takes it: `conv1_1.weight`, ..., for input as torchvision's.

    It saw 255 times the picture less a mean, undivided; that goes into the first layer. Only the border of
    that layer, where zeros then stand for a colour a little off the mean, is not quite the same (3e-4 of
    the losses of a picture of 48 px).
    """
    kept = {name: value for name, value in state.items() if re.match(r"vgg_16/conv\d/conv\d_\d/", name)}
    found = {name.split(".", 2)[2]: value.float() for name, value in translate(kept).items()}
    if missing := {"conv1_1.weight", "conv1_1.bias"} - found.keys():
        raise WeightsError(
            f"these {len(state)} tensors are not the VGG-16 of TF-slim: {min(missing)} is missing"
        )
    mean, deviation = (torch.tensor(part) for part in (VGG16.mean, VGG16.std))
    kernel = found["conv1_1.weight"]
    found["conv1_1.bias"] = found["conv1_1.bias"] + kernel.sum((2, 3)) @ (
        255 * mean - torch.tensor(_SLIM_MEAN)
    )
    found["conv1_1.weight"] = kernel * (255 * deviation)[None, :, None, None]
    return found


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
