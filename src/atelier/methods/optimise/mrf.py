"""MRF: optimise the image until every patch of its features matches a patch of the style.

Gatys et al. match statistics over all positions; a Markov random field matches neighbourhoods. Each 3x3 patch
of the deeper layers is pulled towards its most similar style patch, including rotated and scaled copies of
the style, so that facial features and brush marks stay intact. Content and smoothness are separate terms.

Differences from the paper: as in `gatys`, losses relative to the style's magnitude, replicate padding, and
Adam with averaged iterates. Patches are matched again at every tenth step instead of at each: matches hardly
change between steps, and matching costs a hundred times the rest. relu2_1 is matched as well, and the
finished picture's colours get the style's mean and covariance, because averaging overlapping patches makes
colours paler, and the deep layers do not constrain colour. `--quality published` uses the paper's layers,
copies, sizes and steps with L-BFGS; the losses stay relative, because the effect of the authors' weights
depends on the size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from atelier import features, maths
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.methods.base import Job, Paper
from atelier.methods.optimise.coarse_to_fine import coarse_to_fine, size_of
from atelier.methods.optimise.common import (
    EFFORTS,
    PLAIN,
    ContentKnobs,
    _Optimising,
    style_and_content,
)
from atelier.methods.visible import lend_visible_colours

if TYPE_CHECKING:
    from atelier.losses.objective import Objective, Term


class MRF(_Optimising):
    """Optimise the picture until each patch of its features is one of the style's."""

    name = "mrf"
    paper = Paper(
        "Li & Wand",
        2016,
        "Combining Markov Random Fields and Convolutional Neural Networks for Image Synthesis",
        "https://arxiv.org/abs/1601.04589",
    )
    native = frozenset({"styles", "strength"})

    class Knobs(ContentKnobs):
        """The patches to match, and the copies of the style."""

        style_layers: tuple[str, ...] = knob(
            ("relu2_1", "relu3_1", "relu4_1"), "Taps whose patches are matched."
        )
        patch: int = knob(3, "Side of a patch in feature positions.", ge=1, le=9)
        stride: int = knob(2, "Stride between patches in feature positions.", ge=1, le=9)
        rotations: tuple[float, ...] = knob(
            (0.0,), "Angles in degrees by which copies of the style are rotated."
        )
        scales: tuple[float, ...] = knob((1.0,), "Factors by which copies of the style are scaled.")
        match_every: int = knob(10, "Evaluations between two matchings.", ge=1)
        content_weight: float = knob(0.5, "Weight of the content's features.", ge=0)
        smoothness: float = knob(2.0, "Weight of total variation, which suppresses grain.", ge=0)
        colours: bool = knob(
            True, "Give the finished picture the mean and covariance of the style's colours."
        )

    qualities = {  # noqa: RUF012
        **EFFORTS,
        "published": {
            **PLAIN,
            "smallest": 96,
            "iterations": 100,
            "coarse_iterations": 100,
            "style_layers": ("relu3_1", "relu4_1"),
            "rotations": (-15.0, -7.5, 0.0, 7.5, 15.0),
            "scales": (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15),
            "match_every": 1,
            "content_layers": ("relu4_2",),
            "smoothness": 1.0,
            "colours": False,
        },
    }

    def paint(self, job: Job, knobs: MRF.Knobs, encoder: features.VGG) -> torch.Tensor:
        picture = coarse_to_fine(job, knobs, partial(objective_at, job, knobs, encoder))
        if not knobs.colours:
            return picture
        return lend_visible_colours(job, picture, job.strength)


def objective_at(job: Job, knobs: MRF.Knobs, encoder: features.VGG, content: torch.Tensor) -> Objective:
    """The objective at the content's size: patches of the style, the content's features, smoothness."""
    return style_and_content(job, knobs, encoder, content, partial(_patch_terms, knobs, encoder))


def _patch_terms(
    knobs: MRF.Knobs, encoder: features.VGG, style: torch.Tensor, seen: torch.Tensor | None
) -> list[Term]:
    """The patch loss of one style at each style tap; patches with hidden pixels (`seen`) are excluded.

    If a tap is too coarse for any patch without hidden pixels, all patches are used.
    """
    from atelier.losses.objective import Term
    from atelier.losses.patches import PatchLoss

    taps = knobs.style_shares()
    copies = style_copies(style, knobs.rotations, knobs.scales, maths.weight_at(seen, size_of(style)))
    found = [encoder(picture, list(taps)) for picture, _ in copies]
    terms = []
    for tap, share in taps.items():
        masks = [_mask_at(mask, some[tap]) for some, (_, mask) in zip(found, copies, strict=True)]
        if seen is not None and not any(_has_patch(mask, knobs.patch) for mask in masks):
            masks = [torch.ones_like(mask) for mask in masks]
        loss = PatchLoss(
            [some[tap] for some in found],
            masks=masks,
            size=knobs.patch,
            stride=knobs.stride,
            every=knobs.match_every,
            relative=True,
        )
        terms.append(Term(tap, share, loss))
    return terms


def style_copies(
    style: torch.Tensor,
    rotations: Sequence[float],
    scales: Sequence[float],
    seen: torch.Tensor | None = None,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The style (1, 3, H, W) rotated by each angle in degrees, at each scale, with masks of its valid area.

    The unchanged style always comes first. Pixels hidden by the alpha `seen` (1, 1, H, W) are not valid.
    """
    wanted = dict.fromkeys([(0.0, 1.0), *((angle, scale) for scale in scales for angle in rotations)])
    copies = []
    for angle, scale in wanted:
        height, width = (max(1, round(side * scale)) for side in style.shape[-2:])
        picture, inside = turned(resize(style, (height, width)), angle)
        if seen is not None:
            visible, _ = turned(resize(seen, (height, width)), angle)
            inside = inside * (visible > 0.999)
        copies.append((picture, inside))
    return copies


def turned(picture: torch.Tensor, degrees: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture (1, 3, H, W) rotated anticlockwise about its centre, and a mask (1, 1, H, W) of its area."""
    from torch.nn import functional

    height, width = picture.shape[-2:]
    if degrees % 360 == 0:
        return picture, picture.new_ones(1, 1, height, width)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Coordinates run from -1 to 1 along both sides, so the rotation includes the aspect ratio.
    turn = picture.new_tensor([[[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]])
    grid = functional.affine_grid(turn, [1, 1, height, width], align_corners=False)
    values = functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs().amax(-1) <= 1).to(picture.dtype)[None]
    return values, inside


def _has_patch(mask: torch.Tensor, size: int) -> bool:
    """Whether a patch of `size` positions a side lies inside a mask (1, 1, H, W)."""
    from torch.nn import functional

    window = [min(size, side) for side in mask.shape[-2:]]
    return bool((-functional.max_pool2d(-mask.float(), window, 1) > 0.999).any())


def _mask_at(mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A mask (1, 1, H, W) on the feature grid; a position is inside if all of its pixels are."""
    from torch.nn import functional

    height, width = values.shape[-2:]
    shares_inside = functional.interpolate(mask, (height, width), mode="area")
    return (shares_inside > 0.999).to(mask.dtype)
