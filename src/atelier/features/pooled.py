"""Pictures encoded by the pooled features of a VGG-like encoder: an image tower that needs no CLIP."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from atelier.features.vgg import VGG

_TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


class PooledEncoder:
    """An `ImageTower`: the means and deviations of channels at several taps, each tap with length 1.

    It sees colours, contrast and texture, and little of what a picture shows; it reads no words.

    >>> from atelier.features.vgg import TINY
    >>> PooledEncoder(VGG(TINY), side=32).image(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 128])
    """

    def __init__(self, encoder: VGG, taps: Sequence[str] = _TAPS, *, side: int = 224) -> None:
        self.encoder, self.taps, self.side = encoder, tuple(taps), side

    def image(self, pictures: Tensor) -> Tensor:
        """The encodings (B, D) of pictures (B, 3, side, side), RGB in 0..1."""
        parts = []
        for found in self.encoder(pictures, self.taps).values():
            variance, mean = torch.var_mean(found.float(), (2, 3), correction=0)
            # The root has no slope at 0, which is the variance of a channel without response.
            parts.append(normalize(torch.cat([mean, (variance + 1e-8).sqrt()], 1), dim=1))
        return torch.cat(parts, 1)
