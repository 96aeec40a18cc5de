"""Hypercolumns: every ReLU of an encoder side by side, on one grid of a quarter of the picture's size.

Hariharan et al. 2015; as style transfer uses them, Kolkin et al. 2022, section 3.2. Resizing and 1x1
convolutions are linear and can change places, so `project` never builds the wide maps it projects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.features.vgg import VGG

GRID_STAGE = 3


class Hypercolumns:
    """The hypercolumns that `encoder` sees at `taps` (none: all ReLUs of its first four stages).

    The grid is that of the third stage, ceil(H / 4) x ceil(W / 4): earlier taps are averaged, later ones
    enlarged bilinearly. All operations are local and start at multiples of 4 px, so a tile that begins at a
    multiple of 8 px has the hypercolumns of the whole, but for a margin.
    """

    def __init__(self, encoder: VGG, taps: Sequence[str] = ()) -> None:
        self.encoder = encoder
        self.taps = tuple(taps) or tuple(
            f"relu{stage}_{index}"
            for stage, count in enumerate(encoder.plan.convs[:4], start=1)
            for index in range(1, count + 1)
        )
        self.widths = tuple(encoder.channels(tap) for tap in self.taps)
        self.channels = sum(self.widths)

    def __call__(self, image: Tensor, scale: Tensor | None = None) -> Tensor:
        """(B, D, ceil(H / 4), ceil(W / 4)) of images (B, 3, H, W); each tap is divided by its `scale`."""
        return self.join(self.encoder(image, self.taps), scale)

    def join(self, found: Mapping[str, Tensor], scale: Tensor | None = None) -> Tensor:
        """The hypercolumns out of the encoder's features at `taps`."""
        size = found[self._grid_tap()].shape[-2:]
        parts = [self.gridded(tap, found[tap], size) for tap in self.taps]
        if scale is not None:
            parts = [part / one for part, one in zip(parts, scale.to(parts[0].dtype), strict=True)]
        return torch.cat(parts, 1)

    def project(self, found: Mapping[str, Tensor], weight: Tensor) -> Tensor:
        """`weight` (P, D) times the hypercolumns, (B, P, h, w), float32; scales belong into the weight."""
        size = found[self._grid_tap()].shape[-2:]
        total: Tensor | None = None
        for tap, part in zip(self.taps, torch.split(weight, list(self.widths), dim=1), strict=True):
            stage = self._stage(tap)
            features = found[tap]
            if stage < GRID_STAGE:  # fewer positions first
                features = self.gridded(tap, features, size)
            features = F.conv2d(features, part[:, :, None, None].to(features.dtype))
            if stage > GRID_STAGE:
                features = self.gridded(tap, features, size)
            # In half precision the sum would be rounded at each of its terms.
            total = features.float() if total is None else total + features
        assert total is not None
        return total

    def norms(self, found: Mapping[str, Tensor]) -> Tensor:
        """The mean length of each tap's feature vectors, (T,): what `scale` divides by."""
        return torch.stack([found[tap].float().norm(dim=1).mean() for tap in self.taps])

    def _grid_tap(self) -> str:
        return next(tap for tap in self.taps if self._stage(tap) == GRID_STAGE)

    def _stage(self, tap: str) -> int:
        return self.encoder.scale(tap).bit_length()

    def gridded(self, tap: str, features: Tensor, size: torch.Size) -> Tensor:
        """One tap's features on the grid, whose `size` is that of the third stage."""
        steps = GRID_STAGE - self._stage(tap)
        if steps > 0:
            side = 1 << steps
            return F.avg_pool2d(features, side, ceil_mode=True, count_include_pad=False)
        if steps < 0:
            larger = F.interpolate(features, scale_factor=1 << -steps, mode="bilinear", align_corners=False)
            return larger[..., : size[0], : size[1]]
        return features
