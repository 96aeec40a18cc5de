"""TensorFlow's conventions: convolutions without bias, batch norm without a scale, kernels (H, W, in, out).

The networks of Dumoulin et al. and Ghiasi et al. were published for TensorFlow. Modules here use its names,
with dots instead of slashes, so checkpoints are converted by a rule instead of a table.
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
from atelier.maths.pixel_blocks import is_narrow, narrow_convolution

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
    """Batch norm with a shift and no scale, epsilon 1e-3, as in TF-slim."""

    running_mean: Tensor
    running_var: Tensor
    eps = 1e-3

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise features (B, C, H, W) by batch statistics in training, by running ones in evaluation."""
        return F.batch_norm(
            features, self.running_mean, self.running_var, None, self.bias, self.training, 0.01, self.eps
        )


class Convolution(nn.Module):
    """A convolution without bias, followed by batch norm with `norm`.

    `padding` is "reflect" to mirror half a kernel on every side; "same" for zero padding, at stride 1 only,
    where TensorFlow's padding is symmetric; or "valid" for none.
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
        # Not kaiming_normal_: on the meta device it makes torch import 800 modules, which takes a second.
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, outputs, H', W')."""
        height, width = (side // 2 for side in self.weight.shape[2:])
        if self.padding == "reflect":
            features = F.pad(features, (width, width, height, height), mode="reflect")
        around = (height, width) if self.padding == "same" else (0, 0)
        if is_narrow(self.weight, self.stride) and self.padding != "same":
            features = narrow_convolution(features, self.weight, self.bias)
        else:
            features = F.conv2d(features, self.weight, self.bias, self.stride, around)
        return features if self.norm is None else self.norm(features)

    def fold(self) -> None:
        """Fold the batch norm into the weights, which saves one pass over the features."""
        if self.norm is None:
            return
        scale = (self.norm.running_var + self.norm.eps).rsqrt()
        self.weight = _frozen(self.weight * scale[:, None, None, None])
        self.bias = _frozen(self.norm.bias - self.norm.running_mean * scale)
        self.norm = None


def fold(network: nn.Module, dtype: torch.dtype) -> None:
    """Prepare every convolution in `network` for inference: folded batch norm, channels-last, `dtype`."""
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, Convolution):
                part.fold()
                part.weight = _frozen(part.weight.to(dtype, memory_format=torch.channels_last))
                part.bias = None if part.bias is None else _frozen(part.bias.to(dtype))


def translate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert TensorFlow's variables to the names and shapes of the modules here.

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
    """Convert TF-slim's VGG-16 to the names of `features.load`, for input normalised as by torchvision.

    The original network takes pictures in 0..255 minus a mean, without division by a standard deviation. The
    first layer absorbs the difference. Results differ only at the border of that layer, where zero padding
    stands for a colour slightly off the mean: by 3e-4 of the losses for a picture of 48 px.
    """
    kept = {name: value for name, value in state.items() if re.match(r"vgg_16/conv\d/conv\d_\d/", name)}
    found = {name.split(".", 2)[2]: value.float() for name, value in translate(kept).items()}
    if missing := {"conv1_1.weight", "conv1_1.bias"} - found.keys():
        raise WeightsError(
            f"these {len(state)} tensors are not those of TF-slim's VGG-16: {min(missing)} is missing"
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
