"""What a method's `prepare` starts from: a run's styles before its first picture."""

from __future__ import annotations

from atelier.core.lazy import torch
from atelier.methods.base import Context, Frame, Job, Styles


def style_job(styles: Styles, context: Context) -> Job:
    """A job with everything but the picture: its content has the run's long side and no values."""
    return Job.of(styles, context, Frame(torch.empty((1, 3, 1, context.size), device="meta")))
