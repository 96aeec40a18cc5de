"""The matching of NNST: the styles at one size, and the distance of each position from its match.

`nnst.py` is the method, and runs a descent on `MatchObjective` at each size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from atelier import features, maths
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.images.tiles import Tile, coarser, tiles
from atelier.methods.base import Job
from atelier.methods.feedforward.nnst_d_level import MARGIN, TILE, Pooled
from atelier.methods.feedforward.nnst_d_style import shrunk, turned_alphas, turned_copies

#: The largest number of query-candidate products for an exhaustive search (one or two seconds on two cores):
#: for the first search, and for later ones, where most matches are near the previous ones anyway.
FULL_SEARCH, FULL_AGAIN = 1 << 31, 1 << 26
#: Variance of features below which they are flat; their rows have a length of about 1 per layer.
_FLAT = 1e-6
#: Luma (ITU-R BT.601).
_LIGHT = (0.299, 0.587, 0.114)


class MatchKnobs(Protocol):
    """The knobs of `nnst` that affect the matching."""

    @property
    def keep(self) -> float: ...
    @property
    def content_share(self) -> float: ...
    @property
    def content_layers(self) -> str: ...
    @property
    def light(self) -> float: ...
    @property
    def coarsest(self) -> int: ...
    @property
    def stroke_size(self) -> int: ...
    @property
    def turned(self) -> str: ...
    @property
    def rematch(self) -> int: ...
    @property
    def contrast(self) -> float: ...
    @property
    def dims(self) -> int: ...


def used_styles(job: Job) -> list[tuple[torch.Tensor, torch.Tensor | None, float]]:
    """The styles with a weight above 0, their alphas and their weights."""
    return [one for one in zip(job.styles, job.looks.seen, job.style_weights, strict=True) if one[2] > 0]


# the style


@dataclass(frozen=True)
class Side:
    """The styles at one size: the candidates, and their directions (M, D) from the mean `centre` (D,).

    `deviation` (D,) is the standard deviation of the features. The last column of the candidates' keys is
    their lightness.
    """

    candidates: maths.Candidates
    directions: torch.Tensor
    centre: torch.Tensor
    deviation: torch.Tensor


class Matcher:
    """The state shared by all sizes: the job, the encoder, and the weights of layers and styles.

    `gain` (D,) divides each layer by its mean length over the styles; `content_shares` (D,) is the photo's
    share in the targets; `bias` (K,) is the score bias of each style that makes its share of the canvas equal
    its weight.
    """

    def __init__(self, job: Job, knobs: MatchKnobs, columns: features.Hypercolumns) -> None:
        self.job, self.knobs, self.columns = job, knobs, columns
        self.styles = [(style, seen) for style, seen, _ in used_styles(job)]
        self.gain, self.bias = self._gain(), None
        self.content_shares = _content_shares(columns, knobs).to(self.gain)
        weights = [weight for _, _, weight in used_styles(job)]
        if len(weights) > 1 and job.regions is None:
            self.bias = self._shares(weights)

    def see(self, picture: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The features of a picture (1, 3, H, W) at the hypercolumns' taps."""
        found: Mapping[str, torch.Tensor] = self.columns.encoder(picture, self.columns.taps)
        return found

    def side(self, long_side: int) -> Side:
        """The style level for a content with that long side."""
        whole = min(max(self.job.content.shape[-2:]), self.knobs.stroke_size)
        ratio = min(long_side, whole) / whole
        maps, groups, light, masks = [], [], [], []
        with torch.no_grad():
            for group, (style, alpha) in enumerate(self.styles):
                small = turned_copies(shrunk(style, ratio), self.knobs.turned)
                for picture, seen in zip(small, turned_alphas(alpha, self.knobs.turned), strict=True):
                    columns = self.columns.join(self.see(picture))[0]
                    maps.append(columns * self.gain.to(columns.dtype)[:, None, None])
                    groups.append(group)
                    light.append(lightness(picture, seen).flatten())
                    masks.append(maths.mask_at(seen, (columns.shape[1], columns.shape[2])))
            return _side(maps, groups, torch.cat(light), self.knobs.dims, masks)

    def _gain(self) -> torch.Tensor:
        with torch.no_grad():
            lengths = [self.columns.norms(self.see(style), seen) for style, seen in self.styles]
            norms = torch.stack(lengths).mean(0)
        widths = torch.tensor(self.columns.widths, device=norms.device)
        return torch.repeat_interleave(1 / norms.clamp(min=1e-6), widths)

    def _shares(self, weights: Sequence[float]) -> torch.Tensor:
        height, width = self.job.content.shape[-2:]
        small = maths.sizes((height, width), smallest=self.knobs.coarsest)[0]
        canvas = MatchObjective(self, resize(self.job.content, small))
        queries = _directions(canvas.photo, canvas.visible).flatten(1).T
        if canvas.visible is not None:
            queries = queries[canvas.visible.flatten()]
        choices = canvas.side.candidates
        keys = [choices.of_group(one)[:, :-1] for one in range(len(weights))]  # without the lightness
        scores = [maths.nearest(queries, some)[1] for some in keys]
        return maths.balance(torch.stack(scores, 1), weights)


