"""Whether all results together look like the style pictures: distances of sets of pictures."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from atelier.core.errors import InputError
from atelier.metrics.base import Embedder, Style, picture_style
from atelier.metrics.lpips import LPIPS

#: Below this many pictures an FID says more of their number than of their look.
ENOUGH = 2048


class SmallSetWarning(UserWarning):
    """A distance of sets that are too small for it."""


@dataclass(frozen=True)
class FrechetDistance:
    """Fréchet distance of features of results and styles (FID, Heusel et al. 2017), in float64.

    Each style picture counts `once`, however many results it has, or once for each result. Warns below 2,048
    pictures, where the distance is too large by an amount that depends on their number.
    """

    embedder: Embedder
    #: The distance for infinitely many pictures (`infinite`).
    infinite: bool = False
    once: bool = True

    def __call__(
        self, results: Sequence[Tensor], contents: Sequence[Tensor], styles: Sequence[Style]
    ) -> float:
        found, wanted = both(self.embedder, results, styles, once=self.once)
        few = min(len(found), len(wanted))
        if few < ENOUGH:
            warnings.warn(
                f"a Fréchet distance of {len(found)} results and {len(wanted)} styles: below {ENOUGH} of "
                "either, compare only sets of the same sizes",
                SmallSetWarning,
                stacklevel=2,
            )
        return infinite(found, wanted) if self.infinite else frechet(found, wanted)


@dataclass(frozen=True)
class KernelDistance:
    """Kernel distance of features of results and styles (KID, Bińkowski et al. 2018), without bias.

    The kernel is (x y / D + 1)^3. Where there are more than 1,000 pictures, the mean over `subsets` random
    subsets of 1,000.
    """

    embedder: Embedder
    subsets: int = 100

    def __call__(
        self, results: Sequence[Tensor], contents: Sequence[Tensor], styles: Sequence[Style]
    ) -> float:
        return kernel(*both(self.embedder, results, styles), subsets=self.subsets)


@dataclass(frozen=True)
class ArtFrechetDistance:
    """(1 + LPIPS) (1 + FID): content and style in one number (ArtFID, Wright & Ommer 2022); 1 is the best.

    LPIPS is between result and content, the mean over pairs. A product of two distances rewards whoever is
    good at either: read it beside both. With `short_side` every picture is resized first, as StyleID does;
    ArtFID's authors resize nothing.
    """

    lpips: LPIPS
    frechet: FrechetDistance
    short_side: int | None = None

    def __call__(
        self, results: Sequence[Tensor], contents: Sequence[Tensor], styles: Sequence[Style]
    ) -> float:
        pairs = zip(results, contents, styles, strict=True)
        distances = [self.lpips(self._sized(one), self._sized(two), style) for one, two, style in pairs]
        distance = dataclasses.replace(self.frechet, embedder=self._embedded)
        return artfid(sum(distances) / len(distances), distance(results, contents, styles))

    def _embedded(self, picture: Tensor) -> Tensor:
        return self.frechet.embedder(self._sized(picture))

    def _sized(self, picture: Tensor) -> Tensor:
        """The picture with the short side that is asked for, by Pillow's antialiased bilinear filter."""
        height, width = picture.shape[-2:]
        if self.short_side is None or min(height, width) == self.short_side:
            return picture
        short = min(height, width)
        size = [int(self.short_side * side / short) for side in (height, width)]
        return functional.interpolate(picture, size, mode="bilinear", align_corners=False, antialias=True)


def artfid(lpips: float, fid: float) -> float:
    """ArtFID of a mean LPIPS and an FID.

    >>> artfid(0.0, 0.0)
    1.0
    """
    return (1 + lpips) * (1 + fid)


def both(
    embedder: Embedder, results: Sequence[Tensor], styles: Sequence[Style], *, once: bool = True
) -> tuple[Tensor, Tensor]:
    """The features (N, D) of the results and (M, D) of the styles, each style once or as often as given."""
    paintings = [picture_style(style) for style in styles]
    single = {id(one): one for one in paintings}
    wanted = embedded(embedder, list(single.values()))
    if not once:
        place = {key: index for index, key in enumerate(single)}
        wanted = wanted[[place[id(one)] for one in paintings]]
    return embedded(embedder, results), wanted


@torch.inference_mode()
def embedded(embedder: Embedder, pictures: Sequence[Tensor]) -> Tensor:
    """The features (N, D) of pictures (1, 3, H, W), one by one, in float64."""
    return torch.cat([embedder(picture).double().cpu() for picture in pictures])


def frechet(one: Tensor, other: Tensor) -> float:
    """|m - n|^2 + tr(S + T - 2 (S T)^(1/2)) of features (N, D) and (M, D), with unbiased covariances.

    The trace of the root is the sum of the singular values of A B', where S = A'A and T = B'B. That needs no
    root of a matrix, which is what fails where there are fewer pictures than dimensions. Raises InputError
    for fewer than two of either.
    """
    if min(len(one), len(other)) < 2:
        raise InputError("a Fréchet distance needs at least two results and two different styles")
    (mean, first), (wanted, second) = (_centred(features.double()) for features in (one, other))
    spread = first.square().sum() + second.square().sum()
    shared = torch.linalg.svdvals(_short(first) @ _short(second).T).sum()
    return float((mean - wanted).square().sum() + spread - 2 * shared)


def infinite(one: Tensor, other: Tensor, *, smallest: int = 5000, points: int = 15, seed: int = 0) -> float:
    """The Fréchet distance for infinitely many of `one` (N, D), Chong & Forsyth 2020 (FID infinity).

    It is where the line through the distances of `points` random subsets meets 1 / N = 0. With at most
    `smallest` pictures there are no subsets, and it is the plain distance.
    """
    if len(one) <= smallest:
        return frechet(one, other)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(smallest, len(one), points).round().long()
    picks = [torch.randperm(len(one), generator=generator)[:size] for size in sizes.tolist()]
    found = torch.tensor([frechet(one[pick], other) for pick in picks], dtype=torch.float64)
    inverse = 1 / sizes.double()
    slope = ((inverse - inverse.mean()) * (found - found.mean())).sum() / (
        inverse - inverse.mean()
    ).square().sum()
    return float(found.mean() - slope * inverse.mean())


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (D,) and A (N, D), for which A'A is the covariance."""
    mean = features.mean(0)
    return mean, (features - mean) / (len(features) - 1) ** 0.5


def _short(factor: Tensor) -> Tensor:
    """R (at most D, D) with R'R = A'A."""
    return torch.linalg.qr(factor).R if len(factor) > factor.shape[1] else factor


def kernel(one: Tensor, other: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0) -> float:
    """The unbiased squared MMD of features (N, D) and (M, D) under the cubic kernel.

    Raises InputError for fewer than two of either.
    """
    if min(len(one), len(other)) < 2:
        raise InputError("a kernel distance needs at least two results and two different styles")
    if max(len(one), len(other)) <= size:
        return _mmd(one.double(), other.double())
    generator = torch.Generator().manual_seed(seed)
    picks = (
        [features[torch.randperm(len(features), generator=generator)[:size]] for features in (one, other)]
        for _ in range(subsets)
    )
    return sum(_mmd(a.double(), b.double()) for a, b in picks) / subsets


def _mmd(one: Tensor, other: Tensor) -> float:
    def cubic(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a: Tensor) -> Tensor:
        table = cubic(a, a)
        return (table.sum() - table.trace()) / (len(a) * (len(a) - 1))

    return float(within(one) + within(other) - 2 * cubic(one, other).mean())
