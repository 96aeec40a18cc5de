"""Palette: soften the photo and give it the painting's colours. Copy this file to make a method.

Put the copy in a family's folder (`methods/classical/my_method.py`) or in any folder listed in the
environment variable ATELIER_METHODS. No other registration is needed: the registry, the command's flags,
the docs and the contract tests find it there. The family is the folder's name.

This docstring describes the method in two sentences, names the paper, and states each difference from the
paper and its reason. Here: Pitié & Kokaram map the colours of a picture linearly; this method also softens
the photo, because brushes are wider than pixels.
"""

from __future__ import annotations

from atelier.colour import match_moments
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch  # loaded on first use, so that listing methods stays fast
from atelier.images.resize import resize
from atelier.methods.base import Job, Method, Paper


class Palette(Method):
    """Soften the photo and move its colours to those of the painting."""  # shown in lists

    name = "palette"  # lower case and unique
    paper = Paper(
        "Pitié & Kokaram",
        2007,
        "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer",
        "https://doi.org/10.1049/cp:20070055",
    )

    class Knobs(AnyKnobs):
        """One entry per knob: default, help, range. Flags, sliders and docs are generated from it."""

        softness: float = knob(2.0, "Size of details to remove, in pixels; 1 keeps all.", ge=1, le=64)

    # The knobs that `--quality` sets, besides the size. Every method has these three; add your own.
    qualities = {"draft": {"softness": 4.0}, "good": {}, "best": {}}  # noqa: RUF012

    # A method with weights names them here, for the recipe:
    # def weights(self, knobs): return (knobs.encoder,)

    def transfer(self, job: Job, knobs: Palette.Knobs) -> torch.Tensor:
        """The picture, (1, 3, H, W) in 0..1, of the content's size, on the job's device.

        Content and styles are float32 sRGB in 0..1. Strength, several styles, colour and mask are handled
        outside the method; list in `native` those that the method handles better itself.
        """
        height, width = job.content.shape[-2:]
        small = (max(1, round(height / knobs.softness)), max(1, round(width / knobs.softness)))
        soft = resize(resize(job.content, small), (height, width))
        picture = match_moments(soft, job.styles[0]).clamp(0, 1)
        # Report after each step, so that the listener can show the picture or stop the run. When `report`
        # returns False, an iterative method leaves its loop and returns its best picture so far.
        job.progress.report(1, 1, stage="colours", preview=lambda: picture)
        return picture
