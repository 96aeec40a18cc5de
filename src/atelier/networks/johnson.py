"""The transformation network of Johnson, Alahi & Fei-Fei 2016, in its two common forms.

The form of PyTorch's examples mirrors borders and enlarges by repetition. Engstrom's TensorFlow form pads
with zeros, enlarges by transposed convolutions, and ends in a normalised layer and a tanh. Sizes and form are
read from the state dict, so published, slim and own networks load. Parameters have the names of PyTorch's
examples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.maths.pixel_blocks import is_narrow, narrow_convolution
from atelier.maths.upsampling import doubled_convolution
from atelier.networks.conditional import Widths, large_enough, normalise
from atelier.store.checkpoints import check_state

#: Epsilon of the instance norm in PyTorch's form, and in Engstrom's.
_EPS, _EPS_TENSORFLOW = 1e-5, 1e-3


class Convolution(nn.Module):
    """A convolution that keeps the size, or halves it with a stride of 2.

    It mirrors borders and has a bias, or, with `zeros`, pads with zeros as TensorFlow's SAME and has none.
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1, *, zeros: bool = False) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(inputs, outputs, side, stride, bias=not zeros)
        self.zeros = zeros

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        side, stride = self.conv2d.kernel_size[0], self.conv2d.stride[0]
        if self.zeros:
            down, right = (_same(length, side, stride) for length in features.shape[-2:])
            features = F.pad(features, (*right, *down))
        else:
            features = F.pad(features, (side // 2,) * 4, mode="reflect")
        if is_narrow(self.conv2d.weight, stride):
            return narrow_convolution(features, self.conv2d.weight, self.conv2d.bias)
        convolved: Tensor = self.conv2d(features)
        return convolved


class Enlarging(nn.Module):
    """Twice the size: each pixel repeated and convolved, or with `zeros` a transposed convolution."""

    def __init__(self, inputs: int, outputs: int, *, zeros: bool = False) -> None:
        super().__init__()
        self.conv2d = (
            nn.ConvTranspose2d(inputs, outputs, 3, 2, bias=False) if zeros else nn.Conv2d(inputs, outputs, 3)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, inputs, H, W) to (B, outputs, 2 H, 2 W)."""
        if isinstance(self.conv2d, nn.ConvTranspose2d):
            whole: Tensor = self.conv2d(features)
            return whole[..., :-1, :-1]
        return doubled_convolution(features, self.conv2d.weight, self.conv2d.bias)


class Norm(nn.Module):
    """Instance normalisation with a scale and a shift for each channel, by the picture's own statistics."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) to the same shape."""
        return normalise(features, self.bias[None], self.weight[None], eps=self.eps)


class Residual(nn.Module):
    """Two normalised convolutions whose result is added to their input, without ReLU after the sum."""

    def __init__(self, channels: int, eps: float, *, zeros: bool) -> None:
        super().__init__()
        self.conv1 = Convolution(channels, channels, 3, zeros=zeros)
        self.in1 = Norm(channels, eps)
        self.conv2 = Convolution(channels, channels, 3, zeros=zeros)
        self.in2 = Norm(channels, eps)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) to the same shape."""
        inner = self.in1(self.conv1(features)).relu()
        changed: Tensor = self.in2(self.conv2(inner))
        return features + changed


class Johnson(nn.Module):
    """A network for one style.

    `widths` are the channels at full, half and quarter size; `tensorflow` chooses Engstrom's form.
    """

    def __init__(self, widths: Widths = (32, 64, 128), blocks: int = 5, *, tensorflow: bool = False) -> None:
        super().__init__()
        first, second, third = widths
        eps = _EPS_TENSORFLOW if tensorflow else _EPS
        self.tensorflow = tensorflow
        self.conv1 = Convolution(3, first, 9, zeros=tensorflow)
        self.in1 = Norm(first, eps)
        self.conv2 = Convolution(first, second, 3, 2, zeros=tensorflow)
        self.in2 = Norm(second, eps)
        self.conv3 = Convolution(second, third, 3, 2, zeros=tensorflow)
        self.in3 = Norm(third, eps)
        for number in range(1, blocks + 1):
            self.add_module(f"res{number}", Residual(third, eps, zeros=tensorflow))
        self.deconv1 = Enlarging(third, second, zeros=tensorflow)
        self.in4 = Norm(second, eps)
        self.deconv2 = Enlarging(second, first, zeros=tensorflow)
        self.in5 = Norm(first, eps)
        self.deconv3 = Convolution(first, 3, 9, zeros=tensorflow)
        if tensorflow:
            self.in6 = Norm(3, eps)
        self.blocks = blocks

    def forward(self, image: Tensor) -> Tensor:
        """Stylise images (B, 3, H, W) of any size, RGB in 0..1; the pictures are not clamped."""
        height, width = image.shape[-2:]
        # Sides that are not multiples of 4 come out slightly larger.
        return self.published(255 * large_enough(image))[..., :height, :width] / 255

    def published(self, image: Tensor) -> Tensor:
        """The published computation: RGB in 0..255, sides rounded up to a multiple of 4."""
        features = self.down(image.to(self.conv1.conv2d.weight.dtype, memory_format=torch.channels_last))
        for number in range(1, self.blocks + 1):
            features = self.get_submodule(f"res{number}")(features)
        features = self.in4(self.deconv1(features)).relu()
        features = self.in5(self.deconv2(features)).relu()
        # In half precision, 0..255 has too few steps for a picture.
        picture: Tensor = self.deconv3(features.to(self.deconv3.conv2d.weight.dtype))
        if self.tensorflow:
            picture = 150 * self.in6(picture).tanh() + 127.5
        return picture.float()

    def down(self, image: Tensor) -> Tensor:
        """The features (B, C, H / 4, W / 4) before the residual blocks, of images in 0..255."""
        features = self.in1(self.conv1(image)).relu()
        features = self.in2(self.conv2(features)).relu()
        last: Tensor = self.in3(self.conv3(features)).relu()
        return last

    def near_grey(self) -> Self:
        """This network, new, set to give grey pictures with some contrast."""
        near_grey(self.deconv3.conv2d)
        return self

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Ready for use on `device`, with all convolutions but the last in `dtype`; no more training."""
        last = self.deconv3
        for part in self.modules():
            if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)) and part is not last.conv2d:
                part.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.eval().requires_grad_(False).to(device)


