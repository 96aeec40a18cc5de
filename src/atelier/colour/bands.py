"""Detail statistics: give the bands of a picture's Laplacian pyramid the covariance of a style's bands.

The covariance of a band holds its contrast at one scale of detail, in each colour direction. A picture whose
bands have a style's covariances has its sharpness, its grain and the contrast of its strokes. Heeger & Bergen
("Pyramid-based texture analysis/synthesis", 1995) match the histograms of such bands; here it is their second
moments, by the map that changes the band least. What the bands leave, the large shapes, is set by
`colour.lend_colours` before; here it is corrected by little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from atelier import maths
from atelier.colour.moments import transport
from atelier.maths.running import held

#: Detail bands: about 1, 2, 4 and 8 pixels.
LEVELS = 4
#: Pixels of a strip, and the rows that it shares with the next one, which cover the coarsest band's reach.
_STRIP, _MARGIN = 1 << 21, 64
#: Standard deviation below which a band is noise; it is added to the picture's, so noise is not amplified.
_NOISE = 1 / 255
#: Largest factor by which detail is amplified in the first round and in each later one.
_GAIN, _NEXT_GAIN = 3.0, 1.2
#: The rest is set before, by `lend_colours`: largest factor here, and its noise (five shades of 255).
_REST, _REST_NOISE = 1.2, 5 / 255
#: Side of the squares in which detail is compared with a photo's, in pixels: the step of the coarsest band.
_SQUARE = 1 << LEVELS - 1
#: Added to relative detail before it is compared, so that flat places of both are alike.
_ALIKE = 0.15
_LUMA = (0.299, 0.587, 0.114)


def lend_bands(
    picture: Tensor,
    wanted: Sequence[Sequence[Tensor]],
    shares: Sequence[float] | Tensor,
    *,
    rounds: int = 2,
    guide: tuple[Tensor, float] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """A picture (1, 3, H, W), 0..1, whose detail bands have the covariances of its styles' bands.

    `wanted` are the `covariances` of each style; `shares` are the weights of the styles, which sum to 1, or
    their shares of every pixel (K, 1, H, W). Detail in a colour direction in which a style has none is
    removed; in two rounds no detail is amplified much more than three times. The mean of all colours stays.
    Bands of a pyramid overlap, so each of the `rounds` brings them nearer to what is wanted.

    With a `guide`, a photo (1, 3, H, W) and a share 0..1, detail first recedes where the photo has less of it
    than the picture, each relative to its own mean: by the share-th power of their ratio. `out`, which may
    be the picture itself, is where the result goes.
    """
    made = torch.empty_like(picture) if out is None else out
    for done in range(rounds):
        _lend_once(picture, wanted, shares, _NEXT_GAIN if done else _GAIN, None if done else guide, made)
        picture = made
    return made.clamp_(0, 1)


def _lend_once(
    picture: Tensor,
    wanted: Sequence[Sequence[Tensor]],
    shares: Sequence[float] | Tensor,
    gain: float,
    guide: tuple[Tensor, float] | None,
    out: Tensor,
) -> None:
    """One round, in which detail is amplified at most `gain` times."""
    seen = shares.sum(0)[None] if isinstance(shares, Tensor) else None
    strips = _Strips(picture)
    if guide is not None:
        strips.recede(_Calm.of(strips, *guide, seen))
    changes = []
    for index, (style, share) in enumerate(zip(wanted, shares, strict=True)):
        where = share[None] if isinstance(share, Tensor) else None
        if where is None or bool(where.any()):
            mean, own = strips.statistics(where)
            mean, own = held("rest", mean), [held("band", one) for one in own]
            limits = [(0.0, gain, _NOISE)] * LEVELS + [(1 / _REST, _REST, _REST_NOISE)]
            maps = [_change(a, b, *limit) for a, b, limit in zip(own, style, limits, strict=True)]
            changes.append((index, mean, maps))
    for strip, bands in strips:
        moved = list(bands)
        for index, mean, maps in changes:
            for level, (band, change) in enumerate(zip(bands, maps, strict=True)):
                centred = band - mean.to(band).view(1, 3, 1, 1) if level == LEVELS else band
                extra = (change.to(band) @ centred.flatten(2)).view_as(band)
                weight = shares[index]
                if isinstance(weight, Tensor):
                    extra *= _weights(weight[None][..., strip.outer, :], band, level)
                    weight = 1.0
                moved[level] = torch.add(moved[level], extra, alpha=weight)
        whole = maths.merge(moved)
        out[..., strip.core, :] = whole[..., strip.inner, : picture.shape[-1]]


def covariances(picture: Tensor, weight: Tensor | None = None) -> list[Tensor]:
    """The covariances (3, 3), float64, of the bands of (1, 3, H, W): details, fine to coarse, and the rest.

    `weight` (1, 1, H, W), 0..1, says how much each pixel counts; if it is 0 everywhere, all count alike.
    """
    return _Strips(picture).statistics(weight)[1]


@dataclass(frozen=True)
class _Strip:
    """Rows of a picture: the `core`, and the `outer` rows that their pyramid needs."""

    core: slice
    outer: slice

    @property
    def inner(self) -> slice:
        """The core within the outer rows."""
        return slice(self.core.start - self.outer.start, self.core.stop - self.outer.start)


class _Strips:
    """The pyramids of a picture, strip by strip, so that bands of a large one need little memory.

    A strip that has been visited may be overwritten: the rows that the next one needs are kept.
    """

    def __init__(self, picture: Tensor) -> None:
        self.picture = picture
        self.calm: _Calm | None = None
        self.height, width = picture.shape[-2:]
        side = 1 << LEVELS
        self.rows = max(side, _STRIP // width // side * side)
        self.kept = split_bands(picture) if self.rows >= self.height else None

    def recede(self, calm: _Calm) -> None:
        """From now on the bands are those of the calmed picture."""
        self.calm = calm
        if self.kept is not None:
            self.kept = calm.calmed(self.kept, slice(0, self.height))

    def __iter__(self) -> Iterator[tuple[_Strip, list[Tensor]]]:
        if self.kept is not None:
            yield _Strip(slice(0, self.height), slice(0, self.height)), self.kept
            return
        above = self.picture[..., :0, :]
        for top in range(0, self.height, self.rows):
            bottom = min(top + self.rows, self.height)
            strip = _Strip(
                slice(top, bottom), slice(max(0, top - _MARGIN), min(self.height, bottom + _MARGIN))
            )
            window = torch.cat([above, self.picture[..., top : strip.outer.stop, :]], 2)
            above = window[..., max(0, strip.inner.stop - _MARGIN) : strip.inner.stop, :].clone()
            bands = split_bands(window)
            yield strip, bands if self.calm is None else self.calm.calmed(bands, strip.outer)

    def statistics(self, weight: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The mean of the rest (3,), and the covariances of the bands; details have a mean of 0."""
        if weight is not None and not bool(weight.any()):
            weight = None
        sums = torch.zeros((LEVELS + 1, 3, 4), dtype=torch.float64, device=_home(self.picture))
        counts = torch.zeros(LEVELS + 1, dtype=torch.float64, device=sums.device)
        for strip, bands in self:
            for level, band in enumerate(bands):
                step = 1 << level
                rows = slice(strip.inner.start // step, -(-strip.inner.stop // step))
                band = band[..., rows, : -(-self.picture.shape[-1] // step)]
                values = band.flatten(2)[0]
                weighted: Tensor = values
                count: Tensor | int = values.shape[1]
                if weight is not None:
                    share = _weights(weight[..., strip.core, :], band, level).flatten()
                    weighted, count = values * share, share.sum().to(sums)
                sums[level, :, :3] += (weighted @ values.T).to(sums)
                sums[level, :, 3] += weighted.sum(1).to(sums)
                counts[level] += count
        sums /= counts.clamp(min=1e-9)[:, None, None]
        mean, moments = sums[-1, :, 3], list(sums[..., :3])
        return mean, [*moments[:-1], moments[-1] - torch.outer(mean, mean)]


@dataclass(frozen=True)
class _Calm:
    """How detail recedes where a photo is flat.

    `means` (LEVELS, 2) are the root mean squares of the luma of the picture's bands and of the photo's.
    """

    photo: _Strips
    share: float
    means: Tensor

    @classmethod
    def of(cls, picture: _Strips, photo: Tensor, share: float, seen: Tensor | None) -> _Calm:
        luma, shown = torch.tensor(_LUMA, dtype=torch.float64), _Strips(photo)
        both = zip(*(one.statistics(seen)[1] for one in (picture, shown)), strict=True)
        squares = torch.tensor([[float(luma @ one.cpu() @ luma) for one in pair] for pair in both])
        means = squares[:LEVELS].sqrt().clamp(min=_NOISE / 4)
        return cls(shown, share, held("calm", means).to(photo))

    def calmed(self, bands: list[Tensor], rows: slice) -> list[Tensor]:
        """The bands of these rows of the picture."""
        shown, found = self.photo.kept or split_bands(self.photo.picture[..., rows, :]), []
        for level, (mine, its) in enumerate(self.means):
            own, other = _local(bands[level], level) / mine, _local(shown[level], level) / its
            gain = ((other + _ALIKE) / (own + _ALIKE)).pow(self.share).clamp(max=1)
            smooth = F.interpolate(gain, size=bands[level].shape[-2:], mode="bilinear")
            found.append(bands[level] * smooth)
        return [*found, bands[-1]]


def _local(band: Tensor, level: int) -> Tensor:
    """Root mean square (1, 1, h, w) of a band's luma over 3 x 3 squares with sides of `_SQUARE` pixels."""
    luma = torch.einsum("j,bjhw->bhw", band.new_tensor(_LUMA), band)[:, None]
    squares = F.avg_pool2d(luma.square(), _SQUARE >> level)
    return F.avg_pool2d(squares, 3, 1, 1, count_include_pad=False).sqrt()


def _change(own: Tensor, wanted: Tensor, least: float, most: float, noise: float) -> Tensor:
    """The map (3, 3) from a band to its change; each direction is scaled by `least` to `most`."""
    one = torch.eye(3).to(own)
    values, vectors = torch.linalg.eigh(transport(own + noise**2 * one, wanted))
    change: Tensor = (vectors * values.clamp(least, most)) @ vectors.mT - one
    return change


def split_bands(window: Tensor) -> list[Tensor]:
    """The pyramid of a window (1, 3, H, W), extended to sides that halve evenly, so that windows agree."""
    height, width = window.shape[-2:]
    side = 1 << LEVELS
    more = (0, -width % side, 0, -height % side)
    return maths.split(F.pad(window.float(), more, mode="replicate"), LEVELS + 1)


def _weights(weight: Tensor, band: Tensor, level: int) -> Tensor:
    """Weights (1, 1, H, W) of a window at the size of one of its bands."""
    if level:
        weight = F.avg_pool2d(weight.float(), 1 << level, ceil_mode=True, count_include_pad=False)
    more = (0, band.shape[-1] - weight.shape[-1], 0, band.shape[-2] - weight.shape[-2])
    return F.pad(weight, more, mode="replicate").to(band) if any(more) else weight.to(band)


def _home(picture: Tensor) -> torch.device:
    """Where float64 is available: Metal has none."""
    return torch.device("cpu") if picture.device.type == "mps" else picture.device
