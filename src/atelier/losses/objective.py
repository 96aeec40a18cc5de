"""The objective of an optimisation: weighted losses at an encoder's taps, and smoothness of the picture."""

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
from atelier.maths.moments import Gaussian
from atelier.maths.visible import weight_at

Statistics = Literal["gram", "centred-gram", "moments", "wasserstein"]


@dataclass(frozen=True)
class Term:
    """A loss on one tap's features (1, C, H, W), and its weight.

    A loss with `statistic` set pools over all positions and also takes a weight map (1, 1, H, W).
    """

    tap: str
    weight: float
    loss: Callable[..., Tensor]
    statistic: bool = False


class Objective:
    """The named loss terms of a picture (1, 3, H, W), to be minimised.

    The `terms` under each name are summed; terms of weight 0 are not computed. `direct` are further losses by
    name, of the picture itself and already weighted. A `smoothness` above 0 adds a term of that name: the
    squared total variation times this weight. With `wrap`, opposite borders of the
    picture count as neighbours. `seen` is the picture's alpha (1, 1, H, W): statistics ignore hidden pixels.
    """

    def __init__(
        self,
        encoder: VGG,
        terms: Mapping[str, Sequence[Term]],
        *,
        direct: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        smoothness: float = 0.0,
        wrap: bool = False,
        seen: Tensor | None = None,
    ) -> None:
        self.encoder, self.smoothness, self.wrap, self.seen = encoder, smoothness, wrap, seen
        self.direct = direct or {}
        self.terms = {name: [term for term in some if term.weight] for name, some in terms.items()}
        self.taps = tuple(dict.fromkeys(term.tap for some in self.terms.values() for term in some))
        self.smooth = TotalVariation("squared")

    def __call__(self, picture: Tensor) -> dict[str, Tensor]:
        found = self.encoder(picture, self.taps) if self.taps else {}
        # With no terms, the sum must still be a differentiable tensor.
        nothing = 0.0 * picture.sum()
        values = {
            name: sum((term.weight * self._loss(term, found[term.tap]) for term in some), start=nothing)
            for name, some in self.terms.items()
        }
        values |= {name: loss(picture) for name, loss in self.direct.items()}
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
    """The content loss at each of `taps`, with `weight` divided equally among them.

    `scale` is "relative" to divide by the content's mean square, "tutorial" for the plain mean square, or
    "published" for half the sum of squares at each tap, with the full weight (Gatys et al. 2016, eq. 1).
    Raises UsageError if `taps` is empty.
    """
    if not taps:
        raise UsageError(
            "content_layers needs at least one tap; set content_weight to 0 to disable the content loss"
        )
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
    """The loss `kind` for a style (1, 3, H, W): one term for each tap in `shares`, weighted by its share.

    `seen` is the style's alpha (1, 1, H, W): only visible pixels count.
    """
    found = encoder(style, list(shares))
    return [
        Term(tap, share, statistics_loss(kind, found[tap], scale=scale, seen=seen), statistic=True)
        for tap, share in shares.items()
    ]


def statistics_loss(
    kind: Statistics, target: Tensor | Gaussian, *, scale: Scale = "relative", seen: Tensor | None = None
) -> Any:
    """The loss `kind` for the style's features (1, C, H, W) at one tap.

    `scale` is that of `GramLoss`; the other losses only distinguish "relative" from the rest. `seen` is the
    style's alpha (1, 1, H, W).
    """
    weight = None if isinstance(target, Gaussian) else weight_at(seen, (target.shape[-2], target.shape[-1]))
    if kind == "moments":
        return MomentLoss(target, relative=scale == "relative", weight=weight)
    if kind == "wasserstein":
        return WassersteinLoss(target, relative=scale == "relative", weight=weight)
    return GramLoss(target, centred=kind == "centred-gram", scale=scale, weight=weight)
