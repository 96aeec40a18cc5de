"""The classifier that the bundled encoder is trained as: a VGG with batch norm and two heads.

One head classifies objects. The other classifies kinds of painting (and photographs), which keeps colour
and texture in the features although object classes do not need them. Only the convolutions are shipped,
with batch norm folded in (`fold`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Classifier(nn.Module):
    """A VGG with `widths` channels and `depths` convolutions per stage, and 2x2 max pooling between stages.

    The input is (B, 3, H, W), normalised by the ImageNet mean and standard deviation, of any size.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (32, 64, 128, 256, 256),
        depths: Sequence[int] = (2, 2, 3, 3, 2),
        objects: int = 200,
        styles: int = 0,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleDict()
        inputs = 3
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            for index in range(1, depth + 1):
                self.convs[f"conv{stage}_{index}"] = ConvNorm(inputs, width)
                inputs = width
        self.stages = len(widths)
        self.objects = nn.Linear(2 * inputs, objects)
        # The style head also reads features from two stages earlier, which hold more texture than objects.
        self.style_stage = max(1, self.stages - 2)
        self.styles = nn.Linear(2 * widths[self.style_stage - 1] + 2 * inputs, styles) if styles else None

    def stage(self, number: int) -> Iterator[nn.Module]:
        """The convolutions of one stage, in order."""
        return (conv for name, conv in self.convs.items() if name.startswith(f"conv{number}_"))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Object logits (B, objects) and style logits (B, styles), or None if there is no style head."""
        early = image
        for number in range(1, self.stages + 1):
            if number > 1:
                image = F.max_pool2d(image, 2, ceil_mode=True)
            for conv in self.stage(number):
                image = conv(image)
            if number == self.style_stage:
                early = image
        pooled = _pool(image)
        styles = self.styles(torch.cat([_spread(early), pooled], 1)) if self.styles is not None else None
        return self.objects(pooled), styles


def _pool(features: Tensor) -> Tensor:
    """Mean and maximum over positions, (B, 2C)."""
    return torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)


def _spread(features: Tensor) -> Tensor:
    """Mean and standard deviation over positions, (B, 2C), the style statistics of style transfer."""
    variance, mean = torch.var_mean(features.float(), (2, 3), correction=0)
    return torch.cat([mean, (variance + 1e-5).sqrt()], 1)


def fold(network: Classifier) -> dict[str, Tensor]:
    """The convolutions with batch norm folded in, as `conv1_1.weight`, `conv1_1.bias`, ... in float32."""
    state = {}
    for name, block in network.convs.items():
        conv, norm = block.get_submodule("0"), block.get_submodule("1")
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        state[f"{name}.weight"] = (conv.weight * scale[:, None, None, None]).detach().contiguous()
        state[f"{name}.bias"] = (norm.bias - norm.running_mean * scale).detach().contiguous()
    return state
