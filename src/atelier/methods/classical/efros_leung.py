"""Efros-Leung: grow a new picture from the style, pixel by pixel, by matching neighbourhoods.

The style is the sample and the content sets the size. `guidance` is the weight of the content's tones: with
0, the result is a texture that ignores the content.

Differences from the paper: the guidance; patches are continued unless another match is much better
(`coherence`, after Hertzmann et al. 2001), so that brush marks stay whole; and the picture is grown at a
small size (`grown`), because the time is proportional to the pixels of picture and sample. Every grown pixel
remembers its position in the style, so the full-size picture can be assembled from the full-size style and
is as sharp. `--quality published` is the paper's method if the canvas is no larger than `grown` and the style
no larger than `sample`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.images.resize import fit, resize
from atelier.maths.layout import to_array
from atelier.methods.base import Job, Method, Paper, Takes
from atelier.methods.visible import visible_part

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from atelier.patches.growing import Growth

    Floats = npt.NDArray[np.float32]


class EfrosLeung(Method):
    """Grow a picture from the style pixel by pixel, with adjustable guidance by the tones of the photo."""

    name = "efros_leung"
    paper = Paper(
        "Efros & Leung",
        1999,
        "Texture synthesis by non-parametric sampling",
        "https://doi.org/10.1109/ICCV.1999.790383",
    )

    class Knobs(AnyKnobs):
        """The guidance by the photo, and the neighbourhoods to match."""

        guidance: float = knob(
            1.0,
            "Weight of the photo as a guide; 0 is as published: a texture that ignores the photo.",
            ge=0,
            le=100,
        )
        guide: Literal["lightness", "colours"] = knob(
            "colours", "What guides the synthesis: the luminance of the photo, or its colours too."
        )
        window: int = knob(
            11, "Side of the neighbourhood that is compared, in pixels of the grown picture.", ge=3, le=41
        )
        tolerance: float = knob(
            0.1, "Tolerance: pick among matches with at most 1 + this times the least error.", ge=0, le=2
        )
        coherence: float = knob(1.0, "Tolerance for a patch that continues its neighbour's.", ge=0, le=20)
        grown: int = knob(192, "Long side at which the picture is grown.", ge=16, le=1024)
        sample: int = knob(128, "Largest long side of the style sample.", ge=8, le=1024)

    qualities = {  # noqa: RUF012
        "draft": {"grown": 128, "sample": 96},
        "good": {},
        "best": {"grown": 288, "sample": 192},
        "published": {"guidance": 0.0, "coherence": 0.0},
    }

    takes = Takes(content="optional")

    def transfer(self, job: Job, knobs: EfrosLeung.Knobs) -> torch.Tensor:
        from atelier.maths.compiled import floats
        from atelier.patches.growing import enlarged

        height, width = job.content.shape[-2:]
        canvas = fit((height, width), min(knobs.grown, max(height, width)))
        ratio = max(canvas) / max(height, width)
        source = visible_part(job)
        longest = max(source.shape[-2:])
        # Brush marks keep their size relative to the picture, unless the sample would exceed its limit.
        few = fit(_size(source), max(1, min(round(longest * ratio), knobs.sample)))
        full = fit(few, max(1, round(max(few) / ratio)))
        sample, style = (to_array(resize(source, size)) for size in (few, full))
        photo = None if job.blank or not knobs.guidance else to_array(resize(job.content, canvas))
        growth = _growth(canvas, photo, sample, knobs, job.seed)

        def picture() -> torch.Tensor:
            made = enlarged(_filled(growth), floats(style), few, (height, width))
            return torch.from_numpy(made.transpose(2, 0, 1)[None].copy()).clamp(0, 1).to(job.device)

        for done in growth.run():
            if not job.progress.report(done, canvas[0] * canvas[1], stage="growing", preview=picture):
                break
        return picture()


def _growth(
    canvas: tuple[int, int], photo: Floats | None, sample: Floats, knobs: EfrosLeung.Knobs, seed: int
) -> Growth:
    """The growth of a canvas (height, width), guided by a photo of that size, if there is one."""
    from atelier.patches.growing import Growth
    from atelier.patches.guides import guides

    goal, guide = None, None
    if photo is not None:
        goal, guide = guides(photo, sample, knobs.guide, blur=0.7, seed=seed)
    return Growth(
        sample,
        canvas,
        window=knobs.window,
        tolerance=knobs.tolerance,
        coherence=knobs.coherence,
        goal=goal,
        guide=guide,
        guidance=0.0 if photo is None else knobs.guidance,
        seed=seed,
    )


def _filled(growth: Growth) -> npt.NDArray[np.int32]:
    """The source of each pixel; pixels that are not grown yet continue the nearest one that is."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt

    empty = growth.source[..., 0] < 0
    if not empty.any():
        return growth.source
    near = distance_transform_edt(empty, return_distances=False, return_indices=True)
    limits = np.array(growth.planes.shape[1:]) - 1
    filled: npt.NDArray[np.int32] = growth.source[near[0], near[1]].clip(0, limits)
    return filled


def _size(picture: torch.Tensor) -> tuple[int, int]:
    height, width = picture.shape[-2:]
    return int(height), int(width)
