"""Checks that take minutes: many kills, and a long clip."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import packets, scene, write_clip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

KILLS = 10


def command(clip: Path, output: Path, *more: str) -> list[str]:
    method = ["--method", "adain", "--threads", "2", "--size", "128"]  # two frames at once
    style = ["--style", str(clip.parent / "style.png")]
    return [sys.executable, "-m", "atelier", "video", str(clip), *style, "-o", str(output), *method, *more]


@pytest.fixture
def folder(tmp_path: Path, painting: object) -> Path:
    from atelier.images import Picture, write

    write(Picture.of(painting), tmp_path / "style.png")
    return tmp_path


def test_a_run_that_is_killed_again_and_again_gives_the_same_video(folder: Path) -> None:
    clip = write_clip(folder / "clip.mp4", scene(120, (96, 128)), sound=True)
    subprocess.run(command(clip, folder / "whole.mp4"), check=True, capture_output=True)
    moments, kills = random.Random(0), 0
    output, parts = folder / "made.mp4", folder / "made.mp4.parts"
    while kills < KILLS:
        more = ["--resume"] if parts.exists() else []
        run = subprocess.Popen(command(clip, output, *more), stderr=subprocess.DEVNULL)
        before = len(list(parts.glob("*"))) if parts.exists() else 0
        while run.poll() is None and (not parts.exists() or len(list(parts.glob("*"))) == before):
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 1))
        run.kill()
        assert run.wait() == -signal.SIGKILL, "the clip is too short for so many kills"
        kills += 1
    subprocess.run(command(clip, output, "--resume"), check=True, capture_output=True)
    assert packets(output, "video") == packets(folder / "whole.mp4", "video")
    assert packets(output, "audio") == packets(folder / "whole.mp4", "audio")
    assert not parts.exists()


def test_memory_does_not_grow_with_the_length(folder: Path) -> None:
    code = "import resource, sys; from atelier.apps import cli; cli.main(sys.argv[1:]); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    peaks = []
    for frames in (40, 1500):
        clip = write_clip(folder / f"{frames}.mp4", scene(frames, (96, 128)))
        line = command(clip, folder / f"made-{frames}.mp4", "--json")
        run = subprocess.run([line[0], "-c", code, *line[3:]], check=True, capture_output=True, text=True)
        first, last = run.stdout.splitlines()
        assert json.loads(first)["frames"] == frames
        peaks.append(int(last) * 1024)
    assert peaks[1] < 1.5 * 2**30
    assert peaks[1] - peaks[0] < 100 << 20
