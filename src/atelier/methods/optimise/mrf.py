"""MRF: iterate on the image until every patch of its features is a patch of the style.

Where Gatys et al. match statistics of all places at once, a Markov random field matches neighbourhoods: each
3x3 patch of the deeper layers is drawn to its most similar style patch, turned and scaled copies of the style
included, so that eyes stay eyes and brush marks hold together. Content and smoothness are terms of their own.

This differs from the paper as `gatys` does (coarse to fine from the content, losses relative to the style's
own size, Adam with averaged iterates), and patches are matched anew at every tenth step instead of at each:
matches hardly change from one step to the next, and matching costs a hundred times the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atelier import features
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.core.registry import Job, Method, Paper
from atelier.images.resize import resize
from atelier.maths.coarse_to_fine import DescentKnobs, coarse_to_fine, shares, style_at

if TYPE_CHECKING:
    from atelier.losses.objective import Objective, Term


class MRF(Method):
    """Optimise the picture until each patch of its features is one of the style's."""

    name = "mrf"
    paper = Paper(
        "Li & Wand",
        2016,
        "Combining Markov Random Fields and Convolutional Neural Networks for Image Synthesis",
        "https://arxiv.org/abs/1601.04589",
    )
    native = frozenset({"styles", "strength"})

    class Knobs(DescentKnobs):
        """Where patches are matched, with what copies of the style, and the weights."""

        style_layers: tuple[str, ...] = knob(("relu3_1", "relu4_1"), "Taps whose patches are matched.")
        style_layer_weights: tuple[float, ...] = knob(
            (), "Weight of each style tap; equal when none is given."
        )
        patch: int = knob(3, "Positions along a patch's side.", ge=1, le=9)
        stride: int = knob(1, "Positions from one patch to the next.", ge=1, le=9)
        rotations: tuple[float, ...] = knob((0.0,), "Degrees by which copies of the style are turned.")
        scales: tuple[float, ...] = knob((1.0,), "Factors by which copies of the style are scaled.")
        match_every: int = knob(10, "Evaluations from one matching to the next.", ge=1)
        content_layers: tuple[str, ...] = knob(("relu4_1",), "Taps whose features are the content.")
        style_weight: float = knob(1.0, "Weight of the patches.", ge=0)
        content_weight: float = knob(0.1, "Weight of the content's features.", ge=0)
        smoothness: float = knob(1.0, "Weight of total variation, against grain.", ge=0)

    qualities = {  # noqa: RUF012
        "draft": {"iterations": 12, "coarse_iterations": 36},
        "good": {},
        "best": {"iterations": 200, "coarse_iterations": 300},
        "published": {
            "encoder": "vgg19.imagenet",
            "padding": "zeros",
            "half": False,
            "smallest": 96,
            "iterations": 100,
            "coarse_iterations": 100,
            "optimiser": "lbfgs",
            "stride": 2,
            "rotations": (-15.0, -7.5, 0.0, 7.5, 15.0),
            "scales": (0.85, 1.0, 1.15),
            "match_every": 1,
            "content_layers": ("relu4_2",),
        },
    }

    def weights(self, knobs: MRF.Knobs) -> Sequence[str]:
        return knobs.files()

    def transfer(self, job: Job, knobs: MRF.Knobs) -> torch.Tensor:
        # Tensors born in a caller's inference mode could not be differentiated through.
        with torch.inference_mode(False):
            encoder = features.load(knobs.encoder, padding=knobs.padding, pooling=knobs.pooling)
            encoder.prepare(job.device, job.dtype if knobs.half else torch.float32)
            return coarse_to_fine(job, knobs, lambda content: _objective(job, knobs, encoder, content))


def _objective(job: Job, knobs: MRF.Knobs, encoder: features.VGG, content: torch.Tensor) -> Objective:
    """The objective at the content's size: patches of the style, content and smoothness."""
    from atelier.losses.objective import Objective, content_terms

    height, width = content.shape[-2:]
    # Strength scales the style's weight; squared, its effect on the picture is about even.
    strength = knobs.style_weight * job.strength**2
    with torch.no_grad():
        style = [
            term
            for weight, picture in zip(job.style_weights, job.styles, strict=True)
            if weight
            for term in _patch_terms(
                knobs, encoder, style_at(job, picture, (height, width)), strength * weight
            )
        ]
        kept = content_terms(encoder, content, knobs.content_layers, knobs.content_weight)
    return Objective(encoder, {"style": style, "content": kept}, smoothness=knobs.smoothness)


def _patch_terms(knobs: MRF.Knobs, encoder: features.VGG, style: torch.Tensor, weight: float) -> list[Term]:
    """The patch loss of one style at each style tap."""
    from atelier.losses.objective import Term
    from atelier.losses.patches import PatchLoss

    taps = shares(knobs.style_layers, knobs.style_layer_weights)
    copies = list(style_copies(style, knobs.rotations, knobs.scales))
    found = [encoder(picture, list(taps)) for picture, _ in copies]
    terms = []
    for tap, share in taps.items():
        masks = [_mask_at(mask, some[tap]) for some, (_, mask) in zip(found, copies, strict=True)]
        loss = PatchLoss(
            [some[tap] for some in found],
            masks=masks,
            size=knobs.patch,
            stride=knobs.stride,
            every=knobs.match_every,
            relative=True,
        )
        terms.append(Term(tap, weight * share, loss))
    return terms


def style_copies(
    style: torch.Tensor, rotations: Sequence[float], scales: Sequence[float]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The style (1, 3, H, W) turned by each angle in degrees, at each scale, with masks of what is the style.

    The style itself comes first, asked for or not.
    """
    wanted = dict.fromkeys([(0.0, 1.0), *((angle, scale) for scale in scales for angle in rotations)])
    copies = []
    for angle, scale in wanted:
        height, width = (max(1, round(side * scale)) for side in style.shape[-2:])
        copies.append(turned(resize(style, (height, width)), angle))
    return copies


def turned(picture: torch.Tensor, degrees: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture (1, 3, H, W) turned anticlockwise about its middle, and a mask (1, 1, H, W) of its inside."""
    import math

    from torch.nn import functional

    height, width = picture.shape[-2:]
    if degrees % 360 == 0:
        return picture, picture.new_ones(1, 1, height, width)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Coordinates run from -1 to 1 along both sides, so a turn in them also carries the proportions.
    turn = picture.new_tensor([[[cos, -sin * height / width, 0], [sin * width / height, cos, 0]]])
    grid = functional.affine_grid(turn, [1, 3, height, width], align_corners=False)
    values = functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs().amax(-1) <= 1).to(picture.dtype)[None]
    return values, inside


def _mask_at(mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A mask (1, 1, H, W) on the grid of features: inside is what lies inside altogether."""
    from torch.nn import functional

    height, width = values.shape[-2:]
    shares_inside = functional.interpolate(mask, (height, width), mode="area")
    return (shares_inside > 0.999).to(mask.dtype)
