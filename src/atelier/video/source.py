"""Clips: the frames of a video file, of an animated picture or of a folder of pictures, one after another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atelier.core import extras
from atelier.core.errors import AtelierError, InputError, first_line
from atelier.images import Picture, encode

Pixels = npt.NDArray[np.uint8]

#: Frames per second of a folder of pictures.
RATE = Fraction(24)
#: Extensions of animated pictures; others are opened as videos.
ANIMATED = (".gif", ".webp", ".png", ".apng")
_STILLS = {*encode.WRITABLE, ".bmp", ".avif", ".heic", ".heif"}
#: Transfer functions of high dynamic range: PQ (SMPTE 2084) and HLG (ARIB B67), by FFmpeg's numbers.
_HDR = {16: "PQ", 18: "HLG"}
#: FFmpeg's number for a colour space that the file does not name, and the height from which that is BT.709.
_UNSPECIFIED, _HD = 2, 720


@dataclass(frozen=True)
class Shot:
    """One frame: uint8 (H, W, 3) sRGB, upright; its time and duration in seconds."""

    pixels: Pixels
    time: Fraction
    duration: Fraction


@dataclass(frozen=True)
class Clip:
    """What is known of a clip before its frames are read.

    `size` is (height, width), upright and with square pixels. `frames` is the number of frames, 0 if the file
    does not say. `kind` is "video", "animated" or "folder". `tick` is the unit of its times in seconds.
    """

    path: Path
    kind: str
    size: tuple[int, int]
    rate: Fraction
    frames: int
    tick: Fraction

    def shots(self) -> Iterator[Shot]:
        """The frames in the order of their times. Raises InputError where the file is damaged."""
        reader = {"video": _video_shots, "animated": _animated_shots, "folder": _folder_shots}[self.kind]
        return _in_order(reader(self))


def open_clip(path: str | Path, rate: Fraction | None = None) -> Clip:
    """The clip at `path`: a video file, an animated GIF, WebP or PNG, or a folder of pictures.

    `rate` is the number of frames per second of a folder. Raises InputError with one sentence for what is
    missing, damaged, without frames, or of high dynamic range.
    """
    file = Path(path)
    if file.is_dir():
        return _folder(file, rate or RATE)
    if not file.is_file():
        raise InputError(f"'{path}' does not exist: give a video, an animated picture or a folder")
    if file.suffix.lower() in ANIMATED:
        return _animated(file)
    return _video(file)


def av() -> Any:
    """PyAV. Raises ResourceError if it is not installed."""
    found = extras.require("av", "video", "Video")
    found.logging.set_level(None)  # its messages are raised as errors; the rest is for programmers
    return found


# videos


def opened(path: Path) -> Any:
    """A container, to be closed by the caller. Raises InputError for what is no video."""
    try:
        return av().open(str(path))
    except AtelierError:
        raise
    except Exception as error:  # PyAV raises OSError, ValueError and classes of its own
        raise InputError(
            f"'{path}' cannot be opened as a video ({first_line(error)}): is it complete?"
        ) from error


def _video(path: Path) -> Clip:
    with opened(path) as container:
        stream = container.streams.best("video")
        if stream is None:
            raise InputError(f"'{path}' has no video in it: give a video, an animated picture or a folder")
        first = next(_decoded(path, container, stream), None)
        if first is None:
            raise InputError(f"'{path}' has no frame that can be decoded: is it complete?")
        if name := _HDR.get(int(first.color_trc)):
            raise InputError(
                f"'{path}' has high dynamic range ({name}), which painted colours cannot hold: "
                "convert it to standard range (SDR, BT.709) first"
            )
        rate = Fraction(stream.average_rate or stream.guessed_rate or RATE)
        known = stream.frames or (round(container.duration / 1e6 * rate) if container.duration else 0)
        return Clip(path, "video", _displayed(first, stream), rate, int(known), Fraction(stream.time_base))


def _displayed(frame: Any, stream: Any) -> tuple[int, int]:
    """(height, width) of a frame as it is shown: with square pixels, and upright."""
    aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    height, width = frame.height, max(1, round(frame.width * aspect))
    return (width, height) if frame.rotation % 180 else (height, width)


def _decoded(path: Path, container: Any, stream: Any) -> Iterator[Any]:
    stream.thread_type = "AUTO"
    try:
        yield from container.decode(stream)
    except Exception as error:
        raise InputError(f"'{path}' is damaged ({first_line(error)}): repair it or cut it before") from error


def _video_shots(clip: Clip) -> Iterator[Shot]:
    usual = 1 / clip.rate
    with opened(clip.path) as container:
        stream = container.streams.best("video")
        for frame in _decoded(clip.path, container, stream):
            base = Fraction(frame.time_base or stream.time_base)
            time = Fraction(-1) if frame.pts is None else frame.pts * base
            yield Shot(_upright(frame), time, frame.duration * base if frame.duration else usual)


def _upright(frame: Any) -> Pixels:
    hd = frame.colorspace == _UNSPECIFIED and frame.height >= _HD and not frame.format.is_rgb
    source = {"src_colorspace": "ITU709"} if hd else {}
    if any(part.is_alpha for part in frame.format.components):
        rgba = frame.reformat(format="rgba", **source).to_ndarray()
        pixels = _on_white(rgba)
    else:
        pixels = frame.reformat(format="rgb24", **source).to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _on_white(rgba: Pixels) -> Pixels:
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = (rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


# animated pictures


def _animated(path: Path) -> Clip:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            count = getattr(picture, "n_frames", 1)
            picture.load()
            total = sum(_durations(picture, count), Fraction(0))
            size = (picture.height, picture.width)
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise InputError(f"'{path}' is no picture that can be read: {first_line(error)}") from error
    if count < 2:
        raise InputError(f"'{path}' is a still picture: use 'atelier stylize'")
    return Clip(path, "animated", size, Fraction(count) / total, count, Fraction(1, 1000))


def _durations(picture: Any, count: int) -> Iterator[Fraction]:
    for index in range(count):
        picture.seek(index)
        picture.load()
        yield _duration(picture)


def _duration(picture: Any) -> Fraction:
    """The duration of the current frame in seconds; browsers show frames of less than 20 ms for 100 ms."""
    shown = picture.info.get("duration") or 0
    return Fraction(round(shown) if shown >= 20 else 100, 1000)


def _animated_shots(clip: Clip) -> Iterator[Shot]:
    from PIL import Image

    time = Fraction(0)
    try:
        with Image.open(clip.path) as picture:
            for index in range(clip.frames):
                picture.seek(index)
                pixels = _on_white(np.asarray(picture.convert("RGBA")))
                yield Shot(pixels, time, _duration(picture))
                time += _duration(picture)
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        raise InputError(f"'{clip.path}' is damaged: {first_line(error)}") from error


# folders


def pictures_of(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names: 2.png before 10.png."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in _STILLS and path.is_file()]
    return sorted(found, key=lambda path: _numbered(path.name))


def _numbered(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _folder(path: Path, rate: Fraction) -> Clip:
    files = pictures_of(path)
    if len(files) < 2:
        raise InputError(f"the folder '{path}' holds fewer than two pictures: a clip needs several")
    return Clip(path, "folder", Picture.open(files[0]).shape, rate, len(files), 1 / rate)


def _folder_shots(clip: Clip) -> Iterator[Shot]:
    for index, file in enumerate(pictures_of(clip.path)):
        pixels = np.asarray(Picture.open(file).pil().convert("RGBA"))
        yield Shot(_on_white(pixels), index / clip.rate, 1 / clip.rate)


# times


def _in_order(shots: Iterator[Shot]) -> Iterator[Shot]:
    """The frames with times that increase: a file may leave them out or repeat them."""
    end = last = Fraction(-1)
    for shot in shots:
        time = shot.time if shot.time > last else max(end, Fraction(0))
        yield Shot(shot.pixels, time, shot.duration)
        last, end = time, time + shot.duration
