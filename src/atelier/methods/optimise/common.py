"""Shared code of the methods that optimise the picture: the encoder, knobs and the objective.

`coarse_to_fine.py` loops over the sizes, `maths/descent.py` runs the optimiser, and `losses/` contains the
losses; each method's own file defines its objective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from atelier import features
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Job, Method
from atelier.methods.optimise.coarse_to_fine import DescentKnobs, shares, size_of, style_at
from atelier.store import weights
from atelier.store.models import kept

if TYPE_CHECKING:
    from atelier.losses.objective import Objective, Term

    #: Makes the terms of one style (1, 3, H, W), already scaled for the picture, and its alpha, which may
    #: have any size; the weights of the terms sum to 1.
    Terms = Callable[[torch.Tensor, torch.Tensor | None], Iterable[Term]]

Statistics = Literal["gram", "centred-gram", "moments", "wasserstein"]
Scale = Literal["relative", "tutorial", "published"]

#: Optimiser settings by quality.
EFFORTS: Mapping[str, Mapping[str, Any]] = {
    "draft": {"iterations": 12, "coarse_iterations": 36},
    "good": {},
    "best": {"iterations": 200, "coarse_iterations": 300},
}
#: Settings shared by the published code of 2015 to 2017, for `--quality published`.
PLAIN: Mapping[str, Any] = {
    "encoder": "vgg19.imagenet",
    "padding": "zeros",
    "half": False,
    "optimiser": "lbfgs",
    "smallest": 100_000,
    "smoothness": 0.0,
}


class _Optimising(Method):
    """A method that differentiates through an encoder; subclasses implement `paint`."""

    def weights(self, knobs: Any) -> Sequence[str]:
        files: Sequence[str] = knobs.files()
        return files

    def transfer(self, job: Job, knobs: Any) -> torch.Tensor:
        # Tensors created in a caller's inference mode do not support autograd.
        with torch.inference_mode(False):
            dtype = job.dtype if knobs.half else torch.float32
            version = weights.fingerprint(knobs.encoder)
            encoder = _encoder(knobs.encoder, version, knobs.padding, knobs.pooling, job.device, dtype)
            return self.paint(job, knobs, encoder)

    def paint(self, job: Job, knobs: Any, encoder: features.VGG) -> torch.Tensor:
        """The picture, (1, 3, H, W) of the content's size; every subclass defines it."""
        raise NotImplementedError


@kept
def _encoder(
    name: str, fingerprint: str, padding: Any, pooling: Any, device: torch.device, dtype: torch.dtype
) -> features.VGG:
    return features.load(name, padding=padding, pooling=pooling).prepare(device, dtype)


class StyleKnobs(DescentKnobs):
    """The knobs of a method that matches the style at some taps of the encoder."""

    style_layers: tuple[str, ...] = knob(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "Taps of the style loss."
    )
    style_layer_weights: tuple[float, ...] = knob((), "Weight of each style tap; equal by default.")
    smoothness: float = knob(1.0, "Weight of total variation, which suppresses grain.", ge=0)

    def style_shares(self) -> dict[str, float]:
        """The weight of each style tap, summing to 1. Raises UsageError if the two knobs do not match."""
        return shares(self.style_layers, self.style_layer_weights)


class ContentKnobs(StyleKnobs):
    """The knobs of a method that balances the style against the content's features."""

    content_layers: tuple[str, ...] = knob(("relu4_1",), "Taps of the content loss.")
    style_weight: float = knob(1.0, "Weight of the style.", ge=0)
    content_weight: float = knob(0.03, "Weight of the content's features.", ge=0)


def style_strength(job: Job, weight: float = 1.0) -> float:
    """The weight of all styles together; squared, the effect of strength is roughly linear."""
    return weight * job.strength**2


def style_terms(job: Job, content: torch.Tensor, terms: Terms, *, weight: float = 1.0) -> list[Term]:
    """The terms of all styles with a weight, scaled down by the same factor as the content."""
    whole = style_strength(job, weight)
    with torch.no_grad():
        return [
            replace(term, weight=whole * share * term.weight)
            for share, style, seen in zip(job.style_weights, job.styles, job.looks.seen, strict=True)
            if share
            for term in terms(style_at(job, style, size_of(content)), seen)
        ]


def style_and_content(
    job: Job,
    knobs: ContentKnobs,
    encoder: features.VGG,
    content: torch.Tensor,
    terms: Terms,
    *,
    scale: Scale = "relative",
    more: Sequence[Term] = (),
    direct: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
) -> Objective:
    """The objective at the content's size: the styles' `terms`, the content's features, smoothness.

    `more` are further terms of style with their final weights, and `direct` further losses of the picture.
    Statistics ignore hidden pixels of the content and the styles.
    """
    from atelier.losses.objective import Objective, content_terms

    style = [*style_terms(job, content, terms, weight=knobs.style_weight), *more]
    with torch.no_grad():
        kept = content_terms(encoder, content, knobs.content_layers, knobs.content_weight, scale=scale)
    return Objective(
        encoder,
        {"style": style, "content": kept},
        direct=direct,
        smoothness=knobs.smoothness,
        seen=job.content_seen,
    )
