"""Style copy: the painting at the photo's size, which has all of the style and none of the content.

A baseline for evaluations, without a paper: the other end of the scales from the identity. The painting
keeps its proportions and is cropped to those of the photo.
"""

from __future__ import annotations

from atelier.core.knobs import Knobs as AnyKnobs
from atelier.core.lazy import torch
from atelier.images.resize import resize
from atelier.methods.base import Job, Method, Paper


class StyleCopy(Method):
    """Return the painting, cropped to the size of the photo: all of the style and none of the content."""

    name = "style_copy"
    paper = Paper("Nobody", 2024, "The painting itself", "https://en.wikipedia.org/wiki/Constant_function")

    class Knobs(AnyKnobs):
        """This method has no knobs."""

    def transfer(self, job: Job, knobs: StyleCopy.Knobs) -> torch.Tensor:
        picture = _covering(job.styles[0], (job.content.shape[-2], job.content.shape[-1]))
        job.progress.report(1, 1, stage="copy", preview=lambda: picture)
        return picture


def _covering(style: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The largest centred crop of the style (1, 3, H, W) with the proportions of `size`, at `size`."""
    height, width = style.shape[-2:]
    scale = min(height / size[0], width / size[1])
    tall, wide = (max(1, min(n, round(side * scale))) for n, side in zip((height, width), size, strict=True))
    top, left = (height - tall) // 2, (width - wide) // 2
    return resize(style[..., top : top + tall, left : left + wide], size)
