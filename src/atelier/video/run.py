"""A clip's way: read, paint frame by frame, keep what is finished, and write it at the end."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from atelier import images
from atelier.core import recipe as recipes
from atelier.core.errors import Cancelled, UsageError
from atelier.core.progress import Listener, Progress
from atelier.images import Picture
from atelier.session.inputs import Anything
from atelier.session.stylizer import Stylizer
from atelier.video import codecs
from atelier.video.motion import Motion
from atelier.video.pipeline import Next, Pipeline
from atelier.video.source import Clip, Pixels, open_clip, pictures_of
from atelier.video.steady import Flicker, Painter
from atelier.video.target import Target
from atelier.video.work import Work

#: The weight of the last result where a place still looks the same.
STEADY = 0.95
#: Frames that are painted at the same time where the method allows it.
_AT_ONCE = 2


@dataclass(frozen=True)
class Made:
    """What `stylize_video` made.

    `frames` of `total` are written to `path` at `size` (width, height); `complete` if the end of the clip was
    reached. `flicker` compares the result's warping error over visible pixels with the clip's own.
    """

    path: Path
    frames: int
    total: int
    size: tuple[int, int]
    complete: bool
    scenes: int
    flicker: Flicker
    recipe: dict[str, Any]


def stylize_video(
    clip: str | Path,
    style: Anything | Sequence[Anything] | None = None,
    output: str | Path = "video.mp4",
    *,
    text: Any = None,
    method: str | None = None,
    quality: str = "good",
    mask: Anything | None = None,
    steady: float = STEADY,
    rate: float | str | None = None,
    codec: str | None = None,
    crf: int | None = None,
    sound: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    progress: Listener | None = None,
    **settings: Any,
) -> Made:
    """Paint every frame of a clip in the manner of the style, held steady by the motion between them.

    `clip` is a video file, an animated GIF, WebP or PNG, or a folder of pictures shown at `rate` frames per
    second. `output` ends in .mp4, .mov, .mkv, .webm, .gif or .webp; without an extension it is a folder of
    PNG files. Times are those of the clip; sound and subtitles are copied as they are, unless `sound` is
    False. `steady` 0..1 is the weight of the last result where a place still looks the same. `codec` and
    `crf` (lower is better) choose how a video is encoded. Style, method, quality and settings are those of
    `stylize`; sides are rounded to even numbers.

    Finished frames lie in a folder beside the output until the video is written; with `resume` a run that was
    ended goes on with the next frame. `progress` receives an event for each step of a frame and may return
    False to stop: what is finished is then written. Raises what `stylize` raises.

    >>> import numpy as np
    >>> from atelier import images
    >>> Path("frames").mkdir()
    >>> for number in (1, 2):
    ...     picture = Picture.of(np.full((32, 48, 3), number / 4))
    ...     images.write(picture, f"frames/{number}.png")
    >>> stylize_video("frames", output="made", method="identity").frames
    2
    """
    if not 0 <= steady <= 1:
        raise UsageError(f"steady = {steady} is not allowed: it is 0 to 1")
    source = open_clip(clip, None if rate is None else _rate(rate))
    target = Target(Path(output), source, sound)
    folder = target.path.with_name(f"{target.path.name}.parts")
    target.check(overwrite=overwrite or (resume and folder.exists()))
    encoder = codecs.codec_for(target.path, codec, crf)
    stylizer = Stylizer(style, text=text, method=method, quality=quality, **settings)
    asked = _asked(stylizer, source)
    size = _fix_size(stylizer, source, asked, even=target.kind == "video")
    work = Work(folder, encoder, source.rate, size)
    seen = _Seen(source, stylizer, size, asked, None if mask is None else Picture.of(mask, data=True))
    recipe = seen.recipe(steady, encoder)
    work.begin(recipe, resume=resume, overwrite=overwrite)
    seen = seen.sharing_threads()
    return _made(seen, target, work, Painter(seen.painted, steady), recipe, Progress(progress))


@dataclass(frozen=True)
class _Seen:
    """A clip, and the stylizer that sees its frames at `size` (height, width), made from the side `asked`.

    `at_once` is the number of frames that it paints at the same time.
    """

    clip: Clip
    stylizer: Stylizer
    size: tuple[int, int]
    asked: int
    mask: Picture | None
    at_once: int = 1

    def sharing_threads(self) -> _Seen:
        """The same, with the threads shared by the frames that are painted at the same time."""
        import torch

        setup = self.stylizer.setup
        threads = setup.controls.threads or torch.get_num_threads()
        if not setup.kind.frames_at_once or setup.device.type != "cpu" or threads < _AT_ONCE:
            return self
        stylizer = copy.copy(self.stylizer)
        controls = setup.controls.model_copy(update={"threads": threads // _AT_ONCE})
        stylizer.setup = replace(setup, controls=controls)
        return replace(self, stylizer=stylizer, at_once=_AT_ONCE)

    def resized(self, pixels: Pixels) -> Pixels:
        """A frame at the size of the result."""
        import cv2

        height, width = self.size
        if pixels.shape[:2] == self.size:
            return pixels
        shrinks = height * width < pixels.shape[0] * pixels.shape[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return cv2.resize(pixels, (width, height), interpolation=how)  # type: ignore[return-value]

    def painted(self, content: Picture, **context: Any) -> Picture:
        return self.stylizer(content, mask=self.mask, **context)

    def recipe(self, steady: float, encoder: codecs.Codec) -> dict[str, Any]:
        """Everything that determines the frames: a picture's recipe with the clip as its content."""
        blank = np.zeros((*self.size, 3), np.float32)
        content = Picture(blank, name=str(self.clip.path), sha256=digest(self.clip.path))
        request = self.stylizer.request(content, mask=self.mask).model_dump(mode="json", by_alias=True)
        rate = {"rate": str(self.clip.rate)} if self.clip.kind == "folder" else {}
        return {
            **request,
            "controls": {**request["controls"], "size": self.asked},
            "versions": recipes.versions(),
            "video": {
                "size": [self.size[1], self.size[0]],
                "steady": steady,
                "encoder": encoder.encoder,
                "crf": encoder.quality,
                **rate,
            },
        }