def _content_shares(columns: features.Hypercolumns, knobs: MatchKnobs) -> torch.Tensor:
    """The photo's share in the targets, (D,): the same for all layers, or growing to the deepest layer's.

    It grows with the square of the stage's number, from 0 at the first: shallow layers hold strokes and
    colours, deep ones what the photo shows.
    """
    stages = torch.tensor([columns.encoder.scale(tap).bit_length() for tap in columns.taps])
    if knobs.content_layers == "deep":
        depth = (stages - 1) / max(1, int(stages.max()) - 1)
        shares = knobs.content_share * depth.square()
    else:
        shares = torch.full(stages.shape, knobs.content_share)
    return torch.repeat_interleave(shares, torch.tensor(columns.widths))


def _side(
    maps: Sequence[torch.Tensor],
    groups: Sequence[int],
    light: torch.Tensor,
    dims: int,
    visible: Sequence[torch.Tensor | None],
) -> Side:
    """The style level from hypercolumn maps (D, h, w); hidden positions are ignored."""
    from atelier.losses.cosine import unit

    rows = torch.cat([one.permute(1, 2, 0).flatten(0, 1) for one in maps])
    shown = maths.joined_masks(maps, visible)
    counted = rows if shown is None else rows[shown]
    centre, deviation = _moments([counted])
    rows = unit(rows - centre.to(rows.dtype))
    choices = maths.candidates(maps, groups, dims=dims, visible=visible)
    choices = replace(choices, keys=torch.cat([choices.keys, light[:, None]], 1))
    return Side(choices, rows, centre, deviation)


