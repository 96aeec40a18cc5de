"""How frames are encoded: one codec for each kind of file, in an order that needs no reordering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from atelier.core.errors import UsageError, did_you_mean
from atelier.video.source import Pixels, av


@dataclass(frozen=True)
class Codec:
    """An encoder of FFmpeg's with its options. No frame refers to a later one, so that packets are in the
    order of frames and parts can be joined. `quality` is the usual CRF; None if it loses nothing.
    """

    encoder: str
    pixels: str
    options: Mapping[str, str]
    suffixes: tuple[str, ...]
    quality: int | None = None


CODECS = {
    "h264": Codec(
        "libx264", "yuv420p", {"preset": "veryfast", "bf": "0"}, (".mp4", ".mov", ".m4v", ".mkv"), quality=17
    ),
    "vp9": Codec(
        "libvpx-vp9",
        "yuv420p",
        {"b": "0", "auto-alt-ref": "0", "lag-in-frames": "0", "cpu-used": "4", "row-mt": "1"},
        (".webm", ".mkv", ".mp4"),
        quality=28,
    ),
    "ffv1": Codec("ffv1", "bgr0", {}, (".mkv",)),
}
VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm")
#: Written at the end from frames that lose nothing.
ANIMATED = (".gif", ".webp")
#: FFmpeg's number for BT.709, in which colours are written.
_BT709 = 1


def codec_for(target: Path, name: str | None, crf: int | None) -> Codec:
    """The codec for a target. Raises UsageError for one that its file cannot hold."""
    suffix = target.suffix.lower()
    if suffix not in VIDEOS:
        if name or crf is not None:
            raise UsageError(f"codec and crf are for videos ({', '.join(VIDEOS)}), not for '{target}'")
        return CODECS["ffv1"]
    if name is not None and name not in CODECS:
        raise UsageError(f"there is no codec '{name}': {did_you_mean(name, CODECS)}")
    codec = CODECS[name] if name else next(one for one in CODECS.values() if suffix in one.suffixes)
    if suffix not in codec.suffixes:
        fitting = [key for key, one in CODECS.items() if suffix in one.suffixes]
        raise UsageError(f"{suffix} does not hold {name}: use {' or '.join(fitting)}")
    if crf is None or codec.quality is None:
        return codec
    return Codec(codec.encoder, codec.pixels, codec.options, codec.suffixes, crf)


def encode(path: Path, frames: Iterable[Pixels], codec: Codec, rate: Fraction) -> None:
    """Write frames (H, W, 3) of one size to a Matroska file; what counts is their order, not their times."""
    with av().open(str(path), "w", format="matroska") as container:
        stream: Any = None
        for index, pixels in enumerate(frames):
            if stream is None:
                stream = _stream(container, codec, rate, pixels.shape)
            container.mux(stream.encode(_frame(pixels, codec, index)))
        container.mux(stream.encode(None))


def _stream(container: Any, codec: Codec, rate: Fraction, shape: tuple[int, ...]) -> Any:
    quality = {} if codec.quality is None else {"crf": str(codec.quality)}
    # Encoders reject rates that are written with large numbers, as files of varying rate have.
    stream = container.add_stream(
        codec.encoder, rate=rate.limit_denominator(1001), options={**codec.options, **quality}
    )
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = codec.pixels
    if codec.pixels.startswith("yuv"):
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = _BT709
    return stream


def _frame(pixels: Pixels, codec: Codec, index: int) -> Any:
    frame = av().VideoFrame.from_ndarray(pixels, format="rgb24")
    yuv = codec.pixels.startswith("yuv")
    frame = frame.reformat(format=codec.pixels, **({"dst_colorspace": "ITU709"} if yuv else {}))
    frame.pts = index
    return frame


def decode(path: Path) -> Iterable[Pixels]:
    """The frames of a file that `encode` wrote."""
    with av().open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
