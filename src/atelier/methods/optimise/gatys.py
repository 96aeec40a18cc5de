"""Gatys: optimise the image until its features have the content's layout and the style's statistics.

The style loss compares Gram matrices of an encoder's features, and the content loss the features themselves;
the picture is optimised from an initial image. Later methods are compared with this one.

Styles in words are an addition, alone or beside style pictures. A closed vocabulary (`words`) predicts the
statistics that a style picture would have; with a CLIP (`clip`), the directional losses of CLIPstyler (Kwon &
Ye 2022) lead the picture towards them instead.

Differences from the paper, which `--quality published` and `--quality tutorial` undo: coarse to fine, because
strokes larger than the encoder's receptive field never form at the final size; the Wasserstein distance of
Gaussians instead of Gram matrices, because it transfers the whole palette; replicate padding, because zero
padding leaves a visible border; each layer's loss relative to the style's magnitude, so that weights mean the
same for every encoder; Adam with averaged iterates, because bfloat16 gradients are too noisy for the history
of L-BFGS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from atelier import features
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods import guided, in_words
from atelier.methods.base import Job, Paper, Takes
from atelier.methods.optimise.coarse_to_fine import coarse_to_fine, size_of
from atelier.methods.optimise.common import (
    EFFORTS,
    PLAIN,
    ContentKnobs,
    Scale,
    Statistics,
    _Optimising,
    style_and_content,
    style_strength,
)

if TYPE_CHECKING:
    from atelier.features.clip import Tower
    from atelier.features.words import Prediction
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
    takes = Takes(styles=frozenset({"picture", "text"}))

    class Knobs(ContentKnobs):
        """The statistics to match, the scale of the losses, and what reads words."""

        style_loss: Statistics = knob("wasserstein", "Statistics to match.")
        scale: Scale = knob(
            "relative",
            "Scale of the losses: relative to their targets, or as in the tutorial or the paper.",
        )
        words: str = knob(in_words.DEFAULT, in_words.KNOB, file="weights")
        clip: str = knob(
            "",
            "CLIP that reads styles in words in place of that model: a name, such as clip_vit_b32.openai, "
            "or a file.",
            file="weights",
        )
        text_weight: float = knob(1.0, "Weight of styles in words that CLIP reads.", ge=0)

        def files(self) -> tuple[str, ...]:
            return (self.encoder, self.clip) if self.clip else (self.encoder,)

    qualities = {  # noqa: RUF012
        **EFFORTS,
        # So few steps leave much of the colours that the picture starts with.
        "draft": {**EFFORTS["draft"], "start": "recoloured"},
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

    def text_weights(self, knobs: Gatys.Knobs) -> Sequence[str]:
        return () if knobs.clip else (knobs.words,)

    def reading(self, texts: Sequence[str], knobs: Gatys.Knobs) -> str:
        return "" if knobs.clip else in_words.reading(texts, knobs.words)

    def paint(self, job: Job, knobs: Gatys.Knobs, encoder: features.VGG) -> torch.Tensor:
        texts = [] if knobs.clip else in_words.predictions(job, knobs.words, knobs.encoder)
        led = _led(job, knobs) if knobs.clip and job.texts else None
        objective = partial(objective_at, job, knobs, encoder, texts=texts, led=led)
        return coarse_to_fine(job, knobs, objective, rescale=knobs.scale == "relative")


#: Makes CLIP's losses towards the words from the content at one size.
Led = Callable[["torch.Tensor"], Mapping[str, Callable[["torch.Tensor"], "torch.Tensor"]]]


def objective_at(
    job: Job,
    knobs: Gatys.Knobs,
    encoder: features.VGG,
    content: torch.Tensor,
    *,
    texts: Sequence[Prediction] = (),
    led: Led | None = None,
) -> Objective:
    """The objective at the content's size: the styles' statistics and words, the content, smoothness.

    `texts` are the statistics of styles in words; with CLIP, `led` gives its losses towards them.
    """
    from atelier.losses.objective import statistics_terms

    def terms(style: torch.Tensor, seen: torch.Tensor | None) -> list[Term]:
        shares = knobs.style_shares()
        return statistics_terms(encoder, style, shares, knobs.style_loss, scale=knobs.scale, seen=seen)

    more = text_terms(job, knobs, content, texts) if texts else ()
    direct = led(content) if led is not None else None
    return style_and_content(job, knobs, encoder, content, terms, scale=knobs.scale, more=more, direct=direct)


def text_terms(
    job: Job, knobs: Gatys.Knobs, content: torch.Tensor, texts: Sequence[Prediction]
) -> list[Term]:
    """The terms of styles in words at the content's size: as those of pictures, from predicted statistics."""
    from atelier.losses.objective import Term, statistics_loss
    from atelier.maths import Gaussian

    side = job.style_scale * max(size_of(content))
    whole = style_strength(job, knobs.style_weight)
    found = []
    for text, share in zip(texts, job.text_weights, strict=True):
        for tap, part in knobs.style_shares().items():
            target = Gaussian(*(one.to(job.device) for one in text.gaussian(tap, side)))
            loss = statistics_loss(knobs.style_loss, target, scale=knobs.scale)
            found.append(Term(tap, whole * share * part, loss, statistic=True))
    return found


def _led(job: Job, knobs: Gatys.Knobs) -> Led:
    """CLIP's losses towards the styles in words, which are read once."""
    tower = guided.tower_of(knobs.clip, job.device, job.dtype if knobs.half else torch.float32)
    goals = guided.text_goals(tower, job.looks, guided.PHOTO)
    # Strength scales the weight as that of the style pictures.
    weight = knobs.text_weight * job.strength**2
    # The history of L-BFGS needs a fixed objective.
    generator = None if knobs.optimiser == "lbfgs" else torch.Generator().manual_seed(job.seed)
    return partial(_text_losses, tower, goals, weight, generator, job.seed)


def _text_losses(
    tower: Tower,
    goals: Sequence[guided.Goal],
    weight: float,
    generator: torch.Generator | None,
    seed: int,
    content: torch.Tensor,
) -> Mapping[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The directional losses of patches and of the whole, in CLIPstyler's proportion."""
    # The picture starts as the content, where the change of its encoding is 0.
    sight = guided.Sight(count=16, softness=0.1)
    led = guided.guidance(tower, content, goals, sight)

    def text(picture: torch.Tensor) -> torch.Tensor:
        patches = sight.patches(picture, generator or torch.Generator().manual_seed(seed))
        return weight * (0.95 * led.of_patches(picture, patches) + 0.05 * led.of_whole(picture))

    return {"text": text}
