"""Harmonise: repaint an object that was pasted into a painting, so that it belongs there.

The mask shows the object. A method for whole pictures paints it with the statistics and patches of the rest
of the painting alone, or of the painting as it was before (`--style`), and only the object is replaced. The
task is that of Luan et al. 2018, "Deep Painterly Harmonization".

Differences from the paper, which optimises twice with losses of its own: any of five methods does the work,
by default the feed-forward NNST-D, which takes seconds; and the painting's colours are moved half of the way
to the object's before, because an object of one colour would otherwise lose it: a red rose would become as
green as the meadow. The edge fades into the painting, not into the pasted photo, whose rim would show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from atelier.core.errors import UsageError
from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.knobs import knob
from atelier.core.lazy import torch
from atelier.methods.base import Job, Method, Paper, Takes
from atelier.methods.composite import filled, without_object

if TYPE_CHECKING:
    from torch import Tensor

#: Deviation of colours below which an object counts as flat, as in `colour.lend_colours`.
_NOISE = 0.02


class Harmonise(Method):
    """Repaint an object that was pasted into a painting, so that it belongs there."""

    name = "harmonise"
    paper = Paper(
        "Luan, Paris, Shechtman & Bala",
        2018,
        "Deep Painterly Harmonization",
        "https://arxiv.org/abs/1804.03189",
    )
    takes = Takes(styles=frozenset({"picture"}), least=0, mask="required")

    class Knobs(AnyKnobs):
        """What paints the object, and in which colours."""

        engine: Literal["nnst_d", "nnst", "adain", "cap_vstnet", "gatys"] = knob(
            "nnst_d", "Method that paints the object; cap_vstnet changes its light and palette alone."
        )
        effort: Literal["draft", "good", "best"] = knob("good", "Quality of that method.")
        own_colours: float = knob(
            0.5, "How far the object keeps its own colours; 0 takes those of the painting.", ge=0, le=1
        )

    qualities = {  # noqa: RUF012
        "draft": {"engine": "adain"},
        "good": {},
        "best": {"engine": "nnst"},
    }
    sizes = {"draft": 768, "good": 1024, "best": 1024}  # noqa: RUF012

    def weights(self, knobs: Harmonise.Knobs) -> Sequence[str]:
        method, settings = _engine(knobs)
        return method.weights(settings)

    def transfer(self, job: Job, knobs: Harmonise.Knobs) -> Tensor:
        from atelier.images.regions import blend
        from atelier.maths import visible_pixels

        mask = torch.ones_like(job.content[:, :1]) if job.mask is None else job.mask
        inside = (mask >= 0.5).to(mask)
        style, seen = _painting(job, inside)
        method, settings = _engine(knobs)
        recoloured = _recoloured(style, seen, visible_pixels(job.content, inside), knobs.own_colours)
        work = replace(
            job,
            content=filled(job.content, inside),
            content_seen=inside,
            styles=[recoloured],
            style_weights=[1.0],
            styles_seen=[seen],
            mask=None,
        )
        painted = method.picture(work, settings)
        return blend(without_object(job.content, inside, style), painted, mask[0, 0])


def _engine(knobs: Harmonise.Knobs) -> tuple[Method, AnyKnobs]:
    """The method that paints, and its knobs."""
    from atelier.core.knobs import parse
    from atelier.methods import registry

    kind = registry.find(knobs.engine)
    return kind(), parse(kind.Knobs, registry.knobs_for(kind, knobs.effort, {}))


def _painting(job: Job, inside: Tensor) -> tuple[Tensor, Tensor | None]:
    """The painting (1, 3, H, W), and its alpha: the one that was given, or what surrounds the object."""
    if job.styles:
        return job.styles[0], job.looks.seen[0]
    outside = 1 - inside
    if not bool(outside.any()):
        raise UsageError(
            "the mask is white everywhere, so there is no painting round the object: paint only the object "
            "white, or give the painting with --background"
        )
    return filled(job.content, outside), outside


def _recoloured(style: Tensor, seen: Tensor | None, pixels: Tensor, share: float) -> Tensor:
    """The painting with its colours moved towards the mean and covariance of some pixels (1, 3, N, 1)."""
    from atelier.colour import match_moments

    if not share or not pixels.shape[2]:
        return style
    where = None if seen is None or not bool(seen.any()) else seen
    moved = match_moments(style, pixels, where=where, noise=_NOISE).clamp(0, 1)
    return torch.lerp(style, moved, share)
