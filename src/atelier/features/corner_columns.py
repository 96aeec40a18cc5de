"""Hypercolumns as computed by the authors of NNST: corner-aligned resizing to a quarter of the size.

Kolkin et al. 2022, and their published code. `hypercolumns.py` uses local operations instead, so that tiles
match the whole picture; this module reproduces the published numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier.features.hypercolumns import CELL, Hypercolumns
from atelier.features.vgg import VGG
from atelier.maths.neighbours import nearest


class CornerColumns:
    """Hypercolumns of `encoder` at `taps` (default: all ReLUs of its first four stages).

    With `rotated`, the features of the picture rotated by 90, 180 and 270 degrees are turned back to the
    orientation of the map and stacked below the original: (1, C, 4 H, W).
    """

    def __init__(self, encoder: VGG, taps: Sequence[str] = ()) -> None:
        self.encoder, self.taps = encoder, Hypercolumns(encoder, taps).taps

    def __call__(self, picture: Tensor, *, rotated: bool = False) -> Tensor:
        """Hypercolumns (1, D, H // 4, W // 4), at least 1 x 1, of a picture (1, 3, H, W).

        Each tap is divided by its number of channels.
        """
        return _below(self._joined(one) for one in _turned(picture, rotated))

    def maps(self, picture: Tensor, *, rotated: bool = False) -> list[Tensor]:
        """The features at each tap, at their own resolution and without division."""
        seen = [self.encoder(one, self.taps) for one in _turned(picture, rotated)]
        return [_below(found[tap] for found in seen) for tap in self.taps]

    def _joined(self, picture: Tensor) -> Tensor:
        height, width = (max(1, side // CELL) for side in picture.shape[-2:])
        found = self.encoder(picture, self.taps).values()
        return torch.cat([_resized(one / one.shape[1], (height, width)) for one in found], 1)


def rows(columns: Tensor) -> Tensor:
    """(1, D, h, w) as (h w, D), row by row."""
    return columns[0].flatten(1).T.contiguous()


def neighbours(queries: Tensor, style: Tensor, *, block: int | None = None) -> tuple[Tensor, Tensor]:
    """The index (N,) and cosine distance (N,) of the nearest `style` row (M, D) to each query (N, D).

    Both sides are centred. As in the published code, the mean of the queries is taken block by block, which
    affects the matches.
    """
    block = block or max(1, (1 << 14) // max(1, len(style) // (1 << 14)))
    keys = F.normalize(style - style.mean(0), dim=1)
    found = []
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        found.append(nearest(F.normalize(part - part.mean(0), dim=1), keys))
    index, likeness = (torch.cat(one) for one in zip(*found, strict=True))
    return index, 1 - likeness


def _resized(features: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(features, size, mode="bilinear", align_corners=True)


def _turned(picture: Tensor, rotated: bool) -> Iterator[Tensor]:
    """The picture; with `rotated`, also the picture rotated by 90, 180 and 270 degrees."""
    yield picture
    if rotated:
        yield picture.flip(2).mT
        yield picture.flip(2, 3)
        yield picture.flip(3).mT


def _below(maps: Iterator[Tensor]) -> Tensor:
    """Maps (1, C, H, W) stacked vertically. Every second map is transposed, and is transposed back."""
    return torch.cat([one.mT if index % 2 else one for index, one in enumerate(maps)], 2)
