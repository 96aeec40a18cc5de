"""Colour transfer: give the photo the colours of the painting and change nothing else.

A baseline for every style transfer, and often sufficient. There are six published methods, from two numbers
per channel to the whole distribution. Differences from the papers: sliced optimal transport estimates
quantiles from samples, and nonlinear colour maps (histogram, sliced) are smoothed within surfaces by a guided
filter, because they amplify the photo's grain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from atelier import colour
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods import in_words
from atelier.methods.base import Job, Method, Paper, Takes

Convert = Callable[["torch.Tensor"], "torch.Tensor"]


class Colour(Method):
    """Transfer the colours of the painting to the photo, by one of six published methods."""

    name = "colour"
    paper = Paper(
        "Pitié, Kokaram & Dahyot",
        2007,
        "Automated colour grading using colour distribution transfer",
        "https://doi.org/10.1016/j.cviu.2006.11.011",
    )

    takes = Takes(styles=frozenset({"picture", "text"}))

    class Knobs(AnyKnobs):
        """The colour transfer method and its settings."""

        transfer: Literal["monge-kantorovich", "reinhard", "pca", "coral", "histogram", "sliced"] = knob(
            "sliced", "Colour transfer: by moments, by channel, or of the whole distribution."
        )
        space: Literal["published", "rgb", "lab"] = knob(
            "published", "Colour space: the paper's (opponent colours for reinhard, else RGB), RGB or CIELAB."
        )
        iterations: int = knob(16, "Random projections in sliced transport.", ge=1, le=500)
        smoothness: float = knob(
            0.5, "Edge-aware smoothing of nonlinear colour maps, which suppresses grain.", ge=0, le=10
        )
        words: str = knob(in_words.DEFAULT, in_words.KNOB, file="weights")

    qualities = {"draft": {"iterations": 8}, "good": {}, "best": {"iterations": 40}}  # noqa: RUF012
    sizes = {"draft": 768, "good": 1024, "best": 2048}  # noqa: RUF012

    def text_weights(self, knobs: Colour.Knobs) -> Sequence[str]:
        return (knobs.words,)

    def reading(self, texts: Sequence[str], knobs: Colour.Knobs) -> str:
        return in_words.reading(texts, knobs.words)

    def transfer(self, job: Job, knobs: Colour.Knobs) -> torch.Tensor:
        style = _colours(job, knobs)
        picture = moved(job.content, style, knobs, job.seed).clamp(0, 1)
        job.progress.report(1, 1, stage="colours", preview=lambda: picture)
        return picture


def _colours(job: Job, knobs: Colour.Knobs) -> torch.Tensor:
    """A picture (1, 3, H, W) of the style's colours: the painting's visible part, or a swatch of words."""
    from atelier.features.words import load
    from atelier.maths import visible_pixels

    if job.texts:
        return load(knobs.words).predict(job.texts[0]).swatch.to(job.device)
    return visible_pixels(job.styles[0], job.looks.seen[0])


def moved(content: torch.Tensor, style: torch.Tensor, knobs: Colour.Knobs, seed: int) -> torch.Tensor:
    """The content (1, 3, H, W) in the style's colours, not clamped."""
    from atelier.colour import transfer as ways

    there, back = _space(knobs)
    image, reference = there(content), there(style)
    if knobs.transfer == "sliced":
        result = ways.sliced(image, reference, iterations=knobs.iterations, seed=seed)
    else:
        way = {
            "reinhard": ways.reinhard,
            "histogram": ways.match_histograms,
            "coral": ways.coral,
            "pca": ways.principal_axes,
            "monge-kantorovich": ways.monge_kantorovich,
        }[knobs.transfer]
        result = way(image, reference)
    picture = back(result).to(content)
    if knobs.transfer in ("histogram", "sliced"):
        radius = round(max(content.shape[-2:]) / 128)
        picture = ways.regularised(picture, content, radius=radius, strength=knobs.smoothness)
    return colour.confine(picture, style)


def _space(knobs: Colour.Knobs) -> tuple[Convert, Convert]:
    """The conversions to and from the colour space of the transfer."""
    from atelier.colour import transfer as ways

    if knobs.space == "lab":
        return colour.rgb_to_lab, colour.lab_to_rgb
    if knobs.space == "published" and knobs.transfer == "reinhard":
        return ways.to_opponent, ways.from_opponent
    return (lambda image: image), (lambda image: image)
