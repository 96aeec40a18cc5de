"""Identity: the photo as it is, which keeps all of the content and none of the style.

No paper proposes it; every table needs it. A method whose style distance is near the identity's has done
nothing, and one whose content score is near the identity's has kept everything, so it marks one end of both
scales.
"""

from __future__ import annotations

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.lazy import torch
from atelier.methods.base import Job, Method, Paper, Takes


class Identity(Method):
    """Leave the photo as it is: the baseline with all of the content and none of the style."""

    name = "identity"
    paper = Paper("Nobody", 2024, "The photo itself", "https://en.wikipedia.org/wiki/Identity_function")

    takes = Takes(least=0)

    class Knobs(AnyKnobs):
        """There is nothing to turn."""

    def transfer(self, job: Job, knobs: Identity.Knobs) -> torch.Tensor:
        job.progress.report(1, 1, stage="copy", preview=lambda: job.content)
        return job.content