def near_grey(last: nn.Conv2d) -> None:
    """Scale a new network's last layer, whose output is in 0..255, to give grey pictures with some contrast.

    Otherwise, the first thousand steps of training only find the range.
    """
    with torch.no_grad():
        last.weight *= 50
        if last.bias is not None:
            last.bias += 127.5


def load_johnson(state: Mapping[str, Tensor]) -> Johnson:
    """The network of published or own tensors, in atelier's or PyTorch's names or Engstrom's variables.

    Raises WeightsError if they belong to another network.
    """
    state = from_published(state)
    if "conv1.conv2d.weight" not in state:
        first = ", ".join(list(state)[:3])
        raise WeightsError(
            f"these {len(state)} tensors (first: {first}) are not those of a network of Johnson et al.: "
            "conv1.conv2d.weight is missing"
        )
    blocks = {found[1] for name in state if (found := re.match(r"res(\d+)\.", name))}
    widths = tuple(len(state.get(f"in{number}.weight", ())) for number in (1, 2, 3))
    with torch.device("meta"):
        network = Johnson(
            (widths[0], widths[1], widths[2]), len(blocks), tensorflow="conv1.conv2d.bias" not in state
        )
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    check_state(shapes, state, "a network of Johnson et al.")
    # Copy the caller's tensors, because preparing the network modifies them.
    network.load_state_dict({name: value.clone().float() for name, value in state.items()}, assign=True)
    return network


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under atelier's names: without running statistics, and Engstrom's variables renamed.

    Files of PyTorch before 0.4 hold running statistics of the instance norms, which were never used.
    """
    if "Variable" in state:
        return _from_variables(state)
    return {
        name: value
        for name, value in state.items()
        if not re.search(r"\.(running_mean|running_var|num_batches_tracked)$", name)
    }


def _from_variables(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Engstrom's variables: a kernel (H, W, in, out), a shift and a scale for each layer, in this order."""
    numbered = {
        int(match[1] or 0): value
        for name, value in state.items()
        if (match := re.fullmatch(r"Variable(?:_(\d+))?", name))
    }
    blocks = len(numbered) // 6 - 3  # three layers before and three after blocks of two, with three variables
    layers = [("conv1", "in1"), ("conv2", "in2"), ("conv3", "in3")]
    layers += [
        (f"res{block}.conv{part}", f"res{block}.in{part}")
        for block in range(1, blocks + 1)
        for part in (1, 2)
    ]
    layers += [("deconv1", "in4"), ("deconv2", "in5"), ("deconv3", "in6")]
    found: dict[str, Tensor] = {}
    for place, (convolution, norm) in enumerate(layers):
        parts = [numbered.get(3 * place + part) for part in range(3)]
        for name, value in zip(
            (f"{convolution}.conv2d.weight", f"{norm}.bias", f"{norm}.weight"), parts, strict=True
        ):
            if value is not None:
                found[name] = value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
    return found


def _same(length: int, side: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of a length: before and after, of which the second may be larger.

    >>> _same(8, 3, 2), _same(7, 3, 2), _same(7, 9, 1)
    ((0, 1), (1, 1), (4, 4))
    """
    whole = max((-(-length // stride) - 1) * stride + side - length, 0)
    return whole // 2, whole - whole // 2
