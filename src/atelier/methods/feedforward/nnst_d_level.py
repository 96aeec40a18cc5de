"""One level of NNST-D: match each position of the photo at one size, and decode the matches tile by tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from atelier import features, maths
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.images.tiles import Tile, coarser, tiles
from atelier.methods.feedforward.nnst_d_colour import ToneColumns, cell_tones, extended, tone_columns
from atelier.methods.feedforward.nnst_d_losses import NORM_EPS

if TYPE_CHECKING:
    from atelier.methods.base import Job
    from atelier.methods.feedforward.nnst_d_detail import Detail, TapMoments
    from atelier.methods.feedforward.nnst_d_moving import Moving
    from atelier.methods.feedforward.nnst_d_style import Networks, StyleLevel, Styles

#: Tile core and tile overlap (the receptive fields of the encoder and decoder, and what neighbours learn
#: from each other), in pixels.
TILE, MARGIN = 1024, 112
#: Above this long side, tiles are smaller: the whole picture takes much of the memory already. In float32,
#: which takes twice the memory of half precision, all tiles are.
_LARGE, _SMALLER_TILE = 4096, 512
#: Up to this many cells, features are kept in memory; above, they are recomputed when needed.
_KEPT_CELLS = 1 << 18
#: Lengths of centred queries below this part of the mean's length are not scaled up to 1.
_FLAT = 0.1
#: Up to this many query-candidate pairs, the search is exhaustive.
_FULL_SEARCH = 1 << 25
#: How often neighbours compare their choices.
_ROUNDS = 2


@dataclass(frozen=True)
class Chosen:
    """The candidates matched at a level, (h, w), and the grids that they index."""

    index: torch.Tensor
    grids: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Moments:
    """Of the whole content: mean (P, 1, 1) and root mean square length () of the queries; mean and variance
    (G,) of the guidance; mean and variance (C,) of finer features that a decoder reads, by tap.
    """

    centre: torch.Tensor
    length: torch.Tensor
    shift: torch.Tensor
    spread: torch.Tensor
    taps: TapMoments

    def held(self) -> Moments:
        """Over the frames of a clip."""
        hold = maths.held
        taps = {tap: (hold("mean", mean), hold("variance", some)) for tap, (mean, some) in self.taps.items()}
        guide = (hold("mean", self.shift), hold("variance", self.spread))
        return Moments(hold("mean", self.centre), hold("length", self.length), *guide, taps)


@dataclass(frozen=True)
class View:
    """The features of a tile: queries (P, h, w), guidance (1, G, h, w), own values (V, h, w), and the
    finer ones that a decoder reads, by tap.
    """

    queries: torch.Tensor
    guidance: torch.Tensor
    own: torch.Tensor | None
    taps: Mapping[str, torch.Tensor]


class Level:
    """One size: match each position of the content and decode the matches, tile by tile.

    The means that centre the queries and the moments that normalise the guidance are those of the whole
    content, so that tiling does not change the picture. `keep` is the content's share in the query. Below a
    `strength` of 1 the content's own values are mixed in, and the detail that the decoder loses is added back
    in proportion. Positions hidden by the content's alpha `seen` are excluded from means and moments.
    """

    def __init__(
        self,
        networks: Networks,
        content: torch.Tensor,
        style: StyleLevel,
        strength: float = 1.0,
        seen: torch.Tensor | None = None,
    ) -> None:
        self.networks, self.content, self.style = networks, content, style
        self.keep, self.strength = 1.0, strength
        self.basis = networks.projection(style.candidates.basis)
        self.cells = -(-content.shape[-2] // features.CELL), -(-content.shape[-1] // features.CELL)
        roomy = max(content.shape[-2:]) <= _LARGE and networks.dtype != torch.float32
        core = TILE if roomy else min(TILE, _SMALLER_TILE)
        self.tiles = list(tiles(*content.shape[-2:], core=core, margin=MARGIN, step=16))
        self.seen = seen
        self._masks: dict[int, torch.Tensor | None] = {}
        self.visible = self.mask(features.CELL)
        self.regions: torch.Tensor | None = None
        self.allowed: torch.Tensor | None = None
        self.bias = style.candidates.with_hidden(None)
        self.choices = style.candidates
        self.detail: Detail | None = None
        self.wanted: ToneColumns | None = None
        self.moving: Moving | None = None
        self.coherence = 0.0

    def mask(self, stride: int) -> torch.Tensor | None:
        """The visible positions of a grid with this stride in pixels; None if all are."""
        if stride not in self._masks:
            height, width = self.content.shape[-2:]
            self._masks[stride] = maths.mask_at(self.seen, (-(-height // stride), -(-width // stride)))
        return self._masks[stride]

    def confine(self, regions: torch.Tensor | None, bias: torch.Tensor | None) -> None:
        """Assign each position to the style with the largest share (K, 1, H, W); set the score bias."""
        if bias is not None:
            choices = self.style.candidates
            self.bias = choices.with_hidden(bias[choices.group_of().to(bias.device)])
        if regions is not None:
            self.regions = resize(regions, self.cells)[:, 0]
            self.allowed = self.regions.argmax(0)

    def compare_tones(self, weight: float, flatness: float) -> None:
        """Compare colours and contrasts as well (`nnst_d_colour`). Regions must be set first."""
        if weight:
            own, choices = cell_tones(self.content, features.CELL), self.style.candidates
            where = [self._counted(group) for group in range(max(choices.groups) + 1)]
            columns = tone_columns(own, choices, self.style.tones, weight, flatness, where)
            self.choices, self.wanted = extended(choices, columns), columns

    def _counted(self, group: int) -> torch.Tensor | None:
        """How much each cell (h, w) counts for the colours that a style is to meet."""
        shown = None if self.visible is None else self.visible.float()
        if self.regions is None:
            return shown
        return self.regions[group] if shown is None else self.regions[group] * shown

    def compared(self, queries: torch.Tensor, length: torch.Tensor, tile: Tile) -> torch.Tensor:
        """The centred queries (P, h, w) of a tile in the form that is compared with the keys of `choices`."""
        if self.wanted is None:
            return torch.nn.functional.normalize(queries, dim=0)
        return torch.cat([queries / length, self.wanted.queries(coarser(tile.outer, features.CELL))])

    def paint(self, picture: torch.Tensor, before: Chosen | None) -> tuple[torch.Tensor, Chosen]:
        """The level's picture (1, 3, H, W), 0..1, and the matches.

        `picture` is the previous level's result at this size; it is not used if `keep` is 1.
        """
        views = Views(self, picture)
        moments = views.moments()
        painted = torch.empty_like(self.content)
        index = torch.empty(self.cells, dtype=torch.long, device=painted.device)
        for position, tile in enumerate(self.tiles):
            view = views[position]
            queries = self.compared(view.queries - moments.centre, moments.length, tile)
            found = self._search(queries, tile, before)
            if self.moving is not None:
                here = coarser(tile.outer, features.CELL)
                found = self.moving.kept(found, queries, self.choices.keys, self.bias, here)
            window = self.content[(..., *tile.outer)]
            view = self.completed(view, window)
            made = self._decode(found, view, moments, window)
            if self.detail is not None:
                made = self.detail.added(made, window, view.taps, moments.taps, self.strength)
            index[coarser(tile.core, features.CELL)] = found[coarser(tile.inner, features.CELL)]
            painted[(..., *tile.core)] = made[(..., *tile.inner)].clamp(0, 1)
            del view  # before the next one is made
        return painted, Chosen(index, self.style.candidates.grids)

    def look(self, tile: Tile, picture: torch.Tensor) -> View:
        """The features of one tile of the content and of the picture so far."""
        networks, columns = self.networks, self.networks.columns
        found = networks.see(self.content[(..., *tile.outer)])
        if self.strength < 1:
            queries, own = networks.split(found, self.style.candidates.basis)
        else:
            queries, own = columns.project(found, self.basis)[0], None
        if self.keep < 1:
            painted = columns.project(networks.see(picture[(..., *tile.outer)]), self.basis)[0]
            queries = torch.lerp(painted, queries, self.keep)
        taps = {tap: found[tap] for tap in self.taps}
        return View(queries, columns.join(found, taps=networks.decoder.guides), own, taps)

    def completed(self, view: View, window: torch.Tensor) -> View:
        """The view of a window (1, 3, H, W) with the features that were not kept."""
        if missing := [tap for tap in self.taps if tap not in view.taps]:
            found = self.networks.columns.encoder(window, missing)
            return replace(view, taps={**view.taps, **found})
        return view

    @property
    def taps(self) -> Sequence[str]:
        """Where the decoders read features finer than the cells."""
        detail = () if self.detail is None else self.detail.taps
        return tuple(dict.fromkeys([*self.networks.decoder.fine_guides, *detail]))

    def _search(self, queries: torch.Tensor, tile: Tile, before: Chosen | None) -> torch.Tensor:
        """The candidate for each query (P, h, w) of a tile, among all or near the matches in `before`."""
        choices, outer = self.choices, coarser(tile.outer, features.CELL)
        allowed = None if self.allowed is None else self.allowed[outer]
        if before is None or self.cells[0] * self.cells[1] * len(choices.keys) <= _FULL_SEARCH:
            flat = queries.flatten(1).T
            index = maths.confined(flat, choices, None if allowed is None else allowed.flatten(), self.bias)
            found = index.view(queries.shape[1:])
        else:
            found = maths.coherent(
                *(queries, choices, before.index, before.grids),
                allowed=allowed,
                bias=self.bias,
                origin=(outer[0].start, outer[1].start),
                whole=self.cells,
            )
        if not self.coherence:
            return found
        return maths.pieces(
            *(found, queries, choices, self.coherence),
            rounds=_ROUNDS,
            allowed=allowed,
            bias=self.bias,
            origin=(outer[0].start, outer[1].start),
        )

    def _decode(
        self, found: torch.Tensor, view: View, moments: Moments, content: torch.Tensor
    ) -> torch.Tensor:
        """The picture of one tile, (1, 3, H, W) float32, decoded from the matched candidates (h, w)."""
        decoder, (height, width) = self.networks.decoder, content.shape[-2:]
        guide = _normal(view.guidance, moments.shift, moments.spread)
        fine = [_normal(view.taps[tap], *moments.taps[tap]) for tap in decoder.fine_guides]
        values = torch.nn.functional.embedding(found, self.style.values).permute(2, 0, 1)[None]
        if view.own is None:
            made: torch.Tensor = decoder(values, guide, fine)[..., :height, :width].float()
            return made
        mine, weak = view.own[None], 1 - self.strength
        painted, copied = (
            decoder(some, guide, fine)[..., :height, :width].float()
            for some in (torch.lerp(values, mine, weak**2), mine)
        )
        restored: torch.Tensor = painted + weak * (content - copied)
        return restored


class Views:
    """The features of each tile of a level, kept in memory if they are small."""

    def __init__(self, level: Level, picture: torch.Tensor) -> None:
        self.level, self.picture = level, picture
        self.small = level.cells[0] * level.cells[1] <= _KEPT_CELLS
        self.kept: dict[int, View] = {}

    def __getitem__(self, position: int) -> View:
        view = self.kept.pop(position, None)
        return self.level.look(self.level.tiles[position], self.picture) if view is None else view

    def moments(self) -> Moments:
        """Over the visible part of the whole content."""
        level = self.level
        strides = level.networks.strides(level.taps)
        queries, guidance, taps = Pooled(), Pooled(), {tap: Pooled() for tap in strides}
        for position, tile in enumerate(level.tiles):
            view = self[position]
            if self.small:
                self.kept[position] = self._trimmed(view, strides)
            queries.add(self._visible(view.queries[None].float(), tile, features.CELL))
            guidance.add(self._visible(view.guidance, tile, features.CELL))
            for tap, pooled in taps.items():
                pooled.add(self._visible(view.taps[tap], tile, strides[tap]))
            del view  # before the next one is made
        centre, spread = queries.result()
        # The features of a flat photo vary by little more than rounding: that must not decide.
        length = torch.maximum(spread.clamp(min=0).sum().sqrt(), _FLAT * centre.norm()).clamp(min=1e-6)
        found = {tap: pooled.result() for tap, pooled in taps.items()}
        return Moments(centre[:, None, None], length, *guidance.result(), found).held()

    def _trimmed(self, view: View, strides: Mapping[str, int]) -> View:
        """The view to keep: one of several without maps finer than a cell, the largest ones."""
        if len(self.level.tiles) == 1:
            return view
        return replace(
            view, taps={tap: maps for tap, maps in view.taps.items() if strides[tap] >= features.CELL}
        )

    def _visible(self, maps: torch.Tensor, tile: Tile, stride: int) -> torch.Tensor:
        """The visible positions of a tile's core, (1, C, N, 1), from maps (1, C, h, w) of the whole tile."""
        core = maps[(..., *coarser(tile.inner, stride))]
        mask = self.level.mask(stride)
        if mask is None:
            return core
        return core[:, :, mask[coarser(tile.core, stride)]][..., None]


