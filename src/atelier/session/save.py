"""Style files: a style picture together with the features that a method computes from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atelier import images
from atelier.core import device as devices
from atelier.core.lazy import torch
from atelier.images import Picture
from atelier.methods import registry
from atelier.methods.base import Context, Frame, Job
from atelier.session.controls import by_quality, settle
from atelier.session.inputs import Anything, Inputs, open_files
from atelier.session.run import style_tensors, threads
from atelier.store import cache


def save(
    style: Anything, target: Path, *, method: str | None, overwrite: bool, settings: dict[str, Any]
) -> None:
    """Write the style file; see `atelier.save_style`."""
    images.check_style_writable(target, overwrite=overwrite)
    kind = registry.find(method or by_quality("good"))
    controls, knobs, memory = settle(kind, "good", settings)
    device = devices.choose(controls.device)
    picture = Picture.of(style, max_pixels=controls.max_pixels or images.MAX_PIXELS)
    side = controls.size or kind.sizes["good"]
    files = open_files(kind.Knobs, knobs, memory, controls.max_pixels or images.MAX_PIXELS)
    inputs = Inputs(content=None, styles=[picture], weights=[1.0])
    styles = style_tensors(inputs, kind().style_side(knobs, side), controls.style_scale, device)
    context = Context(device, devices.compute_dtype(device), controls.seed, side, files)
    job = Job.of(styles, context, Frame(torch.zeros((1, 3, side, side), device=device)))
    with threads(controls.threads), cache.recording() as entries:
        kind().look(job, knobs)
    images.write_style(picture, target, entries, overwrite=overwrite)
