"""Texture: synthesise a texture of any size with the statistics of a sample; it can be made tileable.

Gatys et al. start from noise and optimise it until the features of an encoder have the sample's statistics;
there is no content. Only the size of the content picture is used (below strength 1 it also shows
through): give the sample as content and style, and set `--size`; `--style-scale` sets the size of the sample
relative to the result, 0.5 for a result with twice its sides.

Differences from the paper, as in `gatys`: coarse to fine, because structure larger than the encoder's
receptive field does not form from noise at the final size; Wasserstein statistics, relative to the sample's
magnitude; replicate padding; Adam with averaged iterates. `--quality published` undoes these. With
`seamless`, all convolutions use circular padding, so that copies meet without a seam; this is exact if both
sides are multiples of 16.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

from atelier import colour, features, maths
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.methods.base import Job, Paper, Takes
from atelier.methods.optimise.coarse_to_fine import STARTS, coarse_to_fine, size_of
from atelier.methods.optimise.common import (
    PLAIN,
    Scale,
    Statistics,
    StyleKnobs,
    _Optimising,
    style_terms,
)

if TYPE_CHECKING:
    from atelier.losses.objective import Objective, Term


class Texture(_Optimising):
    """Synthesise a texture of the content's size with the statistics of a sample, tileable on request."""

    name = "texture"
    paper = Paper(
        "Gatys, Ecker & Bethge",
        2015,
        "Texture Synthesis Using Convolutional Neural Networks",
        "https://arxiv.org/abs/1505.07376",
    )
    native = frozenset({"styles"})
    takes = Takes(content="size")

    class Knobs(StyleKnobs):
        """The statistics to match, and whether the result is tileable."""

        start: str = knob(
            "noise",
            "Start from 'noise', 'content', 'style', or a picture file.",
            file="picture",
            words=STARTS,
        )
        seamless: bool = knob(False, "Make the texture tileable.")
        style_loss: Statistics = knob("wasserstein", "Statistics to match.")
        scale: Scale = knob(
            "relative", "Scale of the loss: relative to its target, or as in the tutorial or the paper."
        )
        smoothness: float = knob(0.1, "Weight of total variation, which suppresses grain.", ge=0)

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 20, "coarse_iterations": 60},
        "good": {},
        "best": {"iterations": 200, "coarse_iterations": 300},
        "published": {
            **PLAIN,
            "pooling": "average",
            "iterations": 1000,
            "style_layers": ("conv1_1", "pool1", "pool2", "pool3", "pool4"),
            "style_loss": "gram",
            "scale": "published",
        },
    }

    def paint(self, job: Job, knobs: Texture.Knobs, encoder: features.VGG) -> torch.Tensor:
        enlarge = _wrapped_resize if knobs.seamless else resize
        objective = partial(objective_at, job, knobs, encoder)
        relative = knobs.scale == "relative"
        picture = coarse_to_fine(job, knobs, objective, enlarge=enlarge, rescale=relative)
        used = [index for index, weight in enumerate(job.style_weights) if weight]
        return _in_tone(job, picture, used[0]) if relative and len(used) == 1 else picture


def _in_tone(job: Job, picture: torch.Tensor, index: int) -> torch.Tensor:
    """The texture with the mean and covariance of its sample's colours, needed for black or flat samples.

    Features of such samples hardly constrain tone, so the colours of the noise would remain.
    """
    sample = maths.visible_pixels(job.styles[index], job.looks.seen[index])
    matched = colour.match_moments(picture, sample, noise=0.02)
    return colour.confine(matched, sample).clamp(0, 1)


def objective_at(job: Job, knobs: Texture.Knobs, encoder: features.VGG, content: torch.Tensor) -> Objective:
    """The objective at the content's size: the samples' statistics and smoothness."""
    from atelier.losses.objective import Objective, statistics_terms

    def terms(sample: torch.Tensor, seen: torch.Tensor | None) -> list[Term]:
        shares = knobs.style_shares()
        return statistics_terms(encoder, sample, shares, knobs.style_loss, scale=knobs.scale, seen=seen)

    # The sample has borders even if the texture is seamless.
    style = style_terms(job, content, terms)
    if knobs.seamless:
        encoder = copy.copy(encoder)  # the encoder itself is shared
        encoder.padding = "circular"
    return Objective(encoder, {"style": style}, smoothness=knobs.smoothness, wrap=knobs.seamless)


def _wrapped_resize(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A tileable picture (1, 3, H, W) at `size`, still tileable: the centre of a 3 x 3 grid of copies."""
    if size_of(picture) == size:
        return picture
    height, width = size
    nine = resize(picture.repeat(1, 1, 3, 3), (3 * height, 3 * width))
    return nine[..., height : 2 * height, width : 2 * width].contiguous()
