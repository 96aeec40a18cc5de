"""Patch-based style loss: each patch of the picture's features should match a patch of the style's features.

Li & Wand 2016, "Combining Markov Random Fields and Convolutional Neural Networks for Image Synthesis".
Patches overlap, which keeps the result coherent. Matching is exact and runs in blocks, so its memory use
does not grow with the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 2048


@dataclass(frozen=True)
class Matched:
    """The target that matching produces for a picture's features.

    `mean` (1, C, H, W) is the average of the matched patches that cover each position, and `cover` (H, W)
    is their number. `scatter` is the sum of squared differences from that average, which does not depend on
    the picture. `entries` is the number of values in all patches.
    """

    mean: Tensor
    cover: Tensor
    scatter: Tensor
    entries: int


class PatchLoss:
    """The MRF energy (eq. 2): mean squared difference between patches and their matches in the style.

    `targets` are features (1, C, H, W) of the style and of its rotated or scaled copies. `masks`
    (1, 1, H, W), 0 or 1, exclude positions that do not belong to the style. Patches are `size` x `size` and
    are taken every `stride` positions, in the picture and in the style. The match is the patch with the
    highest normalised cross-correlation (eq. 3). It is searched for in `dtype` on the first call and then on
    every `every`-th call. `relative` divides by the style's mean square.
    """

    def __init__(
        self,
        targets: Sequence[Tensor],
        *,
        masks: Sequence[Tensor] | None = None,
        size: int = 3,
        stride: int = 1,
        every: int = 1,
        dtype: torch.dtype | None = None,
        relative: bool = False,
    ) -> None:
        self.size, self.stride, self.every = size, stride, every
        self.dtype = dtype or targets[0].dtype
        maps = [_padded(target.detach(), size) for target in targets]
        veils = [None] * len(maps) if masks is None else [_padded(mask, size) for mask in masks]
        self.patches = Patches.of(maps, veils, size, stride)
        self.unit = (
            _mean_square(targets[0].detach(), None if masks is None else masks[0]) if relative else 1.0
        )
        self.calls = 0
        self.matched: Matched | None = None

    def __call__(self, features: Tensor) -> Tensor:
        if self.matched is None or self.calls % self.every == 0:
            self.match(features)
        self.calls += 1
        assert self.matched is not None
        difference = _exact(_padded(features, self.size)) - self.matched.mean
        energy = (difference.square().sum((0, 1)) * self.matched.cover).sum() + self.matched.scatter
        return energy / self.matched.entries / self.unit

    @torch.no_grad()
    def match(self, features: Tensor) -> None:
        """Find the nearest style patch of each patch of `features` (1, C, H, W)."""
        own = _padded(features.detach(), self.size)
        queries = Patches.of([own], [None], self.size, self.stride)
        nearest = nearest_patches(queries, self.patches, self.dtype)
        height, width = own.shape[-2:]
        total = own.new_zeros(height * width, own.shape[1], dtype=_exact(own[:0]).dtype)
        cover, square = total.new_zeros(height * width), total.new_zeros(())
        for here, there in zip(queries.offsets, self.patches.offsets_at(nearest), strict=True):
            values = _exact(self.patches.vectors[there])
            total[queries.corners + here] += values
            cover[queries.corners + here] += 1
            square += values.square().sum()
        mean = total / cover.clamp(min=1)[:, None]
        self.matched = Matched(
            mean.T.reshape(1, -1, height, width).contiguous(memory_format=torch.channels_last),
            cover.reshape(height, width),
            (square - (mean.square().sum(1) * cover).sum()).clamp(min=0),
            len(nearest) * len(queries.offsets) * own.shape[1],
        )


class Patches:
    """All `size` x `size` patches of several feature maps with C channels, without copying them.

    `vectors` (N, C) holds the positions of all maps. For each patch, `corners` (P,) is the index of its
    top-left position in `vectors`, and `widths` (P,) is the row length of its map.
    """

    def __init__(self, vectors: Tensor, corners: Tensor, widths: Tensor, size: int) -> None:
        self.vectors, self.corners, self.widths, self.size = vectors, corners, widths, size

    @classmethod
    def of(cls, maps: Sequence[Tensor], masks: Sequence[Tensor | None], size: int, stride: int) -> Patches:
        """The patches of maps (1, C, H, W), taken every `stride` positions, that lie inside the masks."""
        corners, widths, before = [], [], 0
        for values, mask in zip(maps, masks, strict=True):
            height, width = values.shape[-2:]
            rows, columns = _starts(height, size, stride), _starts(width, size, stride)
            at = (rows[:, None] * width + columns).flatten().to(values.device)
            if mask is not None:
                whole = -F.max_pool2d(-mask.float(), size, 1)[0, 0]
                at = at[whole[rows][:, columns].flatten() > 0.999]
            corners.append(at + before)
            widths.append(torch.full_like(at, width))
            before += height * width
        vectors = torch.cat([values[0].flatten(1).T for values in maps]).contiguous()
        return cls(vectors, torch.cat(corners), torch.cat(widths), size)

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def offsets(self) -> Sequence[int]:
        """The offset of each position of a patch from its corner, for patches of a single map."""
        width = int(self.widths[0])
        return [row * width + column for row in range(self.size) for column in range(self.size)]

    def offsets_at(self, chosen: Tensor) -> Sequence[Tensor]:
        """For each position in a patch, its indices into `vectors` for the `chosen` patches (K,)."""
        corners, widths = self.corners[chosen], self.widths[chosen]
        return [corners + row * widths + column for row in range(self.size) for column in range(self.size)]

    def block(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """The patches from `start` to `stop` as vectors (stop - start, size size C)."""
        chosen = torch.arange(start, min(stop, len(self)), device=self.corners.device)
        return torch.cat([self.vectors[at].to(dtype) for at in self.offsets_at(chosen)], 1)


def nearest_patches(queries: Patches, keys: Patches, dtype: torch.dtype, *, block: int = _BLOCK) -> Tensor:
    """For each query, the index (P,) of the key with the highest normalised cross-correlation.

    The search is exact and runs in blocks; memory is two blocks of patches and their products. The norm of a
    query does not affect which key wins, so only the keys are normalised.
    """
    best = queries.vectors.new_full(
        (len(queries),), -torch.inf, dtype=torch.promote_types(dtype, torch.float32)
    )
    found = torch.zeros(len(queries), dtype=torch.long, device=best.device)
    for start in range(0, len(keys), block):
        some = keys.block(start, start + block, dtype)
        lengths = _exact(some).square().sum(1).sqrt().clamp(min=1e-12)
        some = some / lengths[:, None].to(dtype)
        for first in range(0, len(queries), block):
            products = queries.block(first, first + block, dtype) @ some.T
            scores, at = products.max(1)
            here = slice(first, first + len(at))
            better = scores > best[here]
            best[here] = torch.where(better, scores.to(best.dtype), best[here])
            found[here] = torch.where(better, at + start, found[here])
    return found


def _starts(side: int, size: int, stride: int) -> Tensor:
    """The start of each patch along a side; the last patch always reaches the end."""
    starts = torch.arange(0, side - size + 1, stride)
    if starts[-1] != side - size:
        starts = torch.cat([starts, torch.tensor([side - size])])
    return starts


def _padded(values: Tensor, size: int) -> Tensor:
    """Values (1, C, H, W), with replicate padding at the end of any side shorter than a patch."""
    down, right = (max(0, size - side) for side in values.shape[-2:])
    return F.pad(values, (0, right, 0, down), mode="replicate") if down or right else values


def _mean_square(target: Tensor, mask: Tensor | None) -> Tensor:
    """The mean square of features (1, C, H, W), inside the mask if there is one."""
    square = _exact(target).square()
    if mask is None or bool((mask == 1).all()):
        return square.mean().clamp(min=1e-12)
    inside = mask.to(square)
    return ((square * inside).sum() / (square.shape[1] * inside.sum())).clamp(min=1e-12)


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
