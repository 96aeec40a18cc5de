"""Filters: sixteen published image filters that imitate brush, pen, print, mosaic and stained glass.

No style picture is needed: the look defines the style. Sizes scale with the picture, so that a look is the
same at 512 and at 4096 pixels. The papers are cited in the code of each look (`atelier/looks`). Differences
from them: all lines follow one smoothed structure tensor, and drawn looks adjust the exposure first, because
fixed thresholds do not fit unadjusted photos.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.maths.layout import to_array
from atelier.methods.base import Job, Method, Paper, Takes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from atelier.looks.base import Floats, Hand

Look = Literal[
    "oil",
    "watercolour",
    "ink-wash",
    "kuwahara",
    "anisotropic-kuwahara",
    "bilateral-cartoon",
    "guided-cartoon",
    "xdog",
    "flow-lines",
    "pencil",
    "cross-hatching",
    "halftone",
    "stipple",
    "linocut",
    "stained-glass",
    "mosaic",
]


class Filters(Method):
    """Give the photo one of sixteen looks: oil, watercolour, pencil, halftone, mosaic and more."""

    name = "filters"
    paper = Paper(
        "Kyprianidis, Collomosse, Wang & Isenberg",
        2013,
        'State of the "art": a taxonomy of artistic stylization techniques for images and video',
        "https://doi.org/10.1109/TVCG.2012.160",
    )
    native = frozenset({"styles", "regions"})  # the result does not depend on the styles
    takes = Takes(least=0)

    class Knobs(AnyKnobs):
        """The look and its parameters."""

        look: Look = knob("oil", "The look.")
        coarseness: float = knob(
            1.0, "Size of brush, line, dot or tile, relative to the default of the look.", ge=0.25, le=8
        )
        lines: float = knob(1.0, "Weight of outlines, dark edges, lead and grout; 0 for none.", ge=0, le=3)
        surface: float = knob(1.0, "Texture of paper, canvas or roller; 0 is smooth.", ge=0, le=3)
        inks: Literal["own", "black", "colour"] = knob(
            "own",
            "Ink of drawn and printed looks: black, the colours of the picture, or the look's own.",
        )

    sizes = {"draft": 640, "good": 1024, "best": 2048}  # noqa: RUF012

    def transfer(self, job: Job, knobs: Filters.Knobs) -> torch.Tensor:
        from atelier.looks.base import Hand

        image = to_array(job.content)
        hand = Hand(
            # Lines and dots of less than a pixel would vanish, so small pictures are drawn coarser.
            unit=max(max(image.shape[:2]) / 1024 * knobs.coarseness, 0.4),
            lines=knobs.lines,
            surface=knobs.surface,
            inks=knobs.inks,
            seed=job.seed % 2**31,
        )
        made = looks()[knobs.look](image, hand)
        picture = torch.from_numpy(made.transpose(2, 0, 1)[None].copy()).to(job.device)
        job.progress.report(1, 1, stage=knobs.look, preview=lambda: picture)
        return picture


def looks() -> Mapping[str, Callable[[Floats, Hand], Floats]]:
    """The function of each look, by name."""
    from atelier.looks import drawn as looks_drawn
    from atelier.looks import painted as looks_painted
    from atelier.looks import pieced as looks_pieced
    from atelier.looks import printed as looks_printed

    return {
        "oil": looks_painted.oil,
        "watercolour": looks_painted.watercolour,
        "ink-wash": looks_painted.ink_wash,
        "kuwahara": looks_painted.plain_kuwahara,
        "anisotropic-kuwahara": looks_painted.flowing_kuwahara,
        "bilateral-cartoon": looks_painted.bilateral_cartoon,
        "guided-cartoon": looks_painted.guided_cartoon,
        "xdog": looks_drawn.brush_drawing,
        "flow-lines": looks_drawn.line_drawing,
        "pencil": looks_drawn.pencil,
        "cross-hatching": looks_drawn.cross_hatching,
        "halftone": looks_printed.halftone,
        "stipple": looks_printed.stippling,
        "linocut": looks_printed.linocut,
        "stained-glass": looks_pieced.stained_glass,
        "mosaic": looks_pieced.mosaic,
    }