def _made(
    seen: _Seen, target: Target, work: Work, painter: Painter, recipe: dict[str, Any], watch: Progress
) -> Made:
    """Paint what is missing, and write what is finished."""
    try:
        complete = _paint(seen, painter, work, watch)
    finally:
        if not work.done:
            work.remove()
    state = work.state
    if state is None:
        raise Cancelled("stopped before the first frame was finished; nothing was written")
    kept = None if seen.stylizer.setup.controls.receipt == "none" else recipe
    target.write(work, kept and kept | {"flicker": state.flicker.facts}, complete=complete)
    if complete:
        work.remove()
    total = work.done if complete else max(seen.clip.frames, work.done)
    size = (seen.size[1], seen.size[0])
    return Made(target.path, work.done, total, size, complete, state.scenes, state.flicker, recipe)


def _paint(seen: _Seen, painter: Painter, work: Work, watch: Progress) -> bool:
    """Paint the frames that are not finished; whether the end of the clip was reached."""
    total = seen.clip.frames
    pipeline = Pipeline(painter, seen.at_once, lambda index: _steps(watch, index, total))
    with closing(pipeline.painted(_frames(seen, work.done), work.state)) as frames:
        for now, picture, state in frames:
            if watch.stopped:
                return False
            work.add(state, now.shot.time, now.shot.duration)
            if not _report(watch, now.index, total, 1.0, picture.tensor):
                return False
    return True


def _frames(seen: _Seen, done: int) -> Iterator[Next]:
    """The frames after the first `done`."""
    before: Pixels | None = None
    for index, shot in enumerate(seen.clip.shots()):
        if index < done - 1:
            continue
        pixels = seen.resized(shot.pixels)
        if index >= done:
            motion = None if before is None else Motion.between(before, pixels)
            yield Next(index, shot, pixels, motion)
        before = pixels


#: Units of progress for each frame.
_UNITS = 100


def _steps(watch: Progress, index: int, frames: int) -> Listener:
    """What listens to the steps of a frame."""
    return lambda event: _report(watch, index, frames, min(event.done / max(event.total, 1), 0.99))


def _report(watch: Progress, index: int, frames: int, part: float, preview: Any = None) -> bool:
    total = max(frames, index + 1)
    stage = f"frame {index + 1} of {total}"
    return watch.report(round((index + part) * _UNITS), total * _UNITS, stage=stage, preview=preview)


def _asked(stylizer: Stylizer, clip: Clip) -> int:
    """The long side that the settings ask for."""
    kind = stylizer.setup.kind
    usual = kind.sizes.get(stylizer.quality, kind.sizes["good"])
    return stylizer.setup.controls.size or min(usual, max(clip.size))


def _fix_size(stylizer: Stylizer, clip: Clip, asked: int, *, even: bool) -> tuple[int, int]:
    """(height, width) of the result, which becomes the size that the stylizer makes.

    Encoders store colour at half the size, so the sides of videos are even.
    """
    height, width = images.fit(clip.size, asked)
    if even:
        height, width = max(2, height - height % 2), max(2, width - width % 2)
    fixed = stylizer.setup.controls.model_copy(update={"size": max(height, width)})
    stylizer.setup = replace(stylizer.setup, controls=fixed)
    return height, width


def _rate(rate: float | str) -> Fraction:
    try:
        found = Fraction(str(rate)).limit_denominator(1001)
    except (ValueError, ZeroDivisionError):
        found = Fraction(0)
    if not 0 < found <= 1000:
        raise UsageError(f"rate = {rate} is not allowed: give frames per second, such as 24 or 30000/1001")
    return found


def digest(path: Path) -> str:
    """The sha256 of a clip; of a folder, that of its pictures' names, sizes and times."""
    if path.is_dir():
        files = [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in pictures_of(path)]
        return hashlib.sha256(repr(files).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
