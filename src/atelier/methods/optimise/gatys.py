"""Gatys: optimise the image until its features have the content's layout and the style's statistics.

The style loss compares Gram matrices of an encoder's features, and the content loss the features themselves;
the picture is optimised from an initial image. Later methods are compared with this one.

Differences from the paper, which `--quality published` and `--quality tutorial` undo: coarse to fine, because
strokes larger than the encoder's receptive field never form at the final size; the Wasserstein distance of
Gaussians instead of Gram matrices, because it transfers the whole palette; replicate padding, because zero
padding leaves a visible border; each layer's loss relative to the style's magnitude, so that weights mean the
same for every encoder; Adam with averaged iterates, because bfloat16 gradients are too noisy for the history
of L-BFGS.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atelier import features
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Job, Paper
from atelier.methods.optimise.coarse_to_fine import coarse_to_fine
from atelier.methods.optimise.common import (
    EFFORTS,
    PLAIN,
    ContentKnobs,
    Scale,
    Statistics,
    _Optimising,
    style_and_content,
)

if TYPE_CHECKING:
    from atelier.losses.objective import Objective, Term

_TUTORIAL_LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
_PUBLISHED_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")


class Gatys(_Optimising):
    """Optimise the picture until its features have the content's layout and the style's statistics."""

    name = "gatys"
    paper = Paper(
        "Gatys, Ecker & Bethge",
        2016,
        "Image Style Transfer Using Convolutional Neural Networks",
        "https://openaccess.thecvf.com/content_cvpr_2016/html/Gatys_Image_Style_Transfer_CVPR_2016_paper.html",
    )
    native = frozenset({"styles", "strength"})

    class Knobs(ContentKnobs):
        """The statistics to match and the scale of the losses."""

        style_loss: Statistics = knob("wasserstein", "Statistics to match.")
        scale: Scale = knob(
            "relative",
            "Scale of the losses: relative to their targets, or as in the tutorial or the paper.",
        )

    qualities = {  # noqa: RUF012
        **EFFORTS,
        "tutorial": {
            **PLAIN,
            "style_loss": "gram",
            "style_layers": _TUTORIAL_LAYERS,
            "content_layers": ("conv2_2",),
            "scale": "tutorial",
            "style_weight": 1e6 * len(_TUTORIAL_LAYERS),
            "content_weight": 1.0,
            "iterations": 300,
        },
        "published": {
            **PLAIN,
            "style_loss": "gram",
            "style_layers": _PUBLISHED_LAYERS,
            "content_layers": ("conv4_2",),
            "scale": "published",
            "style_weight": 1e3,
            "content_weight": 1.0,
            "start": "noise",
            "pooling": "average",
            "iterations": 500,
        },
    }

    def paint(self, job: Job, knobs: Gatys.Knobs, encoder: features.VGG) -> torch.Tensor:
        objective = partial(objective_at, job, knobs, encoder)
        return coarse_to_fine(job, knobs, objective, rescale=knobs.scale == "relative")


def objective_at(job: Job, knobs: Gatys.Knobs, encoder: features.VGG, content: torch.Tensor) -> Objective:
    """The objective at the content's size: the styles' statistics, the content's features, smoothness."""
    from atelier.losses.objective import statistics_terms

    def terms(style: torch.Tensor, seen: torch.Tensor | None) -> list[Term]:
        shares = knobs.style_shares()
        return statistics_terms(encoder, style, shares, knobs.style_loss, scale=knobs.scale, seen=seen)

    return style_and_content(job, knobs, encoder, content, terms, scale=knobs.scale)
