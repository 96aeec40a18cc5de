"""Training by content features and style statistics (Huang & Belongie 2017): settings and losses.

`adain`, `microast` and `nnst_d` share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from atelier import losses, maths
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

#: Where the style's means and deviations are taken.
STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


class PerceptualTraining(AnyKnobs):
    """The scale and the weights of the losses."""

    scale: Literal["relative", "published"] = knob(
        "relative", "Scale of the losses: relative to their targets, or as in the paper."
    )
    content_weight: float = knob(1.0, "Weight of the content's features.", ge=0)
    style_weight: float = knob(20.0, "Weight of the style's statistics.", ge=0)
    identity_share: float = knob(
        0.25, "Fraction of the batch that uses the painting as its own content.", ge=0, le=1
    )
    identity_weight: float = knob(2.0, "Weight of the pixel error in that fraction.", ge=0)
    edge_weight: float = knob(
        0.0, "Weight of the directions of the content's edges; 1 keeps eyes and windows better.", ge=0
    )
    smoothness: float = knob(0.3, "Weight of total variation, which suppresses noise.", ge=0)
    overshoot: float = knob(5.0, "Penalty for values outside 0..1.", ge=0)
    lattice: float = knob(0.0, "Penalty for a grid that the decoder weaves into flat areas.", ge=0)


def contents(photos: Tensor, paintings: Tensor, training: PerceptualTraining) -> tuple[Tensor, int]:
    """The contents of a batch, and how many of the first of them are their own styles."""
    same = round(training.identity_share * len(photos))
    return torch.cat([paintings[:same], photos[same:]]), same


def held_taps(training: PerceptualTraining) -> tuple[str, ...]:
    """Where the content's features are compared.

    relu4_1 as published, else relu3_1 as well, because at 1/8 of the size an eye is a single position.
    """
    return ("relu4_1",) if training.scale == "published" else ("relu4_1", "relu3_1")


def restyled(
    seen: Mapping[str, Tensor], style: Mapping[str, Tensor], strength: float = 1.0
) -> dict[str, Tensor]:
    """The content's features with the style's means and deviations, by tap."""
    from atelier.maths.whitening import adain

    moments = {tap: maths.channel_moments(style[tap], unbiased=True) for tap in seen}
    return {tap: adain(seen[tap], *moments[tap], strength=strength) for tap in seen}


def feature_terms(
    found: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    style: Mapping[str, Tensor],
    training: PerceptualTraining,
) -> dict[str, Tensor]:
    """Content and style, eqs. 11 to 13 of the paper; `relative` takes means over the taps, not sums."""
    relative = training.scale == "relative"
    content = [losses.ContentLoss(target[tap], relative=relative)(found[tap]) for tap in target]
    moments = [losses.MomentLoss(style[tap], relative=relative)(found[tap]) for tap in STYLE]
    return {
        "content": training.content_weight * torch.stack(content).mean(),
        "style": training.style_weight * torch.stack(moments).sum() / (len(STYLE) if relative else 1),
    }


def pixel_terms(
    picture: Tensor, content: Tensor, same: int, training: PerceptualTraining, *, stride: int = 4
) -> dict[str, Any]:
    """Pixel losses. The first `same` contents are also the styles of their pictures.

    `stride` is that of the decoder's coarsest features in pixels, which is the period of its grid.
    """
    picture, terms = picture.float(), {}
    if same and training.identity_weight:
        terms["identity"] = training.identity_weight * (picture[:same] - content[:same]).abs().mean()
    if training.edge_weight:
        terms["edges"] = training.edge_weight * losses.EdgeLoss(content)(picture)
    if training.smoothness:
        terms["smoothness"] = training.smoothness * losses.TotalVariation("squared")(picture)
    if training.overshoot:
        terms["overshoot"] = training.overshoot * (picture - picture.clamp(0, 1)).square().mean()
    if training.lattice:
        terms["lattice"] = training.lattice * losses.LatticeLoss(stride)(picture)
    return terms
