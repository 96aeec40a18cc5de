"""Writes animated pictures frame by frame: GIF in one palette for all frames, and WebP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from atelier.video.source import Pixels, av

#: GIF counts time in hundredths of a second.
_TICK = Fraction(1, 100)
#: Colours of a palette; one of the 256 is left for what does not change.
_COLOURS = 255
#: Long side in pixels of the frames from which the palette is chosen.
_SMALL = 128
#: Thresholds of an ordered dither, which stands still where the picture does.
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32) / 16 - 0.47
#: Height of the dither in levels of 255.
_DITHER = 20


def write_gif(
    path: Path, frames: Iterable[Pixels], samples: Sequence[Pixels], times: Sequence[Fraction], comment: str
) -> None:
    """A GIF that repeats for ever. `samples` are frames from which its palette is chosen.

    `times` (s) are those at which the frames begin, and that of the end.
    """
    palette = _palette(samples)
    colours = np.array(palette.getpalette("RGB"), np.uint8).reshape(-1, 3)
    argb = np.full((256, 4), 255, np.uint8)
    argb[: len(colours), 1:] = colours
    ticks = _increasing([round((time - times[0]) / _TICK) for time in times])
    options = {"loop": "0", "final_delay": str(ticks[-1] - ticks[-2])}
    with av().open(str(path), "w", format="gif", options=options) as container:
        stream = container.add_stream("gif", rate=1 / _TICK)
        stream.time_base = stream.codec_context.time_base = _TICK
        stream.pix_fmt = "pal8"
        stream.height, stream.width = samples[0].shape[:2]
        for tick, pixels in zip(ticks, frames, strict=False):
            indices = np.asarray(_dithered(pixels).quantize(palette=palette, dither=Image.Dither.NONE))
            frame = av().VideoFrame.from_ndarray((indices, argb), format="pal8")
            frame.pts, frame.time_base = tick, _TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    _comment(path, comment)


def _palette(samples: Sequence[Pixels]) -> Image.Image:
    small = [Image.fromarray(one) for one in samples]
    for one in small:
        one.thumbnail((_SMALL, _SMALL))
    sheet = np.concatenate([np.asarray(one).reshape(-1, 3) for one in small])
    return Image.fromarray(sheet[None]).quantize(_COLOURS, method=Image.Quantize.MEDIANCUT)


def _dithered(pixels: Pixels) -> Image.Image:
    height, width = pixels.shape[:2]
    tiled = np.tile(_BAYER, (-(-height // 4), -(-width // 4)))[:height, :width, None]
    return Image.fromarray((pixels + _DITHER * tiled).clip(0, 255).astype(np.uint8))


def _increasing(ticks: list[int]) -> list[int]:
    """Ticks of which none repeats: browsers slow down frames that take no time."""
    for place in range(1, len(ticks)):
        ticks[place] = max(ticks[place], ticks[place - 1] + 1)
    return ticks


def _comment(path: Path, text: str) -> None:
    """Add a comment block to a GIF, before its last byte."""
    if not text:
        return
    data = text.encode("ascii")
    blocks = [data[start : start + 255] for start in range(0, len(data), 255)]
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x21\xfe" + b"".join(bytes([len(one)]) + one for one in blocks) + b"\0;")


def write_webp(path: Path, frames: Iterable[Pixels], times: Sequence[Fraction], exif: bytes) -> None:
    """An animated WebP that repeats for ever; `times` as for `write_gif`."""
    ticks = _increasing([round((time - times[0]) * 1000) for time in times])
    durations = [after - before for before, after in pairwise(ticks)]
    film = _Film(iter(frames), len(durations))
    film.save(path, "WEBP", save_all=True, duration=durations, loop=0, quality=90, method=4, exif=exif or b"")


class _Film(Image.Image):
    """Frames as Pillow saves them, one in memory at a time; they can be visited once, in their order."""

    def __init__(self, frames: Iterator[Pixels], count: int) -> None:
        super().__init__()
        self.n_frames, self.is_animated = count, True
        self._frames, self._place = frames, -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        if frame > self._place:
            shown = Image.fromarray(next(self._frames))
            self.im, self._mode, self._size, self._place = shown.im, shown.mode, shown.size, frame

    def tell(self) -> int:
        return self._place
