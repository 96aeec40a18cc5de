"""NNST: optimise the picture until its features match their nearest neighbours in the painting.

The hypercolumn at each position is pulled towards its nearest neighbour among the style's. Neighbours are
searched again at intervals, with the photo and the picture so far as query (Kolkin et al. 2022, the
optimising variant). The variables are the levels of the picture's Laplacian pyramid.

Differences from the paper, for speed and to preserve the photo: the optimisation starts from the picture of
`nnst_d`, scaled down, so that a few steps at each size are enough and errors in large areas are fixed at
small sizes, where it is cheap. Each larger size starts with fine detail of that picture and of the photo
(`fine`, `photo_detail`), because a few steps do not bring eyes or windows back, and larger shapes of the
finished picture are in part the first one's (`first_share`). Most of each query is the photo's, and each
target is in part the photo's own feature with the style's moments (`content_share`), most in the deepest
layers, which say what the photo shows. Features are centred before comparison, and all layers have equal
weight. The encoder runs in bfloat16, and the search uses the principal directions of the style's features.
Above `stroke_size` the style is not enlarged further, and the finished picture gets the style's statistics of
colour and detail. Feature splitting and the colour step are omitted. `--quality published` is the authors'
code, with VGG-16 and its conventions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from atelier import features, maths
from atelier.core import knobs as knob_rules
from atelier.core.errors import UsageError
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.core.progress import Event, Progress
from atelier.images.resize import resize
from atelier.methods import registry
from atelier.methods.base import Job, Method, Paper
from atelier.methods.optimise.coarse_to_fine import EncoderKnobs, size_of, stages
from atelier.methods.optimise.common import _Optimising
from atelier.methods.optimise.nnst_match import Matcher, MatchObjective, used_styles
from atelier.methods.visible import detail_statistics, lend_statistics

_LEVELS = 5


class NNST(_Optimising):
    """Optimise the picture until each of its features matches its nearest neighbour in the painting."""

    name = "nnst"
    paper = Paper(
        "Kolkin, Kucera, Paris, Sykora, Shechtman & Shakhnarovich",
        2022,
        "Neural Neighbor Style Transfer",
        "https://arxiv.org/abs/2203.13215",
    )
    before = {  # noqa: RUF012
        "bands": False,
        "band_rounds": 2,
        "content_share": 0.0,
        "content_layers": "all",
        "fine": 0.0,
        "photo_detail": 0.0,
        "first_share": 0.0,
    }
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
        keep: float = knob(0.75, "Weight of the photo itself in the search.", ge=0, le=1)
        content_share: float = knob(
            0.38, "Share of the photo's own features, with the style's moments, in each target.", ge=0, le=1
        )
        content_layers: Literal["deep", "all"] = knob(
            "deep", "'deep' gives this share to the deepest layers and less to the others; 'all' is even."
        )
        fine: float = knob(
            1.0, "Share of fine detail with which each larger size starts; at 0 it is optimised.", ge=0, le=1
        )
        photo_detail: float = knob(
            0.05, "Share of the photo in this fine detail; the rest is that of nnst_d.", ge=0, le=1
        )
        first_share: float = knob(
            0.3, "Share of the picture of nnst_d in the finished one, except in fine detail.", ge=0, le=1
        )
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
        iterations: int = knob(8, "Evaluations at the final size.", ge=1)
        coarse_iterations: int = knob(30, "Evaluations at each coarser size.", ge=1)
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
        band_rounds: int = knob(
            12, "Rounds in which it gets this contrast; each comes nearer to the style's.", ge=1, le=16
        )
        dims: int = knob(96, "Number of feature directions to compare.", ge=8, le=2048)
        published: bool = knob(False, "Follow the authors' code in everything; set by --quality published.")

        def files(self) -> tuple[str, ...]:
            if self.start == "content" or self.published:
                return super().files()
            kind, chosen = _decoding(self)
            return tuple(kind.weights(chosen))

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 4, "coarse_iterations": 15},
        "good": {},
        "best": {},
        # Without the photo's fine detail to start from, more steps are needed.
        "painterly": {"fine": 0.0, "content_share": 0.15, "iterations": 24, "coarse_iterations": 60},
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

    sizes = {**Method.sizes, "painterly": 768}  # noqa: RUF012

    def paint(self, job: Job, knobs: NNST.Knobs, encoder: features.VGG) -> torch.Tensor:
        picture = (_published if knobs.published else _paint)(job, knobs, encoder)
        # Only the hue step ignores the strength; the published code ignores it throughout.
        base = job.content if knobs.published else picture
        if knobs.hues == "photo":
            picture = _with_hues(job, picture)
        else:
            # The loss compares directions of features, not their lengths, so it does not constrain contrast.
            detail = detail_statistics(job) if knobs.bands else None
            picture = lend_statistics(
                job, picture, colours=knobs.colours, detail=detail, rounds=knobs.band_rounds
            )
        return torch.lerp(base, picture, job.strength)

    def style_side(self, knobs: NNST.Knobs, side: int) -> int:
        return side if knobs.published else min(side, knobs.stroke_size)

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

    used = [maths.visible_pixels(style, seen).flatten(2) for style, seen, _ in used_styles(job)]
    return photo_hues(job.content, torch.cat(used, 2)[..., None], picture)


# the picture


def _paint(job: Job, knobs: NNST.Knobs, encoder: features.VGG) -> torch.Tensor:
    """The picture, (1, 3, H, W), optimised at each size from the initial picture."""
    from atelier.maths.free_descent import PyramidDescent

    final = size_of(job.content)
    smallest = knobs.refined_from if knobs.start == "nnst_d" else knobs.coarsest
    scales = maths.sizes(final, smallest=smallest)
    more = knobs.iterations + knobs.coarse_iterations * (len(scales) - 1)
    first, done = _first_picture(job, knobs, more)
    if job.progress.stopped:
        return first
    matcher = Matcher(job, knobs, features.Hypercolumns(encoder))
    detailed = torch.lerp(first, job.content, knobs.photo_detail)
    picture, before = first, None
    for stage in stages(job, knobs, scales, done=done):
        begun = resize(picture, stage.size)
        if before is not None and knobs.fine:
            begun = begun + knobs.fine * _finer(resize(detailed, stage.size), before)
        descent = PyramidDescent(
            MatchObjective(matcher, stage.content),
            split=partial(maths.split, levels=_LEVELS),
            merge=maths.merge,
            rule="adam",
            **stage.options,
        )
        picture, before = descent.run(begun), stage.size
    picture = resize(picture, final)
    if knobs.start == "content" or not knobs.first_share:
        return picture
    return _with_shapes(picture, first, knobs.first_share)


def _with_shapes(picture: torch.Tensor, first: torch.Tensor, share: float) -> torch.Tensor:
    """A picture (1, 3, H, W) with a share of the first one, except in detail below about four pixels."""
    height, width = size_of(picture)
    change = first - picture
    shapes = change - _finer(change, (-(-height // 4), -(-width // 4)))
    return (picture + share * shapes).clamp(0, 1)


def _finer(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """What a picture (1, 3, H, W) loses at a smaller `size`."""
    return picture - resize(resize(picture, size), size_of(picture))


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
    chosen = {name: getattr(knobs, name) for name in same} | {"weights": knobs.decoder}
    if not knobs.fine:
        chosen["detail"] = 0.0
    return kind(), knob_rules.parse(kind.Knobs, chosen)


# as published


def _published(job: Job, knobs: NNST.Knobs, encoder: features.VGG) -> torch.Tensor:
    """The picture of the authors' code. Raises UsageError for more than one style."""
    from atelier.methods.optimise.nnst_published import Programme

    styles = used_styles(job)
    if len(styles) > 1:
        raise UsageError("nnst takes one style with --quality published: remove the others, or the quality")
    return Programme(job, knobs, encoder, styles[0][0]).run().clamp(0, 1)
