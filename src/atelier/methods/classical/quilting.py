"""Quilting: rebuild the photo from square blocks of the style, cut along minimum-error seams.

Each block is chosen to match its neighbours in the overlap and the photo in luminance. As in the paper,
several passes use smaller and smaller blocks, and the weight of the existing result increases from pass to
pass relative to the photo.

Differences from the paper: block sizes scale with the picture, so that a larger picture is not made of
relatively smaller blocks, and decrease to `smallest` in equal ratios instead of by a third. Colours guide the
choice as well as luminance, with a higher weight than published, to preserve faces. The search uses a small
copy of the style and compares only the best candidates at full size. Seams are slightly blended. With
`guidance` 0 the method is the paper's texture synthesis, which ignores the photo.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import to_array, to_tensor
from atelier.methods.base import Job, Method, Paper, Takes
from atelier.methods.visible import visible_part

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


class Quilting(Method):
    """Rebuild the photo from blocks of the style, cut along minimum-error seams."""

    name = "quilting"
    paper = Paper(
        "Efros & Freeman",
        2001,
        "Image quilting for texture synthesis and transfer",
        "https://doi.org/10.1145/383259.383296",
    )

    class Knobs(AnyKnobs):
        """The blocks, and the guidance by the photo."""

        guidance: float = knob(
            5.0,
            "Weight of the photo as a guide; 1 is as published, 0 a texture that ignores the photo.",
            ge=0,
            le=100,
        )
        guide: Literal["lightness", "colours"] = knob(
            "colours", "What guides the synthesis: the luminance of the photo, or its colours too."
        )
        block: float = knob(
            48.0, "Block size of the first pass, in pixels at a long side of 512.", ge=4, le=512
        )
        smallest: float = knob(
            12.0, "Block size of the last pass, in pixels at a long side of 512.", ge=4, le=512
        )
        passes: int = knob(4, "Number of passes, from large blocks to small ones.", ge=1, le=12)
        blur: float = knob(
            1.0, "Blur of the correspondence maps, in pixels at a long side of 512.", ge=0, le=32
        )
        softness: float = knob(
            1.0,
            "Width of the blend along each seam, in pixels at a long side of 512; 0 is a hard cut.",
            ge=0,
            le=8,
        )
        tolerance: float = knob(
            0.1, "Tolerance: pick among blocks with at most 1 + this times the least error.", ge=0, le=2
        )

    qualities = {  # noqa: RUF012
        "draft": {"passes": 3},
        "good": {},
        "best": {"passes": 6},
        "published": {"guidance": 1.0, "guide": "lightness", "softness": 0.0},
    }
    sizes = {"draft": 512, "good": 1024, "best": 2048}  # noqa: RUF012

    takes = Takes(content="optional")

    def transfer(self, job: Job, knobs: Quilting.Knobs) -> torch.Tensor:
        from atelier.patches.guides import guides
        from atelier.patches.quilting import Quilt, starts

        photo, style = (to_array(picture) for picture in (job.content, visible_part(job)))
        unit = max(photo.shape[:2]) / 512
        goal, guide = guides(photo, style, knobs.guide, blur=knobs.blur * unit, seed=job.seed)
        quilt = Quilt(
            style, goal, guide, tolerance=knobs.tolerance, softness=knobs.softness * unit, seed=job.seed
        )
        guidance = 0.0 if job.blank else knobs.guidance
        sides, done, picture = _sides(knobs, unit), 0, photo
        total = sum(len(starts(photo.shape[0], side)) for side in sides)
        for index, side in enumerate(sides):
            # Equation of section 4: 0.1 in the first pass, 0.9 in the last.
            alpha = 0.1 + 0.8 * index / max(1, len(sides) - 1)
            for picture in quilt.sew(side, seams=alpha, guidance=guidance * (1 - alpha)):
                done += 1
                if not job.progress.report(
                    done, total, stage=f"blocks of {side} px", preview=partial(to_tensor, picture)
                ):
                    break
            if job.progress.stopped:
                break
        return to_tensor(picture).to(job.device)


def _sides(knobs: Quilting.Knobs, unit: float) -> list[int]:
    """The block size of each pass, in pixels."""
    ratio = (min(knobs.smallest, knobs.block) / knobs.block) ** (1 / max(1, knobs.passes - 1))
    return [max(4, round(knobs.block * unit * ratio**index)) for index in range(knobs.passes)]
