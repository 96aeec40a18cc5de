"""NNST-D: replace the photo's features with their nearest neighbours in the painting, and decode them.

The content's hypercolumns are replaced with their nearest neighbours among the style's, and a small network
decodes the result into a picture, coarse to fine; each level's picture joins the query of the next level
(Kolkin et al. 2022, the decoding variant; feature swapping is from Chen & Schmidt 2016).

The authors did not publish this variant's network, so this one is our own. It differs where that preserves
more of the photo or saves time: half of each query is the photo itself; the decoder also receives the photo's
normalised features; the search uses the principal directions of the style's features, and at fine levels only
the neighbourhood of the coarser level's matches. Above `stroke_size` the style is not enlarged further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from atelier import features, maths
from atelier import networks as decoders
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.images.tiles import Tile, coarser, tiles
from atelier.methods import base
from atelier.methods.base import Batch, Context, Job, Method, Paper, Result
from atelier.methods.feedforward.adain import Adain
from atelier.methods.feedforward.nnst_d_colour import cell_colours, colour_columns, extended
from atelier.methods.feedforward.nnst_d_detail import Detail, TapMoments
from atelier.methods.feedforward.nnst_d_losses import NORM_EPS, DecoderLosses
from atelier.methods.feedforward.nnst_d_style import Networks, StyleLevel, Styles
from atelier.methods.prepared import style_job
from atelier.methods.visible import lend_visible_bands, lend_visible_colours
from atelier.store.models import kept
from atelier.store.records import Record, register
from atelier.store.weights import fingerprint, load

register(
    Record(
        name="nnst_d.atelier",
        file="nnst_d.safetensors",
        licence="Apache-2.0; its training pictures are for research",
        paper="Kolkin et al. 2022, Neural Neighbor Style Transfer, arXiv:2203.13215",
        bundled="nnst_d.safetensors",
        note="Comes with the package; trained with `atelier train nnst-d` on the bundled encoder.",
    )
)

#: Tile core and tile overlap (the receptive fields of the encoder and decoder), in pixels.
TILE, MARGIN = 1024, 96
#: Up to this many cells, features are kept in memory; above, they are recomputed when needed.
_KEPT_CELLS = 1 << 18
#: Up to this many query-candidate pairs, the search is exhaustive.
_FULL_SEARCH = 1 << 25


class NNSTD(Method):
    """Replace each of the photo's features with the painting's most similar feature, and decode them."""

    name = "nnst_d"
    paper = Paper(
        "Kolkin, Kucera, Paris, Sykora, Shechtman & Shakhnarovich",
        2022,
        "Neural Neighbor Style Transfer",
        "https://arxiv.org/abs/2203.13215",
    )
    native = frozenset({"strength", "styles", "regions"})
    qualities = {"draft": {}, "good": {}, "best": {}}  # noqa: RUF012
    sizes = {"draft": 384, "good": 768, "best": 1536}  # noqa: RUF012

    class Knobs(AnyKnobs):
        """Settings of the search."""

        encoder: str = knob(
            "encoder.atelier", "Encoder: a name from 'atelier weights list', or a file.", file="weights"
        )
        weights: str = knob(
            "nnst_d.atelier", "Decoder: a name from 'atelier weights list', or a file.", file="weights"
        )
        keep: float = knob(
            0.5,
            "Weight of the photo itself in the search, except at the first and last sizes.",
            ge=0,
            le=1,
        )
        tone: float = knob(
            0.25, "Weight of colour in the search. At 0, flat areas of the photo become blotchy.", ge=0
        )
        detail: float = knob(
            1.0, "Share of fine detail (below about 4 pixels) taken from AdaIN's decoder.", ge=0, le=1
        )
        detail_weights: str = knob(
            "adain.atelier", "AdaIN's decoder for this encoder: a name, or a file.", file="weights"
        )
        photo_detail: float = knob(
            0.2, "Share of fine detail taken from the photo itself; faces and lettering gain.", ge=0, le=1
        )
        coarsest: int = knob(
            64, "Long side of the first level in pixels; larger values keep larger shapes.", ge=16
        )
        stroke_size: int = knob(
            512, "Long side above which the style is not enlarged, so that strokes keep their size.", ge=16
        )
        turned: Literal["no", "mirrored", "all"] = knob(
            "no", "Mirrored or rotated copies of the style to search as well."
        )
        dims: int = knob(96, "Number of feature directions to compare.", ge=8, le=2048)
        colours: bool = knob(
            True, "Give the finished picture the mean and covariance of the style's colours."
        )
        half: bool = knob(True, "Run the networks in bfloat16 if the device supports it natively.")

    class Training(AnyKnobs):
        """Loss weights, and run defaults that suit this network."""

        encoder: str = knob(
            "encoder.atelier", "Encoder: a name from 'atelier weights list', or a file.", file="weights"
        )
        crop: int = knob(128, "Side of the square crops in pixels.", ge=16, le=1024)
        match_weight: float = knob(1.0, "Weight of the distance to the matched features.", ge=0)
        near_weight: float = knob(0.5, "Weight of the distance to the nearest features of the style.", ge=0)
        moment_weight: float = knob(2.0, "Weight of the features' means and deviations.", ge=0)
        copy_weight: float = knob(2.0, "Weight of reconstructing a picture from its own features.", ge=0)
        content_weight: float = knob(0.1, "Weight of the content's normalised features.", ge=0)
        range_weight: float = knob(5.0, "Penalty for values outside 0..1.", ge=0)
        lattice_weight: float = knob(5.0, "Weight of the checkerboard penalty.", ge=0)

    def weights(self, knobs: NNSTD.Knobs) -> Sequence[str]:
        return (knobs.encoder, knobs.weights, *([knobs.detail_weights] if knobs.detail else []))

    def transfer(self, job: Job, knobs: NNSTD.Knobs) -> torch.Tensor:
        with torch.inference_mode():
            networks = _networks(knobs.encoder, knobs.weights, job, knobs.half)
            return self._paint(networks, Styles(networks, job, knobs), job, knobs)

    def prepare(self, styles: base.Styles, knobs: NNSTD.Knobs, context: Context) -> base.Painter:
        job = style_job(styles, context)
        networks = _networks(knobs.encoder, knobs.weights, job, knobs.half)
        seen = Styles(networks, job, knobs, keep=True)

        def paint(frame: base.Frame) -> Result:
            with torch.inference_mode():
                return Result(self._paint(networks, seen, Job.of(styles, context, frame), knobs))

        return paint

    def _paint(self, networks: Networks, styles: Styles, job: Job, knobs: NNSTD.Knobs) -> torch.Tensor:
        final = (int(job.content.shape[-2]), int(job.content.shape[-1]))
        # A weak style starts at a finer level, where only small details can change.
        coarsest = round(knobs.coarsest**job.strength * max(final) ** (1 - job.strength))
        scales = maths.sizes(final, smallest=max(knobs.coarsest, coarsest))
        scales = [scales[0], *scales]  # the first level runs twice: on the photo, then on its own result
        bias = shares(networks, job, styles, maths.sizes(final, smallest=knobs.coarsest)[0], knobs.tone)
        seen = job.content_seen
        picture, chosen = job.content, None
        for index, size in enumerate(scales):
            level = Level(networks, resize(job.content, size), styles.at(max(size)), job.strength, seen)
            # Only the photo at the first level and, for detail, at the last; more of it for a weak style.
            level.keep = 1 - job.strength * (1 - knobs.keep) if 0 < index < len(scales) - 1 else 1.0
            level.confine(job.regions, bias)
            level.compare_colours(knobs.tone)
            if index == len(scales) - 1:
                level.detail = Detail.of(job, styles.pictures(max(size)), knobs)
            before = picture if level.keep == 1 else resize(picture, size)
            picture, chosen = level.paint(before, chosen)
            stage, show = f"{size[1]} x {size[0]}", partial(torch.clone, picture)
            if not job.progress.report(index + 1, len(scales), stage=stage, preview=show):
                break
        picture = resize(picture, final)
        if not knobs.colours:
            return picture
        picture = lend_visible_colours(job, picture, job.strength, out=picture)
        picture = lend_visible_bands(job, picture, job.strength, styles=styles.pictures(max(final)))
        return lend_visible_colours(job, picture, job.strength, out=picture)

    def look(self, job: Job, knobs: NNSTD.Knobs) -> None:
        with torch.inference_mode():
            styles = Styles(_networks(knobs.encoder, knobs.weights, job, knobs.half), job, knobs)
            final = (int(job.content.shape[-2]), int(job.content.shape[-1]))
            for size in maths.sizes(final, smallest=knobs.coarsest):
                styles.at(max(size))
            Detail.of(job, styles.pictures(max(final)), knobs)

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, torch.Tensor]]:
        columns = features.Hypercolumns(features.VGG(features.TINY))
        guides = sum(map(columns.encoder.channels, decoders.HypercolumnDecoder.guides))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = decoders.HypercolumnDecoder(
                columns.channels, guides, len(columns.taps), width=16, guide_width=8, blocks=1
            )
        network.scale.fill_(1.0)
        state = network.state_dict()
        state["last.bias"].fill_(0.5)  # a picture with contrast instead of black
        state["last.weight"].mul_(40)
        return {"weights": state, "detail_weights": Adain.tiny()["weights"]}

    # training

    def network(self, training: Any) -> torch.nn.Module:
        columns = features.Hypercolumns(features.load(training.encoder))
        guides = sum(map(columns.encoder.channels, decoders.HypercolumnDecoder.guides))
        return decoders.HypercolumnDecoder(columns.channels, guides, len(columns.taps))

    def losses(self, network: Any, batch: Batch, training: Any) -> dict[str, torch.Tensor]:
        """Distances to the style's features and statistics, and reconstruction losses."""
        return DecoderLosses(network, batch, training).terms()


