"""An objective: weighted losses at an encoder's taps, summed by name, and smoothness of the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor

from atelier.core.errors import UsageError
from atelier.features.vgg import VGG
from atelier.losses.content import ContentLoss
from atelier.losses.smoothness import TotalVariation
from atelier.losses.statistics import GramLoss, MomentLoss, Scale, WassersteinLoss
from atelier.maths.visible import weight_at

Statistics = Literal["gram", "centred-gram", "moments", "wasserstein"]


@dataclass(frozen=True)
class Term:
    """A loss of one tap's features (1, C, H, W), and what it is multiplied by.

    A `statistic` is a loss over all positions that also takes a weight map (1, 1, H, W).
    """

    tap: str
    weight: float
    loss: Callable[..., Tensor]
    statistic: bool = False


class Objective:
    """The terms of a picture (1, 3, H, W) by name, as a descent minimises them.

    `terms` are summed under each name; those of weight 0 are not computed. `smoothness` weighs the
    squared total variation, under its own name where it is above 0; with `wrap`, the picture's opposite
    borders are neighbours. `seen` is the picture's alpha (1, 1, H, W): hidden places do not count in
    statistics.
    """

    def __init__(
        self,
        encoder: VGG,
        terms: Mapping[str, Sequence[Term]],
        *,
        smoothness: float = 0.0,
        wrap: bool = False,
        seen: Tensor | None = None,
    ) -> None:
        self.encoder, self.smoothness, self.wrap, self.seen = encoder, smoothness, wrap, seen
        self.terms = {name: [term for term in some if term.weight] for name, some in terms.items()}
        self.taps = tuple(dict.fromkeys(term.tap for some in self.terms.values() for term in some))
        self.smooth = TotalVariation("squared")

    def __call__(self, picture: Tensor) -> dict[str, Tensor]:
        found = self.encoder(picture, self.taps) if self.taps else {}
        # Without any term the sum still has to be a tensor that can be differentiated.
        nothing = 0.0 * picture.sum()
        values = {
            name: sum((term.weight * self._loss(term, found[term.tap]) for term in some), start=nothing)
            for name, some in self.terms.items()
        }
        if self.smoothness:
            whole = F.pad(picture, (0, 1, 0, 1), mode="circular") if self.wrap else picture
            values["smoothness"] = self.smoothness * self.smooth(whole)
        return values

    def _loss(self, term: Term, features: Tensor) -> Tensor:
        if self.seen is None or not term.statistic:
            return term.loss(features)
        return term.loss(features, weight_at(self.seen, (features.shape[-2], features.shape[-1])))


def content_terms(
    encoder: VGG, content: Tensor, taps: Sequence[str], weight: float, *, scale: Scale = "relative"
) -> list[Term]:
    """The content loss at each of `taps`; they share `weight`.

    By `scale` it is relative to the content's own size, the mean square as the tutorial has it, or half the
    sum of squares at each tap as published (Gatys et al. 2016, eq. 1). Raises UsageError where there is no
    tap.
    """
    if not taps:
        raise UsageError("content_layers needs at least one tap; content_weight 0 leaves the content out")
    terms = []
    for tap, features in encoder(content, taps).items():
        share = features.numel() / 2 if scale == "published" else 1 / len(taps)
        terms.append(Term(tap, weight * share, ContentLoss(features, relative=scale == "relative")))
    return terms


def statistics_terms(
    encoder: VGG,
    style: Tensor,
    shares: Mapping[str, float],
    kind: Statistics,
    *,
    scale: Scale = "relative",
    seen: Tensor | None = None,
) -> list[Term]:
    """The loss that `kind` names of a style (1, 3, H, W), at each tap of `shares` by its share.

    `seen` is the style's alpha (1, 1, H, W): only what is visible counts.
    """
    found = encoder(style, list(shares))
    return [
        Term(tap, share, statistics_loss(kind, found[tap], scale=scale, seen=seen), statistic=True)
        for tap, share in shares.items()
    ]


def statistics_loss(
    kind: Statistics, target: Tensor, *, scale: Scale = "relative", seen: Tensor | None = None
) -> Any:
    """The loss of one tap's style features (1, C, H, W) that `kind` names.

    `scale` is that of the Gram losses; the others are relative or not. `seen` is the style's alpha.
    """
    weight = weight_at(seen, (target.shape[-2], target.shape[-1]))
    if kind == "moments":
        return MomentLoss(target, relative=scale == "relative", weight=weight)
    if kind == "wasserstein":
        return WassersteinLoss(target, relative=scale == "relative", weight=weight)
    return GramLoss(target, centred=kind == "centred-gram", scale=scale, weight=weight)
