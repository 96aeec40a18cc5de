"""CLIPstyler's style network: a small U-Net, 0.6 million weights, trained anew for each picture.

Kwon & Ye 2022, "CLIPstyler: Image Style Transfer with a Single Text Condition". It has 16 channels at the
picture's size and 128 at an eighth of it. The layers have the published names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The picture's sides must be multiples of this, and at least twice as long.
MULTIPLE = 8


class StyleUNet(nn.Module):
    """The network, initialised from torch's global seed.

    >>> StyleUNet()(torch.rand(1, 3, 16, 24)).shape
    torch.Size([1, 3, 16, 24])
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_init = nn.Conv2d(3, 16, 1)
        self.init = _Block(16, 16)
        self.down1, self.down2, self.down3 = _Down(16, 16), _Down(16, 32), _Down(32, 64)
        self.encoding = _Block(64, 128)
        self.up3, self.up2, self.up1 = _Up(128 + 64, 64), _Up(64 + 32, 32), _Up(32 + 16, 16)
        self.out = _Block(32, 16)
        self.conv_fin = nn.Conv2d(16, 3, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """The styled picture (B, 3, H, W) in 0..1 of a picture in 0..1 with sides that are multiples of 8."""
        return self.logits(picture).sigmoid()

    def logits(self, picture: Tensor) -> Tensor:
        """The output before the sigmoid."""
        first = self.init(self.conv_init(picture))
        skip1, small1 = self.down1(first)
        skip2, small2 = self.down2(small1)
        skip3, small3 = self.down3(small2)
        large = self.up1(self.up2(self.up3(self.encoding(small3), skip3), skip2), skip1)
        found: Tensor = self.conv_fin(self.out(torch.cat([large, first], 1)))
        return found


class _Block(nn.Module):
    """Two 3x3 convolutions with instance norm and ReLU, and a 1x1 convolution past them."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1),
            nn.InstanceNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1),
            nn.InstanceNorm2d(after),
            nn.ReLU(inplace=True),
        )
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.conv(features) + self.skip(features)
        return found


class _Down(_Block):
    """A block, and its output at half the size."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after)
        self.downsample = nn.Conv2d(after, after, 4, stride=2, padding=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        found = super().forward(features)
        return found, self.downsample(found)


class _Up(_Block):
    """A block on the features at twice the size, beside those of a skip connection."""

    def forward(self, features: Tensor, beside: Tensor) -> Tensor:  # type: ignore[override]
        larger = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)
        return super().forward(torch.cat([larger, beside], 1))
