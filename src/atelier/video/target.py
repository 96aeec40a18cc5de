"""Writes the finished frames: a video with the clip's sound and subtitles, an animation, or a folder."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from atelier import images
from atelier.core.atomic import atomic
from atelier.core.errors import AtelierError, OutputError, UsageError, first_line
from atelier.images import Picture, receipts
from atelier.video import animated, codecs
from atelier.video.source import Clip, Pixels, av, opened, pictures_of
from atelier.video.work import Work

#: FFmpeg's names of the containers.
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
#: Frames from which the palette of a GIF is chosen.
_SAMPLES = 12


@dataclass(frozen=True)
class Target:
    """Where the video goes, and whether the clip's sound and subtitles go with it."""

    path: Path
    clip: Clip
    sound: bool = True

    @property
    def kind(self) -> str:
        """What is written: a "video", an "animated" picture or a "folder" of pictures."""
        suffix = self.path.suffix.lower()
        return "video" if suffix in codecs.VIDEOS else "animated" if suffix else "folder"

    @property
    def copies(self) -> bool:
        """Whether streams of the clip are copied."""
        return self.sound and self.kind == "video" and self.clip.kind == "video"

    def check(self, *, overwrite: bool) -> None:
        """Raise the error that `write` would raise, before the work instead of after it."""
        known = (*codecs.VIDEOS, *codecs.ANIMATED)
        if self.path.suffix and self.path.suffix.lower() not in known:
            raise UsageError(
                f"'{self.path}' has no extension that can be written: use one of {', '.join(known)}, or a "
                "name without an extension for a folder of pictures"
            )
        if self.path.resolve() == self.clip.path.resolve():
            raise UsageError(f"'{self.path}' is the clip itself: choose another name")
        if not self.path.absolute().parent.is_dir():
            raise OutputError(
                f"the folder '{self.path.parent}' does not exist: create it, or write elsewhere"
            )
        taken = any(self.path.iterdir()) if self.path.is_dir() else self.path.exists()
        if taken and not overwrite:
            raise OutputError(f"'{self.path}' exists: choose another name or give --overwrite")
        if self.copies:
            _check_streams(self)

    def write(self, work: Work, recipe: dict[str, Any] | None, *, complete: bool = True) -> None:
        """Write the finished frames, with the recipe. Raises OutputError.

        Unless they are `complete`, sound ends with them.
        """
        writer = {"video": _write_video, "animated": _write_animated, "folder": _write_folder}[self.kind]
        try:
            writer(self, work, recipe, complete)
        except AtelierError:
            raise
        except Exception as error:
            raise OutputError(f"'{self.path}' cannot be written ({first_line(error)})") from error


def _end(work: Work) -> Fraction:
    """When the last finished frame ends, in seconds."""
    *_, (time, duration) = work.times()
    return time + duration


def _decoded(work: Work) -> Iterator[Pixels]:
    return chain.from_iterable(codecs.decode(part) for part in work.parts())


# videos


def _write_video(target: Target, work: Work, recipe: dict[str, Any] | None, complete: bool) -> None:
    options = {"movflags": "+faststart"} if _format(target) in ("mp4", "mov") else {}
    base = target.clip.tick
    with atomic(target.path) as beside, ExitStack() as open_files:
        out = open_files.enter_context(av().open(str(beside), "w", format=_format(target), options=options))
        parts = work.parts()
        first = next(parts)
        with av().open(str(first)) as container:
            stream = out.add_stream_from_template(container.streams.video[0])
        stream.time_base = base
        out.metadata.update({"comment": receipts.text(recipe)} if recipe else {})
        packets = [_pictures(chain([first], parts), work, stream, base)]
        if target.copies:
            source = open_files.enter_context(opened(target.clip.path))
            end = None if complete else _end(work)
            packets.append(_sounds(source, out, end))
        for _, _, packet in heapq.merge(*packets, key=lambda one: one[:2]):
            out.mux(packet)


def _format(target: Target) -> str:
    return _FORMATS[target.path.suffix.lower()]


def _pictures(
    parts: Iterator[Path], work: Work, stream: Any, base: Fraction
) -> Iterator[tuple[float, int, Any]]:
    """The packets of all parts, with the times of the clip's frames."""
    times = work.times()
    for part in parts:
        with av().open(str(part)) as container:
            for packet in container.demux(video=0):
                if packet.size:  # the last one is empty
                    time, duration = next(times)
                    packet.stream, packet.time_base = stream, base
                    packet.pts = packet.dts = round(time / base)
                    packet.duration = round((time + duration) / base) - packet.pts
                    yield float(time), 0, packet


def _sounds(source: Any, out: Any, end: Fraction | None) -> Iterator[tuple[float, int, Any]]:
    """The packets of the clip's sound and subtitles as they are, up to `end` (s) if it is given."""
    streams = {stream.index: out.add_stream_from_template(stream) for stream in _copied(source)}
    for index, copy in streams.items():
        copy.metadata.update(_named(source.streams[index].metadata))
    out.metadata.update(_named(source.metadata))

    def packets() -> Iterator[tuple[float, int, Any]]:
        last = 0.0
        for packet in source.demux([source.streams[index] for index in streams]) if streams else ():
            time = packet.dts if packet.dts is not None else packet.pts
            if time is None or not packet.size:
                continue
            last = max(last, float(time * packet.time_base))
            if end is None or last < end:
                packet.stream = streams[packet.stream.index]
                yield last, 1, packet

    return packets()


def _named(metadata: dict[str, str]) -> dict[str, str]:
    """What people read of a container or stream; the rest describes how it was encoded."""
    return {
        name: value for name, value in metadata.items() if name in ("title", "artist", "date", "language")
    }


def _copied(source: Any) -> Sequence[Any]:
    return [*source.streams.audio, *source.streams.subtitles]


def _check_streams(target: Target) -> None:
    """Raise UsageError if the clip's sound or subtitles do not fit into the target's container."""
    with opened(target.clip.path) as source:
        for stream in _copied(source):
            try:
                with av().open(io.BytesIO(), "w", format=_format(target)) as out:
                    out.add_stream_from_template(stream)
                    out.start_encoding()
            except Exception as error:
                raise UsageError(
                    f"{target.path.suffix} does not hold the clip's {stream.type} "
                    f"({stream.codec_context.name}): write to .mkv, or give --no-sound"
                ) from error


# animated pictures and folders


def _write_animated(target: Target, work: Work, recipe: dict[str, Any] | None, complete: bool) -> None:
    shown = list(work.times())
    times = [*(time for time, _ in shown), _end(work)]
    with atomic(target.path) as beside:
        if target.path.suffix.lower() == ".webp":
            animated.write_webp(beside, _decoded(work), times, receipts.exif(recipe))
        else:
            every = -(-work.done // _SAMPLES)
            samples = [one for index, one in enumerate(_decoded(work)) if index % every == 0]
            comment = receipts.text(recipe) if recipe else ""
            animated.write_gif(beside, _decoded(work), samples, times, comment)


def _write_folder(target: Target, work: Work, recipe: dict[str, Any] | None, complete: bool) -> None:
    """PNG files, named after the clip's pictures or by number."""
    target.path.mkdir(exist_ok=True)
    names = [path.stem for path in pictures_of(target.clip.path)] if target.clip.kind == "folder" else []
    for index, pixels in enumerate(_decoded(work)):
        name = names[index] if names else f"{index + 1:06}"
        picture = Picture(pixels.astype(np.float32) / np.float32(255), sha256="-", recipe=recipe)
        images.write(picture, target.path / f"{name}.png", overwrite=True)
