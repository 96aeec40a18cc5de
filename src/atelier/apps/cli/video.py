"""The command that paints a clip."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from atelier.apps import arguments
from atelier.apps.cli.entry import Entry, Flags
from atelier.apps.failures import INTERRUPTED

if TYPE_CHECKING:
    from atelier.apps.show import Watch
    from atelier.core.progress import Event, Listener
    from atelier.video.run import Made

#: Seconds between two pictures of a preview.
_EVERY = 2.0


def video(
    clip: arguments.ClipFile,
    style: arguments.Styles = None,
    text: arguments.Texts = None,
    output: arguments.VideoOutput = None,
    method: arguments.MethodName = None,
    quality: arguments.Quality = "good",
    steady: arguments.Steady = None,
    mask: arguments.Mask = None,
    rate: arguments.Rate = None,
    codec: arguments.CodecName = None,
    crf: arguments.Crf = None,
    sound: arguments.Sound = True,
    preview: arguments.Preview = None,
    resume: arguments.Resume = False,
    no_receipt: arguments.NoReceipt = False,
    overwrite: arguments.Overwrite = False,
    as_json: arguments.Json = False,
    **settings: Any,
) -> None:
    from atelier.apps.flags import given
    from atelier.apps.show import Clock, watching
    from atelier.images import check_writable
    from atelier.video.run import STEADY, stylize_video

    styles = style or []
    target = output or _named(clip, Path(styles[0]).stem if styles else method or quality)
    if preview is not None:
        check_writable(preview, overwrite=True)
    clock = Clock()
    with watching(quiet=as_json) as watch:
        made = stylize_video(
            clip,
            styles,
            target,
            text=text or None,
            method=method,
            quality=quality,
            mask=mask,
            steady=STEADY if steady is None else steady,
            rate=rate,
            codec=codec,
            crf=crf,
            sound=sound,
            resume=resume,
            overwrite=overwrite,
            progress=watch if preview is None else _previewing(watch, preview),
            **given(settings),
            **({"receipt": "none"} if no_receipt else {}),
        )
    finished(made, clock.seconds, watch, as_json)


def _named(clip: Path, style: str) -> Path:
    """The output's default name: the same kind of file as the clip, as far as it can be written."""
    from atelier.video.codecs import ANIMATED, VIDEOS

    if clip.is_dir():
        return Path(f"{clip.name}-{style}")
    suffix = clip.suffix.lower() if clip.suffix.lower() in (*VIDEOS, *ANIMATED) else ".mp4"
    return Path(f"{clip.stem}-{style}{suffix}")


def _previewing(watch: Watch, path: Path) -> Listener:
    """The listener `watch`, which also writes the newest frame to `path` every few seconds."""
    from atelier.images import Picture, write

    due = 0.0

    def listen(event: Event) -> bool:
        nonlocal due
        if event.preview is not None and time.monotonic() >= due:
            write(Picture.from_tensor(event.preview()), path, overwrite=True)
            due = time.monotonic() + _EVERY
        return watch(event)

    return listen


def finished(made: Made, seconds: float, watch: Watch, as_json: bool) -> None:
    """Say what was written; exit with 130 when it was stopped early."""
    from atelier.apps.show import emit, say

    facts = made.flicker.facts
    if as_json:
        width, height = made.size
        emit(
            {
                "output": str(made.path),
                "frames": made.frames,
                "width": width,
                "height": height,
                "scenes": made.scenes,
                "seconds": seconds,
                **facts,
                "interrupted": not made.complete,
                "recipe": made.recipe,
            }
        )
    else:
        scenes = "" if made.scenes == 1 else f"  {made.scenes} scenes"
        width, height = made.size
        say(f"{made.path}  {made.frames} frames  {width} x {height}{scenes}  {seconds:.1f} s")
        if made.flicker.pairs:
            say(
                f"flicker {facts['flicker']:.4f}, {facts['ratio']:.2f} times the clip's own "
                f"{facts['of_the_clip']:.4f}"
            )
        if not made.complete:
            say(f"stopped after frame {made.frames} of {made.total}: give --resume to go on")
    if not made.complete:
        raise typer.Exit(INTERRUPTED)


def _flags(words: Sequence[str]) -> Flags:
    from atelier.apps.cli.declared import inputs, method_of, settings

    kind = method_of(words)
    own = {name: one for name, one in inputs(kind).items() if name != "region"}
    return Flags(settings(kind), own)


COMMANDS = (Entry("video", "Paint a clip in the style of a painting, without flicker.", video, _flags),)