class Pooled:
    """Mean and variance of the channels over several parts of a picture."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.means: list[torch.Tensor] = []
        self.variances: list[torch.Tensor] = []

    def add(self, maps: torch.Tensor) -> None:
        """Count a part (1, C, h, w)."""
        if maps.shape[-2] * maps.shape[-1] == 0:
            return
        self.counts.append(maps.shape[-2] * maps.shape[-1])
        mean, variance = _mean_and_variance(maps)
        self.means.append(mean)
        self.variances.append(variance)

    def result(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of everything that was added, both (C,)."""
        means, variances = torch.stack(self.means), torch.stack(self.variances)
        share = means.new_tensor(self.counts)[:, None] / sum(self.counts)
        mean = (means * share).sum(0)
        return mean, ((variances + (means - mean).square()) * share).sum(0)


def _normal(maps: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Maps (1, C, H, W) with mean 0 and deviation 1, given their mean and variance (C,)."""
    one = torch.ones_like(mean)
    return torch.nn.functional.batch_norm(maps, mean, variance, one, 0 * one, eps=NORM_EPS)


def _mean_and_variance(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Per channel of (1, C, H, W), both (C,) float32; avoids a float32 copy, slower than the sums."""
    one = torch.ones(maps.shape[1], device=maps.device)
    # With float32 weights, batch norm accumulates in float32 as well.
    _, mean, inverse = torch.native_batch_norm(maps, one, 0 * one, None, None, True, 0.0, NORM_EPS)
    return mean, inverse.pow(-2) - NORM_EPS


def shares(
    networks: Networks, job: Job, styles: Styles, size: tuple[int, int], tone: float, flatness: float
) -> torch.Tensor | None:
    """The score bias of each style, (K,), that makes it cover its weight's share of the canvas."""
    weights = [weight for weight in job.style_weights if weight]
    if len(weights) == 1 or job.regions is not None:
        return None
    seen = job.content_seen
    level = Level(networks, resize(job.content, size), styles.at(max(size)), seen=seen)
    level.compare_tones(tone, flatness)
    views = Views(level, job.content)
    moments = views.moments()
    queries = level.compared(views[0].queries - moments.centre, moments.length, level.tiles[0]).flatten(1)
    if level.visible is not None:
        queries = queries[:, level.visible.flatten()]
    scores = [maths.nearest(queries.T, level.choices.of_group(one))[1] for one in range(len(weights))]
    return maths.balance(torch.stack(scores, 1), weights)