# the networks


def _networks(encoder: str, weights: str, job: Job, half: bool) -> Networks:
    files = tuple(fingerprint(name) for name in (encoder, weights))
    return _loaded(encoder, weights, files, job.device, job.dtype if half else torch.float32)


@kept
def _loaded(encoder: str, weights: str, files: tuple[str, ...], device: Any, dtype: Any) -> Networks:
    loaded = features.load(encoder, padding="replicate").prepare(device, dtype)
    with torch.inference_mode(False):  # it is kept, and a later caller may need gradients
        decoder = decoders.HypercolumnDecoder.of(load(weights)).requires_grad_(False).eval()
    scale = decoder.scale.clone()
    decoder.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    decoder.scale = scale.to(device)  # a divisor must not be rounded
    return Networks(features.Hypercolumns(loaded), decoder, dtype, files)


# one level


@dataclass(frozen=True)
class Chosen:
    """The candidates matched at a level, (h, w), and the grids that they index."""

    index: torch.Tensor
    grids: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Moments:
    """Of the whole content: mean (P, 1, 1) and root mean square length () of the queries; mean and variance
    (G,) of the guidance; mean and variance of the features that AdaIN's decoder reads."""

    centre: torch.Tensor
    length: torch.Tensor
    shift: torch.Tensor
    spread: torch.Tensor
    detail: TapMoments


