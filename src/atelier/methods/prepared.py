"""The job that a method's `prepare` starts from: a run's styles without a picture."""

from __future__ import annotations

from atelier.core.lazy import torch
from atelier.methods.base import Context, Frame, Job, Styles


def style_job(styles: Styles, context: Context) -> Job:
    """A job without a picture: its content is a meta tensor with the run's long side and no data."""
    return Job.of(styles, context, Frame(torch.empty((1, 3, 1, context.size), device="meta")))
