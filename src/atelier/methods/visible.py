"""Helpers for pictures with an alpha channel: cache keys and the colours of visible pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atelier import colour, maths
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.store import cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atelier.methods.base import Job


def key_parts(style: torch.Tensor, seen: torch.Tensor | None) -> tuple[torch.Tensor | str, ...]:
    """The parts of a cache key that identify a style: the picture and, as text, its alpha.

    The alpha is text because a style file matches only keys whose sole tensor is its own picture.
    """
    return (style,) if seen is None else (style, str(cache.key("seen", seen)))


def visible_part(job: Job, index: int = 0) -> torch.Tensor:
    """A style (1, 3, H, W) cropped to the bounding box of its visible pixels, for methods that copy patches.

    A transparent border has nothing to copy; holes inside keep the nearest visible colour.
    """
    style, seen = job.styles[index], job.looks.seen[index]
    if seen is None or not bool((seen > 0).any()):
        return style
    rows, columns = ((seen[0, 0] > 0).any(dim).nonzero()[:, 0] for dim in (1, 0))
    return style[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def lend_visible_colours(
    job: Job,
    picture: torch.Tensor,
    strength: float = 1.0,
    *,
    swatches: Sequence[torch.Tensor] = (),
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`colour.lend_colours` for a job: hidden pixels of the photo and the styles are ignored.

    `swatches` are pictures of the colours of the job's texts; without them, the share of the texts keeps the
    picture's own colours.
    """
    styles = [maths.visible_pixels(one, a) for one, a in zip(job.styles, job.looks.seen, strict=True)]
    styles += swatches
    return colour.lend_colours(picture, styles, _parts(job, picture)[: len(styles)], strength, out=out)


def detail_statistics(job: Job, styles: Sequence[torch.Tensor] | None = None) -> list[list[torch.Tensor]]:
    """`colour.covariances` of each style's visible part; `styles` are the job's at another size."""
    looks = zip(styles or job.styles, job.looks.seen, strict=True)
    return [
        colour.covariances(one, None if a is None else resize(a, (one.shape[-2], one.shape[-1])))
        for one, a in looks
    ]


def lend_statistics(
    job: Job,
    picture: torch.Tensor,
    strength: float = 1.0,
    *,
    colours: bool = True,
    detail: Sequence[Sequence[torch.Tensor]] | None = None,
    swatches: Sequence[torch.Tensor] = (),
    rounds: int = 2,
    calm: float = 0.0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """A picture (1, 3, H, W) with the styles' statistics of colour and of detail, as far as `strength`; 0..1.

    `colours` asks for the mean and covariance of colours, `detail` for these `detail_statistics`, in so many
    `rounds`; by `calm`, detail first recedes where the photo is flat (`colour.lend_bands`). Texts come after
    the style pictures: `swatches` holds their colours, and `detail` their statistics. `out`, which may be the
    picture itself, may hold the result if the strength is 1.
    """
    lent, out = picture, out if strength == 1 else None
    if colours:
        lent = out = lend_visible_colours(job, lent, swatches=swatches, out=out)
    if detail is not None:
        guide = (job.content, calm) if calm else None
        lent = colour.lend_bands(lent, detail, _parts(job, picture), rounds=rounds, guide=guide, out=out)
    return lent if strength == 1 else torch.lerp(picture, lent, strength)


def _parts(job: Job, picture: torch.Tensor) -> Sequence[float] | torch.Tensor:
    """The weights of styles and texts, or their shares of every visible pixel."""
    weights = [*job.style_weights, *job.text_weights]
    parts: Sequence[float] | torch.Tensor = weights if job.regions is None else job.regions
    seen = job.content_seen
    if seen is not None and bool((seen > 0).any()):
        shares = torch.stack([seen[0] * one for one in parts])
        parts = shares.to(picture)
    return parts
