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
from atelier.maths.visible import weight_at

GRID_STAGE = 3
#: Pixels of the picture to a cell of the grid.
CELL = 1 << GRID_STAGE - 1


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

    def join(
        self, found: Mapping[str, Tensor], scale: Tensor | None = None, taps: Sequence[str] = ()
    ) -> Tensor:
        """The hypercolumns out of the encoder's features at `taps` (none: all of them)."""
        size = found[self._grid_tap()].shape[-2:]
        parts = [self.gridded(tap, found[tap], size) for tap in taps or self.taps]
        if scale is not None:
            parts = [part / one for part, one in zip(parts, scale.to(parts[0].dtype), strict=True)]
        return torch.cat(parts, 1)

    def project(self, found: Mapping[str, Tensor], weight: Tensor) -> Tensor:
        """`weight` (P, D) times the hypercolumns, (B, P, h, w), float32; scales belong into the weight."""
        size = found[self._grid_tap()].shape[-2:]
        parts = dict(zip(self.taps, torch.split(weight, list(self.widths), dim=1), strict=True))
        total: Tensor | None = None
        for stage in sorted({self._stage(tap) for tap in self.taps}):
            taps = [tap for tap in self.taps if self._stage(tap) == stage]
            # On the smaller of the two grids: before it where the grid is coarser, and after it where finer.
            maps = [self.gridded(tap, found[tap], size) if stage < GRID_STAGE else found[tap] for tap in taps]
            kernel = torch.cat([parts[tap] for tap in taps], 1)[:, :, None, None]
            features = F.conv2d(torch.cat(maps, 1), kernel.to(maps[0].dtype))
            if stage > GRID_STAGE:
                features = self.gridded(taps[0], features, size)
            # In half precision the sum would be rounded at each of its terms.
            total = features.float() if total is None else total + features
        assert total is not None
        return total

    def sample(self, found: Mapping[str, Tensor], scale: Tensor, rows: int) -> Tensor:
        """About `rows` hypercolumns of one image (N, D), float32, out of bands all over it."""
        band = 1 << self._stage(self.taps[-1]) - 1
        height, width = found[self.taps[0]].shape[-2:]
        bands, columns = -(-height // band), -(-width // CELL)
        wanted = max(1, min(bands, round(rows * CELL / (columns * band))))
        places = torch.linspace(0, bands - 1, wanted).round().int().tolist()
        parts = [self.join(self._band(found, place * band, band), scale)[0].flatten(1).T for place in places]
        return torch.cat(parts).float()

    def _band(self, found: Mapping[str, Tensor], start: int, height: int) -> dict[str, Tensor]:
        """The features of `height` rows of the picture, from the row `start` on."""
        steps = {tap: self._stage(tap) - 1 for tap in self.taps}
        return {tap: found[tap][..., start >> n : (start + height) >> n, :] for tap, n in steps.items()}

    def norms(self, found: Mapping[str, Tensor], seen: Tensor | None = None) -> Tensor:
        """The mean length of each tap's feature vectors, (T,): what `scale` divides by.

        Of a picture with an alpha `seen` (1, 1, H, W), those of its visible part.
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
        """One tap's features on the grid, whose `size` is that of the third stage."""
        steps = GRID_STAGE - self._stage(tap)
        if steps > 0:
            side = 1 << steps
            return F.avg_pool2d(features, side, ceil_mode=True, count_include_pad=False)
        if steps < 0:
            larger = F.interpolate(features, scale_factor=1 << -steps, mode="bilinear", align_corners=False)
            return larger[..., : size[0], : size[1]]
        return features