def _moments(parts: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (D,) over several parts (N, D), float32.

    What half precision rounds off counts as deviation, so that rounding is not amplified.
    """
    pooled, eps = Pooled(), 0.0
    for part in parts:
        pooled.add(part.T[None, :, :, None])
        eps = torch.finfo(part.dtype).eps
    mean, variance = pooled.result()
    return mean, (variance.clamp(min=0) + (eps * mean).square() + _FLAT).sqrt()


def lightness(picture: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
    """The standardised lightness (h, w) of each cell of a picture (1, 3, H, W); 0 in a flat picture.

    The mean and standard deviation are those of the cells that are visible according to the alpha `seen`.
    """
    shade = (picture * picture.new_tensor(_LIGHT).view(1, 3, 1, 1)).sum(1, keepdim=True)
    pool = torch.nn.functional.avg_pool2d
    cells = pool(shade, features.CELL, ceil_mode=True, count_include_pad=False)[0, 0]
    visible = maths.mask_at(seen, (cells.shape[0], cells.shape[1]))
    rest = cells - (cells if visible is None else cells[visible]).mean()
    spread = (rest if visible is None else rest[visible]).square().mean().sqrt()
    return rest / spread.clamp(min=0.01)


def _directions(queries: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
    """Queries (P, h, w), centred by the mean of the visible ones and normalised to length 1."""
    if visible is None:
        mean = queries.mean((1, 2), keepdim=True)
    else:
        mean = queries[:, visible].mean(1)[:, None, None]
    return torch.nn.functional.normalize(queries - mean, dim=0)


# the objective


class MatchObjective:
    """The objective at one size: mean distance of each position from its match (eq. 3).

    Matches are searched again every `rematch` evaluations, using the current picture. Large pictures are
    encoded tile by tile, and each tile again in the backward pass, so that memory holds one tile at a time.
    """

    def __init__(self, matcher: Matcher, content: torch.Tensor) -> None:
        from atelier.losses.contrast import ContrastLoss

        self.matcher, self.content = matcher, content
        strength = matcher.job.strength
        self.keep, self.own = 1 - strength * (1 - matcher.knobs.keep), (1 - strength) ** 2
        self.share = matcher.knobs.content_share
        self.cells = -(-content.shape[-2] // features.CELL), -(-content.shape[-1] // features.CELL)
        self.visible = maths.mask_at(matcher.job.content_seen, self.cells)
        self.tiles = list(tiles(*content.shape[-2:], core=TILE, margin=MARGIN, step=16))
        self.side = matcher.side(max(content.shape[-2:]))
        self.basis = self.side.candidates.basis * matcher.gain
        self.photo = self._project(content)
        self.table, self.evaluations = self.side.directions, 0
        self.moments = self._own_moments() if self.share else None
        self.contrast = ContrastLoss(content)
        self.chosen: torch.Tensor | None = None

    def __call__(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.evaluations % self.matcher.knobs.rematch == 0:
            self.choose(picture.detach())
        self.evaluations += 1
        sums = [self._kept_small(picture, tile) for tile in self.tiles]
        terms = {"match": torch.stack(sums).sum() / (self.cells[0] * self.cells[1])}
        if self.matcher.knobs.contrast:
            terms["contrast"] = self.matcher.knobs.contrast * self.contrast(picture)
        return terms

    def choose(self, picture: torch.Tensor) -> torch.Tensor:
        """The candidate for each position, (h, w), from the photo and the picture so far."""
        queries = self.photo
        if self.keep < 1:
            queries = self.keep * queries + (1 - self.keep) * self._project(picture)
        self.chosen = self._search(_directions(queries, self.visible), picture)
        if self.own or self.share:
            self._mix()
        return self.chosen

    def _search(self, queries: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """The candidate for each query (P, h, w): among all, near the previous match, or at half size."""
        choices, allowed, bias = self.side.candidates, self._allowed(), self._bias()
        light = lightness(self.content, self.matcher.job.content_seen)
        queries = torch.cat([queries, 2 * self.matcher.knobs.light * light[None]])
        most = FULL_SEARCH if self.chosen is None else FULL_AGAIN
        if self.cells[0] * self.cells[1] * len(choices.keys) <= most:
            flat = None if allowed is None else allowed.flatten()
            return maths.confined(queries.flatten(1).T, choices, flat, bias).view(self.cells)
        before, grids = self.chosen, choices.grids
        if before is None:
            height, width = self.content.shape[-2:]
            half = ((height + 1) // 2, (width + 1) // 2)
            coarse = MatchObjective(self.matcher, resize(self.content, half))
            before, grids = coarse.choose(resize(picture, half)), coarse.side.candidates.grids
        return maths.coherent(queries, choices, before, grids, allowed=allowed, bias=bias)

    def _bias(self) -> torch.Tensor | None:
        """The score bias of each candidate (M,): style share and lightness; -inf if it is hidden."""
        choices, bias = self.side.candidates, self.matcher.bias
        light = -self.matcher.knobs.light * choices.keys[:, -1].square()
        whole = light if bias is None else light + bias[choices.group_of().to(bias.device)]
        return choices.with_hidden(whole)

    def _allowed(self) -> torch.Tensor | None:
        """The style with the largest share at each position."""
        regions = self.matcher.job.regions
        return None if regions is None else resize(regions, self.cells)[:, 0].argmax(0)

    def _project(self, picture: torch.Tensor) -> torch.Tensor:
        """Queries (P, h, w) projected on the candidates' directions."""
        found = torch.empty((len(self.basis), *self.cells), device=picture.device)
        with torch.no_grad():
            for tile in self.tiles:
                seen = self.matcher.see(picture[(..., *tile.outer)])
                part = self.matcher.columns.project(seen, self.basis)[0]
                core, inner = (coarser(one, features.CELL) for one in (tile.core, tile.inner))
                found[(..., *core)] = part[(..., *inner)]
        return found

    def _own_moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation (D,) of the photo's features, over its visible positions."""
        gain, visible = self.matcher.gain, self.visible
        if visible is not None and not bool(visible.any()):
            visible = None

        def parts() -> Iterator[torch.Tensor]:
            for tile in self.tiles:
                rows = self._rows(self.content, tile)
                if visible is not None:
                    rows = rows[visible[coarser(tile.core, features.CELL)].flatten()]
                yield rows * gain.to(rows.dtype)

        with torch.no_grad():
            return _moments(parts())

    def _mix(self) -> None:
        """Compute the target of each position: its match, mixed with the photo's own direction.

        `content_shares` mix in the photo's feature with the style's moments (AdaIN, eq. 8); a strength below
        1 mixes in the feature as it is.
        """
        from atelier.losses.cosine import centred, unit

        assert self.chosen is not None
        with torch.no_grad():
            mixed = self.side.directions[self.chosen.flatten()]
            places = torch.arange(len(mixed), device=mixed.device).view(self.cells)
            for tile in self.tiles:
                part = places[coarser(tile.core, features.CELL)].flatten()
                target, rows = mixed[part], self._rows(self.content, tile)
                if self.moments is not None:
                    shares = self.matcher.content_shares.to(target.dtype)
                    target = unit(torch.lerp(target, self._moved(rows, *self.moments), shares))
                if self.own:
                    own = unit(centred(rows, self.matcher.gain, self.side.centre))
                    target = unit(torch.lerp(target, own, self.own))
                mixed[part] = target
        self.table, self.index = mixed, places

    def _moved(self, rows: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        """The directions of the photo's features (N, D) when they have the style's moments."""
        from atelier.losses.cosine import centred, unit

        own = centred(rows, self.matcher.gain, mean)
        return unit(own * (self.side.deviation / deviation).to(own.dtype))

    def _kept_small(self, picture: torch.Tensor, tile: Tile) -> torch.Tensor:
        """The sum of a tile's distances. With several tiles, features are recomputed in the backward pass."""
        if len(self.tiles) == 1:
            return self._distances(picture, tile)
        from torch.utils.checkpoint import checkpoint

        total: torch.Tensor = checkpoint(self._distances, picture, tile, use_reentrant=False)
        return total

    def _distances(self, picture: torch.Tensor, tile: Tile) -> torch.Tensor:
        from atelier.losses.cosine import chosen_distances

        assert self.chosen is not None
        index = (self.index if self.own or self.share else self.chosen)[
            coarser(tile.core, features.CELL)
        ].flatten()
        gain, centre = self.matcher.gain, self.side.centre
        return chosen_distances(self._rows(picture, tile), self.table, index, gain=gain, centre=centre).sum()

    def _rows(self, picture: torch.Tensor, tile: Tile) -> torch.Tensor:
        """The hypercolumns (N, D) of a tile's core."""
        joined = self.matcher.columns.join(self.matcher.see(picture[(..., *tile.outer)]))
        inner = joined[(..., *coarser(tile.inner, features.CELL))]
        return inner.permute(0, 2, 3, 1).reshape(-1, inner.shape[1])