@dataclass(frozen=True)
class View:
    """The features of a tile: queries (P, h, w), guidance (1, G, h, w), own values (V, h, w), and those that
    AdaIN's decoder reads, by tap."""

    queries: torch.Tensor
    guidance: torch.Tensor
    own: torch.Tensor | None
    detail: Mapping[str, torch.Tensor]


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
        self.tiles = list(tiles(*content.shape[-2:], core=TILE, margin=MARGIN, step=16))
        self.seen = seen
        self.visible = self.mask(features.CELL)
        self.regions: torch.Tensor | None = None
        self.allowed: torch.Tensor | None = None
        self.bias = style.candidates.with_hidden(None)
        self.choices = style.candidates
        self.detail: Detail | None = None
        self.wanted: torch.Tensor | None = None

    def mask(self, stride: int) -> torch.Tensor | None:
        """The visible positions of a grid with this stride in pixels; None if all are."""
        height, width = self.content.shape[-2:]
        return maths.mask_at(self.seen, (-(-height // stride), -(-width // stride)))

    def confine(self, regions: torch.Tensor | None, bias: torch.Tensor | None) -> None:
        """Assign each position to the style with the largest share (K, 1, H, W); set the score bias."""
        if bias is not None:
            choices = self.style.candidates
            self.bias = choices.with_hidden(bias[choices.group_of().to(bias.device)])
        if regions is not None:
            self.regions = resize(regions, self.cells)[:, 0]
            self.allowed = self.regions.argmax(0)

    def compare_colours(self, weight: float) -> None:
        """Compare colours as well, with this weight (`nnst_d_colour`). Regions must be set first."""
        if weight:
            own, choices = cell_colours(self.content, features.CELL), self.style.candidates
            where = [self._counted(group) for group in range(max(choices.groups) + 1)]
            columns = colour_columns(own, choices, self.style.colours, weight, where)
            self.choices, self.wanted = extended(choices, columns), columns.queries

    def _counted(self, group: int) -> torch.Tensor | None:
        """How much each cell (h, w) counts for the colours that a style is to meet."""
        shown = None if self.visible is None else self.visible.float()
        if self.regions is None:
            return shown
        return self.regions[group] if shown is None else self.regions[group] * shown

    def compared(self, queries: torch.Tensor, length: torch.Tensor, tile: Tile) -> torch.Tensor:
        """The centred queries (P, h, w) of a tile in the form that the keys of `choices` are compared with."""
        if self.wanted is None:
            return torch.nn.functional.normalize(queries, dim=0)
        return torch.cat([queries / length, self.wanted[(..., *coarser(tile.outer, features.CELL))]])

    def paint(self, picture: torch.Tensor, before: Chosen | None) -> tuple[torch.Tensor, Chosen]:
        """The level's picture (1, 3, H, W), 0..1, and the matches.

        `picture` is the previous level's result at this size; it is not used if `keep` is 1.
        """
        views = Views(self, picture)
        moments = views.moments()
        one = torch.ones_like(moments.shift)
        painted = torch.empty_like(self.content)
        index = torch.empty(self.cells, dtype=torch.long, device=painted.device)
        for position, tile in enumerate(self.tiles):
            view = views[position]
            queries = self.compared(view.queries - moments.centre, moments.length, tile)
            found = self._search(queries, tile, before)
            guide = torch.nn.functional.batch_norm(
                view.guidance, moments.shift, moments.spread, one, 0 * one, eps=NORM_EPS
            )
            made = self._decode(found, view.own, guide, self.content[(..., *tile.outer)])
            if self.detail is not None:
                window = self.content[(..., *tile.outer)]
                made = self.detail.added(made, window, view.detail, moments.detail, self.strength)
            index[coarser(tile.core, features.CELL)] = found[coarser(tile.inner, features.CELL)]
            painted[(..., *tile.core)] = made[(..., *tile.inner)].clamp(0, 1)
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
        detail = {tap: found[tap] for tap in (() if self.detail is None else self.detail.taps)}
        return View(queries, columns.join(found, taps=networks.decoder.guides), own, detail)

    def _search(self, queries: torch.Tensor, tile: Tile, before: Chosen | None) -> torch.Tensor:
        """The candidate for each query (P, h, w) of a tile, among all or near the matches in `before`."""
        choices, outer = self.choices, coarser(tile.outer, features.CELL)
        allowed = None if self.allowed is None else self.allowed[outer]
        if before is None or self.cells[0] * self.cells[1] * len(choices.keys) <= _FULL_SEARCH:
            flat = queries.flatten(1).T
            index = maths.confined(flat, choices, None if allowed is None else allowed.flatten(), self.bias)
            return index.view(queries.shape[1:])
        return maths.coherent(
            *(queries, choices, before.index, before.grids),
            allowed=allowed,
            bias=self.bias,
            origin=(outer[0].start, outer[1].start),
            whole=self.cells,
        )

    def _decode(
        self, found: torch.Tensor, own: torch.Tensor | None, guide: torch.Tensor, content: torch.Tensor
    ) -> torch.Tensor:
        """The picture of one tile, (1, 3, H, W) float32, decoded from the matched candidates (h, w)."""
        decoder, (height, width) = self.networks.decoder, content.shape[-2:]
        values = torch.nn.functional.embedding(found, self.style.values).permute(2, 0, 1)[None]
        if own is None:
            made: torch.Tensor = decoder(values, guide)[..., :height, :width].float()
            return made
        mine, weak = own[None], 1 - self.strength
        painted, copied = (
            decoder(some, guide)[..., :height, :width].float()
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
        strides = {} if level.detail is None else level.networks.strides(level.detail.taps)
        queries, guidance, detail = _Pooled(), _Pooled(), {tap: _Pooled() for tap in strides}
        for position, tile in enumerate(level.tiles):
            view = self[position]
            if self.small:
                self.kept[position] = view
            queries.add(self._visible(view.queries[None].float(), tile, features.CELL))
            guidance.add(self._visible(view.guidance, tile, features.CELL))
            for tap, pooled in detail.items():
                pooled.add(self._visible(view.detail[tap], tile, strides[tap]))
        centre, spread = queries.result()
        length = spread.clamp(min=0).sum().sqrt().clamp(min=1e-6)
        found = {tap: pooled.result() for tap, pooled in detail.items()}
        return Moments(centre[:, None, None], length, *guidance.result(), found)

    def _visible(self, maps: torch.Tensor, tile: Tile, stride: int) -> torch.Tensor:
        """The visible positions of a tile's core, (1, C, N, 1), out of maps (1, C, h, w) of the whole tile."""
        core = maps[(..., *coarser(tile.inner, stride))]
        mask = self.level.mask(stride)
        if mask is None:
            return core
        return core[:, :, mask[coarser(tile.core, stride)]][..., None]


class _Pooled:
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


def _mean_and_variance(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Per channel of (1, C, H, W), both (C,) float32; avoids a float32 copy, slower than the sums."""
    one = torch.ones(maps.shape[1], device=maps.device)
    # With float32 weights, batch norm accumulates in float32 as well.
    _, mean, inverse = torch.native_batch_norm(maps, one, 0 * one, None, None, True, 0.0, NORM_EPS)
    return mean, inverse.pow(-2) - NORM_EPS


def shares(
    networks: Networks, job: Job, styles: Styles, size: tuple[int, int], tone: float
) -> torch.Tensor | None:
    """The score bias of each style, (K,), that makes it cover its weight's share of the canvas."""
    weights = [weight for weight in job.style_weights if weight]
    if len(weights) == 1 or job.regions is not None:
        return None
    seen = job.content_seen
    level = Level(networks, resize(job.content, size), styles.at(max(size)), seen=seen)
    level.compare_colours(tone)
    views = Views(level, job.content)
    moments = views.moments()
    queries = level.compared(views[0].queries - moments.centre, moments.length, level.tiles[0]).flatten(1)
    if level.visible is not None:
        queries = queries[:, level.visible.flatten()]
    scores = [maths.nearest(queries.T, level.choices.of_group(one))[1] for one in range(len(weights))]
    return maths.balance(torch.stack(scores, 1), weights)
