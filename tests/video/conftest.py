"""Clips of a few frames, made here, and a method that flickers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from atelier.methods import registry
from atelier.video import work as works

SIZE = (48, 64)  # height, width
TICK = Fraction(1, 1200)
#: Times of frames in ticks: the rate changes in the middle.
TIMES = [0, 40, 80, 120, 160, 200, 300, 400, 500, 600, 640, 680]
END = 740

BOILING = '''
import torch
from atelier.core.knobs import Knobs
from atelier.methods.base import Method, Paper, Takes

class Boiling(Method):
    """Adds new noise to every frame."""
    name = "boiling"
    paper = Paper("A", 2000, "B", "https://example.org")
    takes = Takes(styles=frozenset(), least=0)
    class Knobs(Knobs):
        pass
    def transfer(self, job, knobs):
        seed = int(job.content.double().sum() * 1000) % 2**31
        noise = torch.randn(job.content.shape, generator=torch.Generator().manual_seed(seed))
        job.progress.report(1, 2, stage="boil")
        return (job.content + 0.1 * noise).clamp(0, 1)
'''


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of five frames, so that a short clip has several."""
    monkeypatch.setattr(works, "_MOST", 5)
    monkeypatch.setattr(works, "_FEWEST", 5)


@pytest.fixture
def boiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the method `boiling`, which any command finds."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "boiling.py").write_text(BOILING)
    monkeypatch.setenv("ATELIER_METHODS", str(folder))
    registry.list_methods.cache_clear()
    yield folder
    registry.list_methods.cache_clear()


def scene(count: int, size: tuple[int, int] = SIZE, seed: int = 0, step: float = 1.0) -> list[Any]:
    """Frames (H, W, 3) uint8 of soft blots that move to the right by `step` pixels a frame."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    phases = np.random.default_rng(seed).uniform(0, 6, (3, 4))
    frames = []
    for index in range(count):
        at = x - step * index
        waves = [sum(np.sin(at / (3 + 2 * k) + y / (4 + k) + p) for k, p in enumerate(row)) for row in phases]
        frames.append((127 + 30 * np.stack(waves, 2)).clip(0, 255).astype(np.uint8))
    return frames


def write_clip(
    path: Path,
    frames: Sequence[Any],
    times: Sequence[int] | None = None,
    *,
    sound: bool = False,
    transfer: int | None = None,
) -> Path:
    """An H.264 video with these times in ticks, and a tone."""
    ticks = times or [40 * number for number in range(len(frames))]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=30, options={"crf": "4", "bf": "2"})
        video.height, video.width = frames[0].shape[:2]
        odd = any(side % 2 for side in frames[0].shape[:2])
        video.pix_fmt = "yuv444p" if odd else "yuv420p"
        video.time_base = video.codec_context.time_base = TICK
        if transfer is not None:
            video.codec_context.color_trc = transfer
        audio = out.add_stream("aac", rate=8000, layout="mono") if sound else None
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = ticks[index], TICK
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            _tone(out, audio, ticks[-1] * TICK)
    return path


def _tone(out: Any, audio: Any, seconds: Fraction) -> None:
    count = int(seconds * 8000) // 1024
    for index in range(count):
        wave = np.sin(np.arange(1024 * index, 1024 * (index + 1)) / 5).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 1024 * index, Fraction(1, 8000)
        out.mux(audio.encode(frame))
    out.mux(audio.encode(None))


def shown(path: Path) -> list[Any]:
    """The decoded frames of a video."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def packets(path: Path, kind: str) -> list[tuple[bytes, Fraction]]:
    """The bytes and times of the packets of a video's sound ("audio") or of another stream."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        found = [packet for packet in container.demux(stream) if packet.size]
        return [(bytes(packet), packet.pts * packet.time_base) for packet in found]


Clips = Callable[..., Path]
