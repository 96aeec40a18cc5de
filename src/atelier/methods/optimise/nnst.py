"""NNST: optimise the picture until its features match their nearest neighbours in the painting.

The hypercolumn at each position is pulled towards its nearest neighbour among the style's. Neighbours are
searched again at intervals, with the photo and the picture so far as query (Kolkin et al. 2022, the
optimising variant). The variables are the levels of the picture's Laplacian pyramid.

Differences from the paper, for speed and to preserve the photo: the optimisation starts from the picture of
`nnst_d`, scaled down, so that a few dozen steps at each size are enough and errors in large areas are fixed
at small sizes, where it is cheap. Half of each query is the photo's. Features are centred before comparison,
all layers have equal weight, and mirrored copies of the style are candidates too. The encoder runs in
bfloat16, and the search uses the principal directions of the style's features. Above `stroke_size` the style
is not enlarged further, and the finished picture gets the style's statistics of colour and detail. Feature
splitting and the colour step are omitted. `--quality published` is the authors' code, with VGG-16 and its
conventions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from atelier import features, maths
from atelier.core import knobs as knob_rules
from atelier.core.errors import UsageError
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.core.progress import Event, Progress
from atelier.images.resize import resize
from atelier.images.tiles import Tile, coarser, tiles
from atelier.methods import registry
from atelier.methods.base import Job, Method, Paper
from atelier.methods.feedforward.nnst_d_level import MARGIN, TILE
from atelier.methods.feedforward.nnst_d_style import shrunk, turned_alphas, turned_copies
from atelier.methods.optimise.coarse_to_fine import EncoderKnobs, size_of, stages, style_at
from atelier.methods.optimise.common import _Optimising
from atelier.methods.visible import detail_statistics, lend_statistics

#: The largest number of query-candidate products for an exhaustive search (one or two seconds on two cores):
#: for the first search, and for later ones, where most matches are near the previous ones anyway.
FULL_SEARCH, FULL_AGAIN = 1 << 31, 1 << 26
_LEVELS = 5
#: Luma (ITU-R BT.601).
_LIGHT = (0.299, 0.587, 0.114)


class NNST(_Optimising):
    """Optimise the picture until each of its features matches its nearest neighbour in the painting."""

    name = "nnst"
    paper = Paper(
        "Kolkin, Kucera, Paris, Sykora, Shechtman & Shakhnarovich",
        2022,
        "Neural Neighbor Style Transfer",
        "https://arxiv.org/abs/2203.13215",
    )
    before = {"bands": False}  # noqa: RUF012
    native = frozenset({"strength", "styles", "regions"})

    class Knobs(EncoderKnobs):
        """Settings of the search and the optimisation."""

        decoder: str = knob(
            "nnst_d.atelier",
            "Decoder of the first picture: a name from 'atelier weights list', or a file.",
            file="weights",
        )
        start: Literal["nnst_d", "content"] = knob(
            "nnst_d", "Start from the picture of the method nnst_d, or from the photo, coarse to fine."
        )
        keep: float = knob(0.5, "Weight of the photo itself in the search.", ge=0, le=1)
        light: float = knob(0.1, "Weight of the photo's lightness in the search.", ge=0)
        coarsest: int = knob(
            64, "Long side of the first size in pixels; larger values keep larger shapes.", ge=16
        )
        refined_from: int = knob(
            128,
            "Long side from which the picture of nnst_d is refined; large for a single size.",
            ge=16,
        )
        stroke_size: int = knob(
            512, "Long side above which the style is not enlarged, so that strokes keep their size.", ge=16
        )
        turned: Literal["no", "mirrored", "all"] = knob(
            "no", "Rotated copies of the style to search as well."
        )
        iterations: int = knob(40, "Evaluations at the final size.", ge=1)
        coarse_iterations: int = knob(50, "Evaluations at each coarser size.", ge=1)
        rematch: int = knob(10, "Evaluations between two searches.", ge=1)
        step_size: float = knob(
            4e-3, "Adam's step at each level of the pyramid, in units of the pixel range.", gt=0, le=1
        )
        average: float = knob(
            0.8, "Decay of the running average of iterates; 0 returns the last iterate.", ge=0, lt=1
        )
        contrast: float = knob(
            0.3, "Weight of the contrast loss, which keeps the photo's colour differences.", ge=0
        )
        hues: Literal["painted", "photo"] = knob(
            "painted", "'photo' takes the photo's hues, with the variance of the style's."
        )
        colours: bool = knob(
            True, "Give the finished picture the mean and covariance of the style's colours."
        )
        bands: bool = knob(True, "Give the finished picture the style's contrast of detail, band by band.")
        dims: int = knob(96, "Number of feature directions to compare.", ge=8, le=2048)
        published: bool = knob(False, "Follow the authors' code in everything; set by --quality published.")

        def files(self) -> tuple[str, ...]:
            decoded = self.start == "nnst_d" and not self.published
            return (*super().files(), self.decoder) if decoded else super().files()

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 15, "coarse_iterations": 25},
        "good": {},
        "best": {"iterations": 80, "coarse_iterations": 100},
        "published": {
            "encoder": "vgg16.imagenet",
            "padding": "zeros",
            "half": False,
            "start": "content",
            "keep": 0.75,
            "turned": "all",
            "iterations": 200,
            "coarse_iterations": 200,
            "step_size": 2e-3,
            "average": 0.0,
            "contrast": 0.0,
            "hues": "photo",
            "colours": False,
            "bands": False,
            "published": True,
        },
    }

    def paint(self, job: Job, knobs: NNST.Knobs, encoder: features.VGG) -> torch.Tensor:
        picture = (_published if knobs.published else _paint)(job, knobs, encoder)
        # Only the hue step ignores the strength; the published code ignores it throughout.
        base = job.content if knobs.published else picture
        if knobs.hues == "photo":
            picture = _with_hues(job, picture)
        else:
            # The loss compares directions of features, not their lengths, so it does not constrain contrast.
            ratio = min(1.0, knobs.stroke_size / max(size_of(job.content)))
            sized = [shrunk(style, ratio) for style in job.styles]
            detail = detail_statistics(job, sized) if knobs.bands else None
            picture = lend_statistics(job, picture, colours=knobs.colours, detail=detail)
        return torch.lerp(base, picture, job.strength)

    def look(self, job: Job, knobs: NNST.Knobs) -> None:
        if knobs.start == "nnst_d" and not knobs.published:
            kind, chosen = _decoding(knobs)
            kind.look(job, chosen)

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, torch.Tensor]]:
        return {"decoder": registry.find("nnst_d").tiny()["weights"]}


def _with_hues(job: Job, picture: torch.Tensor) -> torch.Tensor:
    """The picture with the photo's hues, spread like the styles'."""
    from atelier.colour.oklab import photo_hues

    used = [maths.visible_pixels(style, seen).flatten(2) for style, seen, _ in _used(job)]
    return photo_hues(job.content, torch.cat(used, 2)[..., None], picture)


def _used(job: Job) -> list[tuple[torch.Tensor, torch.Tensor | None, float]]:
    """The styles with a weight above 0, their alphas and their weights."""
    return [one for one in zip(job.styles, job.looks.seen, job.style_weights, strict=True) if one[2] > 0]


# the picture


def _paint(job: Job, knobs: NNST.Knobs, encoder: features.VGG) -> torch.Tensor:
    """The picture, (1, 3, H, W), optimised at each size from the initial picture."""
    from atelier.maths.free_descent import PyramidDescent

    final = size_of(job.content)
    smallest = knobs.refined_from if knobs.start == "nnst_d" else knobs.coarsest
    scales = maths.sizes(final, smallest=smallest)
    more = knobs.iterations + knobs.coarse_iterations * (len(scales) - 1)
    picture, done = _first_picture(job, knobs, more)
    if job.progress.stopped:
        return picture
    matcher = Matcher(job, knobs, features.Hypercolumns(encoder))
    for stage in stages(job, knobs, scales, done=done):
        descent = PyramidDescent(
            MatchObjective(matcher, stage.content),
            split=partial(maths.split, levels=_LEVELS),
            merge=maths.merge,
            rule="adam",
            **stage.options,
        )
        picture = descent.run(resize(picture, stage.size))
    return resize(picture, final)


def _first_picture(job: Job, knobs: NNST.Knobs, more: int) -> tuple[torch.Tensor, int]:
    """The initial picture and the number of events used for it; `more` events follow."""
    if knobs.start == "content":
        return job.content, 0
    events = 0

    def forward(event: Event) -> bool:
        nonlocal events
        events = event.total
        return job.progress.report(
            event.done, event.total + more, stage=event.stage, losses=event.losses, preview=event.preview
        )

    kind, chosen = _decoding(knobs)
    # A clone, because tensors created in inference mode do not support autograd.
    return kind.picture(replace(job, progress=Progress(forward)), chosen).clone(), events


def _decoding(knobs: NNST.Knobs) -> tuple[Method, Any]:
    """The method that paints the first picture, and its knobs."""
    kind = registry.find("nnst_d")
    same = ("encoder", "keep", "coarsest", "stroke_size", "turned", "dims", "half")
    # Fine detail is optimised here, and a decoder of it would tie the start to one encoder.
    own = {"weights": knobs.decoder, "detail": 0.0}
    chosen = {name: getattr(knobs, name) for name in same} | own
    return kind(), knob_rules.parse(kind.Knobs, chosen)


# the style


@dataclass(frozen=True)
class Side:
    """The styles at one size: the candidates, and their directions (M, D) from the mean `centre` (D,).

    The last column of the candidates' keys is their lightness.
    """

    candidates: maths.Candidates
    directions: torch.Tensor
    centre: torch.Tensor


class Matcher:
    """The state shared by all sizes: the job, the encoder, and the weights of layers and styles.

    `gain` (D,) divides each layer by its mean length over the styles; `bias` (K,) is the score bias of each
    style that makes its share of the canvas equal its weight.
    """

    def __init__(self, job: Job, knobs: NNST.Knobs, columns: features.Hypercolumns) -> None:
        self.job, self.knobs, self.columns = job, knobs, columns
        self.styles = [(style, seen) for style, seen, _ in _used(job)]
        self.gain, self.bias = self._gain(), None
        weights = [weight for _, _, weight in _used(job)]
        if len(weights) > 1 and job.regions is None:
            self.bias = self._shares(weights)

    def see(self, picture: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The features of a picture (1, 3, H, W) at the hypercolumns' taps."""
        found: Mapping[str, torch.Tensor] = self.columns.encoder(picture, self.columns.taps)
        return found

    def side(self, long_side: int) -> Side:
        """The style level for a content with that long side."""
        limit = min(long_side, self.knobs.stroke_size)
        maps, groups, light, masks = [], [], [], []
        with torch.no_grad():
            for group, (style, alpha) in enumerate(self.styles):
                small = turned_copies(style_at(self.job, style, (limit, limit)), self.knobs.turned)
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
    centre = counted.mean(0, dtype=torch.promote_types(rows.dtype, torch.float32))
    rows = unit(rows - centre.to(rows.dtype))
    choices = maths.candidates(maps, groups, dims=dims, visible=visible)
    return Side(replace(choices, keys=torch.cat([choices.keys, light[:, None]], 1)), rows, centre)


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
        self.cells = -(-content.shape[-2] // features.CELL), -(-content.shape[-1] // features.CELL)
        self.visible = maths.mask_at(matcher.job.content_seen, self.cells)
        self.tiles = list(tiles(*content.shape[-2:], core=TILE, margin=MARGIN, step=16))
        self.side = matcher.side(max(content.shape[-2:]))
        self.basis = self.side.candidates.basis * matcher.gain
        self.photo = self._project(content)
        self.table, self.evaluations = self.side.directions, 0
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
        if self.own:
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

    def _mix(self) -> None:
        """Compute the target of each position: below strength 1, mixed with the photo's own direction."""
        from atelier.losses.cosine import centred, unit

        assert self.chosen is not None
        with torch.no_grad():
            mixed = self.side.directions[self.chosen.flatten()]
            places = torch.arange(len(mixed), device=mixed.device).view(self.cells)
            for tile in self.tiles:
                rows = self._rows(self.content, tile)
                own = unit(centred(rows, self.matcher.gain, self.side.centre))
                part = places[coarser(tile.core, features.CELL)].flatten()
                mixed[part] = unit(torch.lerp(mixed[part], own, self.own))
        self.table, self.index = mixed, places

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
        index = (self.index if self.own else self.chosen)[coarser(tile.core, features.CELL)].flatten()
        gain, centre = self.matcher.gain, self.side.centre
        return chosen_distances(self._rows(picture, tile), self.table, index, gain=gain, centre=centre).sum()

    def _rows(self, picture: torch.Tensor, tile: Tile) -> torch.Tensor:
        """The hypercolumns (N, D) of a tile's core."""
        joined = self.matcher.columns.join(self.matcher.see(picture[(..., *tile.outer)]))
        inner = joined[(..., *coarser(tile.inner, features.CELL))]
        return inner.permute(0, 2, 3, 1).reshape(-1, inner.shape[1])


# as published


def _published(job: Job, knobs: NNST.Knobs, encoder: features.VGG) -> torch.Tensor:
    """The picture of the authors' code. Raises UsageError for more than one style."""
    from atelier.methods.optimise.nnst_published import Programme

    styles = _used(job)
    if len(styles) > 1:
        raise UsageError("nnst takes one style with --quality published: remove the others, or the quality")
    return Programme(job, knobs, encoder, styles[0][0]).run().clamp(0, 1)
