"""Hypercolumns as the authors of NNST compute them: aligned by their corners, on a quarter of the size.

Kolkin et al. 2022, and their program. `hypercolumns.py` is the same idea with local operations, so that
tiles see what the whole sees; this room keeps the published numbers.
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
    """What `encoder` sees at all ReLUs of its first four stages.

    `rotated` adds what is seen of the picture turned by quarters, upright and below: (1, C, 4 H, W).
    """

    def __init__(self, encoder: VGG, taps: Sequence[str] = ()) -> None:
        self.encoder, self.taps = encoder, Hypercolumns(encoder, taps).taps

    def __call__(self, picture: Tensor, *, rotated: bool = False) -> Tensor:
        """(1, D, H // 4, W // 4) of a picture (1, 3, H, W), at least 1 a side; taps over their channels."""
        return _below(self._joined(one) for one in _turned(picture, rotated))

    def maps(self, picture: Tensor, *, rotated: bool = False) -> list[Tensor]:
        """The features at each tap, at their own resolution and not divided."""
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
    """The nearest row of the style's (M, D) for each query (N, D), both centred, and its cosine distance.

    (N,) each. The program takes the queries' mean block by block, and so does this: the choice depends on it.
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
    """The picture; with `rotated`, also turned by one, two and three quarters."""
    yield picture
    if rotated:
        yield picture.flip(2).mT
        yield picture.flip(2, 3)
        yield picture.flip(3).mT


def _below(maps: Iterator[Tensor]) -> Tensor:
    """Maps (1, C, H, W) one below the other; every second one lies on its side and is put upright."""
    return torch.cat([one.mT if index % 2 else one for index, one in enumerate(maps)], 2)
