"""Hypercolumns: the outputs of an encoder's ReLUs, concatenated on a grid of a quarter of the picture's size.

Hariharan et al. 2015; for style transfer, Kolkin et al. 2022, section 3.2. Resizing commutes with 1x1
convolutions, so `project` never builds the wide maps that it projects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.features.vgg import VGG
from atelier.maths.visible import weight_at

GRID_STAGE = 3
#: The side of a grid cell in pixels.
CELL = 1 << GRID_STAGE - 1


class Hypercolumns:
    """The hypercolumns of `encoder` at `taps` (default: all ReLUs of its first four stages).

    The grid is that of the third stage, ceil(H / 4) x ceil(W / 4). Earlier taps are average-pooled, later
    ones upsampled bilinearly. All operations are local and aligned to multiples of 4 px, so a tile that
    starts at a multiple of 8 px has the same hypercolumns as the whole picture, except near its borders.
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
        """Hypercolumns (B, D, ceil(H / 4), ceil(W / 4)) of images (B, 3, H, W); `scale` divides each tap."""
        return self.join(self.encoder(image, self.taps), scale)

    def join(
        self, found: Mapping[str, Tensor], scale: Tensor | None = None, taps: Sequence[str] = ()
    ) -> Tensor:
        """The hypercolumns built from the encoder's features at `taps` (default: all of them)."""
        size = found[self._grid_tap()].shape[-2:]
        parts = [self.gridded(tap, found[tap], size) for tap in taps or self.taps]
        if scale is not None:
            parts = [part / one for part, one in zip(parts, scale.to(parts[0].dtype), strict=True)]
        return torch.cat(parts, 1)

    def project(self, found: Mapping[str, Tensor], weight: Tensor) -> Tensor:
        """`weight` (P, D) times the hypercolumns: (B, P, h, w), float32. Fold any scales into the weight."""
        size = found[self._grid_tap()].shape[-2:]
        parts = dict(zip(self.taps, torch.split(weight, list(self.widths), dim=1), strict=True))
        total: Tensor | None = None
        for stage in sorted({self._stage(tap) for tap in self.taps}):
            taps = [tap for tap in self.taps if self._stage(tap) == stage]
            # Project at the lower resolution: after pooling early stages, before upsampling late ones.
            maps = [self.gridded(tap, found[tap], size) if stage < GRID_STAGE else found[tap] for tap in taps]
            kernel = torch.cat([parts[tap] for tap in taps], 1)[:, :, None, None]
            features = F.conv2d(torch.cat(maps, 1), kernel.to(maps[0].dtype))
            if stage > GRID_STAGE:
                features = self.gridded(taps[0], features, size)
            # In half precision, each addition would round the sum.
            total = features.float() if total is None else total + features
        assert total is not None
        return total

    def sample(self, found: Mapping[str, Tensor], scale: Tensor, rows: int) -> Tensor:
        """About `rows` hypercolumns (N, D) of one image, float32, from evenly spaced horizontal bands."""
        band = 1 << self._stage(self.taps[-1]) - 1
        height, width = found[self.taps[0]].shape[-2:]
        bands, columns = -(-height // band), -(-width // CELL)
        wanted = max(1, min(bands, round(rows * CELL / (columns * band))))
        places = torch.linspace(0, bands - 1, wanted).round().int().tolist()
        parts = [self.join(self._band(found, place * band, band), scale)[0].flatten(1).T for place in places]
        return torch.cat(parts).float()

    def _band(self, found: Mapping[str, Tensor], start: int, height: int) -> dict[str, Tensor]:
        """The features of `height` rows of the picture, beginning at row `start`."""
        steps = {tap: self._stage(tap) - 1 for tap in self.taps}
        return {tap: found[tap][..., start >> n : (start + height) >> n, :] for tap, n in steps.items()}

    def norms(self, found: Mapping[str, Tensor], seen: Tensor | None = None) -> Tensor:
        """The mean norm of each tap's feature vectors, (T,), for use as `scale`.

        With an alpha channel `seen` (1, 1, H, W), only the visible part counts.
        """
        lengths = [found[tap].float().norm(dim=1) for tap in self.taps]
        weights = [weight_at(seen, (one.shape[-2], one.shape[-1])) for one in lengths]
        return torch.stack(
            [
                one.mean() if weight is None else (one * weight[0]).sum() / weight.sum()
                for one, weight in zip(lengths, weights, strict=True)
            ]
        )

    def _grid_tap(self) -> str:
        return next(tap for tap in self.taps if self._stage(tap) == GRID_STAGE)

    def _stage(self, tap: str) -> int:
        return self.encoder.scale(tap).bit_length()

    def gridded(self, tap: str, features: Tensor, size: torch.Size) -> Tensor:
        """One tap's features, resampled to the grid of the third stage, of size `size`."""
        steps = GRID_STAGE - self._stage(tap)
        if steps > 0:
            side = 1 << steps
            return F.avg_pool2d(features, side, ceil_mode=True, count_include_pad=False)
        if steps < 0:
            larger = F.interpolate(features, scale_factor=1 << -steps, mode="bilinear", align_corners=False)
            return larger[..., : size[0], : size[1]]
        return features
