"""Palette: soften the photo and give it the painting's colours. Copy this file to make a method.

Put the copy into a family's folder (`methods/classical/my_method.py`) or into any folder that the
environment variable ATELIER_METHODS names. Nothing else has to be told: the registry, the command's flags,
the docs and the contract tests find it there. The family is the folder's name.

This head says what the method does in two sentences, names the paper, and says what differs from it
and why. Here: Pitié & Kokaram map the colours of a picture linearly; the softening is added, because
brushes are wider than pixels.
"""

from __future__ import annotations

from atelier.colour import match_moments
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch  # loaded at first use: listing the methods must stay quick
from atelier.images.resize import resize
from atelier.methods.base import Job, Method, Paper


class Palette(Method):
    """Soften the photo and give it the colours of the painting."""  # what lists show

    name = "palette"  # lower case, as people say it; no two methods may share one
    paper = Paper(
        "Pitié & Kokaram",
        2007,
        "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer",
        "https://doi.org/10.1049/cp:20070055",
    )

    class Knobs(AnyKnobs):
        """Each knob once: default, sentence, range. Flags, sliders and docs are made from it."""

        softness: float = knob(2.0, "Details to lose, in pixels; 1 keeps them all.", ge=1, le=64)

    # What `--quality` sets beside the size. These three names are everywhere; add your own.
    qualities = {"draft": {"softness": 4.0}, "good": {}, "best": {}}  # noqa: RUF012

    # Weights that the knobs ask for would be named here, for the recipe:
    # def weights(self, knobs): return (knobs.encoder,)

    def transfer(self, job: Job, knobs: Palette.Knobs) -> torch.Tensor:
        """The picture, (1, 3, H, W) in 0..1, of the content's size, on the job's device.

        Content and styles come as float32 sRGB in 0..1. Strength, several styles, colour and mask are
        done outside for every method; `native` would say that this one does them better itself.
        """
        height, width = job.content.shape[-2:]
        small = (max(1, round(height / knobs.softness)), max(1, round(width / knobs.softness)))
        soft = resize(resize(job.content, small), (height, width))
        picture = match_moments(soft, job.styles[0]).clamp(0, 1)
        # An event after each step: the listener sees the picture so far and may stop the work. A method
        # of many steps ends its loop when `report` answers False, and returns the best it has.
        job.progress.report(1, 1, stage="colours", preview=lambda: picture)
        return picture
