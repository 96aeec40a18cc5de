"""Style as patches: every patch of the picture's features should be one of the style's.

Li & Wand 2016, "Combining Markov Random Fields and Convolutional Neural Networks for Image Synthesis". The
patches' neighbourhoods overlap, so that what they agree on is coherent. Matching is exact and runs in blocks:
its memory does not grow with the pictures.
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
    """What a picture's features should be after matching.

    `mean` (1, C, H, W) is the average of the matched patches that cover a position, `cover` (H, W) their
    number, `scatter` the sum of squares by which they differ from that average: it stays, whatever the
    picture does. `entries` counts the values of all patches.
    """

    mean: Tensor
    cover: Tensor
    scatter: Tensor
    entries: int


class PatchLoss:
    """The MRF energy (eq. 2): mean squared difference between patches and their matches in the style.

    `targets` are features (1, C, H, W) of the style and its copies, rotated or scaled; `masks` (1, 1, H, W),
    0 or 1, leave out what is not of the style. Patches have `size` positions a side and start `stride` apart,
    on both sides. The match is the patch of highest normalised cross-correlation (eq. 3), searched in `dtype`
    anew at every `every`-th call, beginning with the first. `relative` divides by the style's mean square.
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
        apart = _exact(_padded(features, self.size)) - self.matched.mean
        energy = (apart.square().sum((0, 1)) * self.matched.cover).sum() + self.matched.scatter
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
    """All patches of some feature maps of one width C, without a copy of any.

    `vectors` (N, C) holds the positions of all maps, `corners` (P,) where the patches begin in it, `widths`
    (P,) how long a row is there; `size` positions a side.
    """

    def __init__(self, vectors: Tensor, corners: Tensor, widths: Tensor, size: int) -> None:
        self.vectors, self.corners, self.widths, self.size = vectors, corners, widths, size

    @classmethod
    def of(cls, maps: Sequence[Tensor], masks: Sequence[Tensor | None], size: int, stride: int) -> Patches:
        """The patches of maps (1, C, H, W) that start `stride` apart and lie inside the masks throughout."""
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
        """How far each position of a patch lies behind its corner, for patches of one map."""
        width = int(self.widths[0])
        return [row * width + column for row in range(self.size) for column in range(self.size)]

    def offsets_at(self, chosen: Tensor) -> Sequence[Tensor]:
        """For each position in a patch, the indices into `vectors` of the `chosen` patches (K,)."""
        corners, widths = self.corners[chosen], self.widths[chosen]
        return [corners + row * widths + column for row in range(self.size) for column in range(self.size)]

    def block(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """The patches from `start` to `stop` as vectors (stop - start, size size C)."""
        chosen = torch.arange(start, min(stop, len(self)), device=self.corners.device)
        return torch.cat([self.vectors[at].to(dtype) for at in self.offsets_at(chosen)], 1)


def nearest_patches(queries: Patches, keys: Patches, dtype: torch.dtype, *, block: int = _BLOCK) -> Tensor:
    """For each query the key of highest normalised cross-correlation, (P,): an exact search in blocks.

    The query's own length does not change which key is best, so only the keys are normalised. Memory is that
    of two blocks of patches and of their products.
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
    """Where patches begin along a side; the last one always reaches its end."""
    starts = torch.arange(0, side - size + 1, stride)
    if starts[-1] != side - size:
        starts = torch.cat([starts, torch.tensor([side - size])])
    return starts


def _padded(values: Tensor, size: int) -> Tensor:
    """Values (1, C, H, W), repeated at the end of a side that is shorter than a patch."""
    down, right = (max(0, size - side) for side in values.shape[-2:])
    return F.pad(values, (0, right, 0, down), mode="replicate") if down or right else values


def _mean_square(target: Tensor, mask: Tensor | None) -> Tensor:
    """The mean square of features (1, C, H, W), of those inside the mask where it hides some."""
    square = _exact(target).square()
    if mask is None or bool((mask == 1).all()):
        return square.mean().clamp(min=1e-12)
    inside = mask.to(square)
    return ((square * inside).sum() / (square.shape[1] * inside.sum())).clamp(min=1e-12)


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
