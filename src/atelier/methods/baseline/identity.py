"""Identity: the unchanged photo, which keeps all of the content and has none of the style.

A baseline for evaluations, without a paper. It marks one end of both scales: a method with a similar style
distance has no effect, and one with a similar content score preserves everything.
"""

from __future__ import annotations

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.lazy import torch
from atelier.methods.base import Job, Method, Paper, Takes


class Identity(Method):
    """Return the photo unchanged: the baseline with all of the content and none of the style."""

    name = "identity"
    paper = Paper("Nobody", 2024, "The photo itself", "https://en.wikipedia.org/wiki/Identity_function")

    takes = Takes(least=0)

    class Knobs(AnyKnobs):
        """This method has no knobs."""

    def transfer(self, job: Job, knobs: Identity.Knobs) -> torch.Tensor:
        job.progress.report(1, 1, stage="copy", preview=lambda: job.content)
        return job.content
