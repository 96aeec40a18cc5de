"""Whole videos: times, sound, kinds of files, what stops a run and how it goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from atelier.core.errors import AtelierError, Cancelled, InputError, OutputError, UsageError
from atelier.images import Picture, read_recipe, receipts, write
from atelier.video.run import Made, stylize_video

from .conftest import END, SIZE, TICK, TIMES, packets, scene, shown, write_clip


def make(clip: Path, output: str | Path, **settings: Any) -> Made:
    return stylize_video(clip, output=output, **{"method": "identity", "steady": 0, "threads": 1, **settings})


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", scene(len(TIMES)), TIMES, sound=True)


# times, sound, colours


@pytest.mark.parametrize("name", ["made.mp4", "made.mkv"])
def test_times_and_sound_are_those_of_the_clip(clip: Path, tmp_path: Path, name: str) -> None:
    made = make(clip, tmp_path / name)
    assert (made.frames, made.complete) == (len(TIMES), True)
    before, after = packets(clip, "video"), packets(made.path, "video")
    sound, copied = packets(clip, "audio"), packets(made.path, "audio")
    assert len(sound) > 2
    assert [data for data, _ in copied] == [data for data, _ in sound]
    # Matroska counts milliseconds, from where the encoder of the sound begins.
    tolerance, shift = (0, 0) if name.endswith("mp4") else (1e-3, copied[0][1] - sound[0][1])
    times = sorted(time for _, time in before)
    assert all(abs(a + shift - b) <= tolerance for a, (_, b) in zip(times, after, strict=True))
    assert not list(tmp_path.glob("*.parts"))
    with av.open(str(made.path)) as container, av.open(str(clip)) as source:
        assert abs(container.duration - source.duration) <= (40 * TICK + shift) * 1_000_000 + 1000


def test_the_method_sees_every_frame_in_its_colours(clip: Path, tmp_path: Path) -> None:
    made = make(clip, tmp_path / "made.mkv", codec="ffv1")
    for one, other in zip(shown(clip), shown(made.path), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    lossy = make(clip, tmp_path / "made.mp4", crf=1)
    for one, other in zip(shown(clip), shown(lossy.path), strict=True):
        assert np.abs(one.astype(int) - other).mean() < 3


def test_the_receipt_is_in_the_container(clip: Path, tmp_path: Path) -> None:
    made = make(clip, tmp_path / "made.mp4", seed=7)
    with av.open(str(made.path)) as container:
        recipe = receipts.parse(container.metadata["comment"])
    assert recipe is not None
    assert (recipe["method"], recipe["controls"]["seed"]) == ("identity", 7)
    assert recipe["content"]["name"].endswith("clip.mp4")
    assert recipe["video"]["encoder"] == "libx264"
    assert recipe["flicker"]["ratio"] == pytest.approx(1, abs=0.02)


def test_a_phone_held_upright_gives_an_upright_video(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", scene(3))
    straight = shown(clip)[0]
    one, zero = (1 << 16).to_bytes(4, "big"), bytes(4)
    minus = ((1 << 32) - (1 << 16)).to_bytes(4, "big")
    last = (1 << 30).to_bytes(4, "big")
    data = clip.read_bytes()
    plain = one + zero * 3 + one + zero * 3 + last
    head = data.index(b"tkhd")
    turned = zero + one + zero + minus + zero * 4 + last  # 90 degrees clockwise
    clip.write_bytes(data[:head] + data[head:].replace(plain, turned, 1))
    made = make(clip, tmp_path / "made.mkv", codec="ffv1")
    assert made.size == SIZE
    expected = np.rot90(straight, -1)
    assert np.abs(expected.astype(int) - shown(made.path)[0]).max() <= 1


def test_odd_sides_become_even(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", scene(3, (47, 63)))
    assert make(clip, tmp_path / "made.mp4").size == (62, 46)
    assert make(clip, tmp_path / "made.mp4", size=33, overwrite=True).size == (32, 24)


def test_high_dynamic_range_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", scene(3), transfer=16)
    with pytest.raises(InputError, match=r"high dynamic range \(PQ\).*BT\.709"):
        make(clip, tmp_path / "made.mp4")


# other kinds


@pytest.fixture
def animation(tmp_path: Path) -> Path:
    pictures = [Image.fromarray(one) for one in scene(4)]
    path = tmp_path / "clip.webp"
    pictures[0].save(
        path, save_all=True, append_images=pictures[1:], duration=[50, 40, 110, 200], lossless=True
    )
    return path


@pytest.mark.parametrize("name", ["made.gif", "made.webp"])
def test_animated_pictures_keep_their_times(animation: Path, tmp_path: Path, name: str) -> None:
    make(animation, tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        assert picture.n_frames == 4
        for index, duration in enumerate([50, 40, 110, 200]):
            picture.seek(index)
            picture.load()
            assert picture.info["duration"] == duration
            difference = np.asarray(picture.convert("RGB")).astype(int) - scene(4)[index]
            assert np.abs(difference).mean() < 10
        assert picture.info["loop"] == 0
    marked = (tmp_path / name).read_bytes()
    assert b"atelier-recipe:" in marked


def test_a_folder_of_pictures_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, pixels in zip((9, 10, 11), scene(3), strict=True):
        write(Picture.of(pixels), frames / f"shot{number}.png")
    made = make(frames, tmp_path / "made", rate="25")
    assert made.frames == 3
    for number, pixels in zip((9, 10, 11), scene(3), strict=True):
        found = Picture.open(tmp_path / "made" / f"shot{number}.png")
        assert np.array_equal(np.asarray(found.pil()), pixels)
        assert (read_recipe(tmp_path / "made" / f"shot{number}.png") or {})["method"] == "identity"
    made = make(frames, tmp_path / "made.mp4", rate="25")
    assert [float(time) for _, time in packets(made.path, "video")] == [0, 0.04, 0.08]


# steadiness


def test_noise_is_held_still(boiling: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", scene(8))
    alone = make(clip, tmp_path / "alone.mp4", method="boiling")
    steady = make(clip, tmp_path / "steady.mp4", method="boiling", steady=0.93)
    assert alone.flicker.content == steady.flicker.content
    assert steady.flicker.result < alone.flicker.result / 3


def test_a_cut_begins_a_new_scene(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [*scene(4), *scene(4, seed=9)])
    made = make(clip, tmp_path / "made.mp4")
    assert made.scenes == 2
    assert made.flicker.pairs == 6


# stopping and going on


def stopping(frame: int) -> Callable[[Any], bool]:
    return lambda event: not event.stage.startswith(f"frame {frame} ")


def test_a_stopped_run_is_playable_and_goes_on(boiling: Path, clip: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": "boiling", "steady": 0.9}
    whole = make(clip, tmp_path / "whole.mp4", **settings)
    part = make(clip, tmp_path / "part.mp4", progress=stopping(8), **settings)
    assert (part.frames, part.total, part.complete) == (7, 12, False)
    assert len(shown(part.path)) == 7
    ends = [time for _, time in packets(part.path, "audio")]
    assert max(ends) <= TIMES[7] * TICK
    with pytest.raises(OutputError, match="exists"):
        make(clip, tmp_path / "part.mp4", **settings)
    with pytest.raises(UsageError, match=r"other settings \(controls\)"):
        make(clip, tmp_path / "part.mp4", resume=True, seed=3, **settings)
    rest = make(clip, tmp_path / "part.mp4", resume=True, **settings)
    assert rest.flicker == whole.flicker
    assert packets(rest.path, "video") == packets(whole.path, "video")


def test_a_killed_run_goes_on_at_the_frame(boiling: Path, clip: Path, tmp_path: Path) -> None:
    whole = make(clip, tmp_path / "whole.mp4", method="boiling", steady=0.9)
    code = (
        "import os, signal\n"
        "from atelier.video import work\n"
        "work._MOST = work._FEWEST = 5\n"
        "from atelier.video.run import stylize_video\n"
        "def kill(event):\n"
        "    if event.stage.startswith('frame 7 '): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"stylize_video({str(clip)!r}, output={str(tmp_path / 'made.mp4')!r}, method='boiling',"
        " steady=0.9, threads=1, progress=kill)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "made.mp4").exists()
    with pytest.raises(OutputError, match="--resume"):
        make(clip, tmp_path / "made.mp4", method="boiling", steady=0.9)
    painted = set()
    made = make(
        clip,
        tmp_path / "made.mp4",
        method="boiling",
        steady=0.9,
        resume=True,
        progress=lambda event: painted.add(int(event.stage.split()[1])),
    )
    assert painted == set(range(7, 13))
    assert packets(made.path, "video") == packets(whole.path, "video")
    assert packets(made.path, "audio") == packets(whole.path, "audio")


def test_stopping_at_once_leaves_nothing_to_play(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        make(clip, tmp_path / "made.mp4", progress=stopping(1))
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4"}


def test_a_finished_video_is_not_replaced_by_going_on(clip: Path, tmp_path: Path) -> None:
    write_clip(tmp_path / "made.mp4", scene(2))
    with pytest.raises(OutputError, match="exists"):
        make(clip, tmp_path / "made.mp4", resume=True)


# bad input


def _text(folder: Path) -> dict[str, Any]:
    (folder / "clip.mp4").write_text("no video")
    return {}


def _still(folder: Path) -> dict[str, Any]:
    Image.fromarray(scene(1)[0]).save(folder / "clip.gif")
    return {"clip": "clip.gif"}


BAD: dict[str, tuple[Callable[[Path], dict[str, Any]], type[AtelierError], str]] = {
    "missing": (lambda folder: {"clip": "none.mp4"}, InputError, "does not exist"),
    "text": (_text, InputError, "cannot be opened as a video"),
    "still": (_still, InputError, "still picture"),
    "extension": (lambda folder: {"output": "made.xyz"}, UsageError, "no extension that can be written"),
    "itself": (lambda folder: {"output": "clip.mp4"}, UsageError, "the clip itself"),
    "folder": (lambda folder: {"output": "none/made.mp4"}, OutputError, "does not exist"),
    "codec": (lambda folder: {"codec": "h265"}, UsageError, "no codec 'h265': did you mean 'h264'"),
    "container": (lambda folder: {"codec": "ffv1"}, UsageError, ".mp4 does not hold ffv1"),
    "sound": (lambda folder: {"output": "made.webm"}, UsageError, "does not hold the clip's audio"),
    "steady": (lambda folder: {"steady": 2}, UsageError, "steady = 2"),
    "rate": (lambda folder: {"rate": "fast"}, UsageError, "frames per second"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_sentence(case: str, clip: Path, tmp_path: Path) -> None:
    prepare, kind, says = BAD[case]
    before = {path.name for path in tmp_path.iterdir()}
    wanted = {"clip": "clip.mp4", "output": "made.mp4", **prepare(tmp_path)}
    with pytest.raises(kind, match=says.replace("(", r"\(")):
        make(tmp_path / wanted.pop("clip"), tmp_path / wanted.pop("output"), **wanted)
    assert {path.name for path in tmp_path.iterdir()} - before <= {"clip.gif"}


def test_times_that_a_file_does_not_have_are_made_up(tmp_path: Path) -> None:
    assert TIMES[-1] < END
    clip = write_clip(tmp_path / "clip.avi", scene(3))
    made = make(clip, tmp_path / "made.mkv")
    times = [time for _, time in packets(made.path, "video")]
    assert all(a < b for a, b in pairwise(times))


def test_subtitles_are_copied(clip: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.srt"
    lines.write_text("1\n00:00:00,100 --> 00:00:00,300\nHello\n\n2\n00:00:00,350 --> 00:00:00,500\nAgain\n")
    spoken = tmp_path / "spoken.mkv"
    with av.open(str(clip)) as source, av.open(str(lines)) as words, av.open(str(spoken), "w") as out:
        streams = ((source, source.streams.video[0]), (words, words.streams.subtitles[0]))
        copies = [out.add_stream_from_template(stream) for _, stream in streams]
        copies[1].metadata["language"] = "fre"
        for (container, stream), copy in zip(streams, copies, strict=True):
            for packet in container.demux(stream):
                if packet.size:
                    packet.stream = copy
                    out.mux(packet)
    made = make(spoken, tmp_path / "made.mkv")
    assert [data for data, _ in packets(made.path, "subtitles")] == [b"Hello", b"Again"]
    assert packets(made.path, "subtitles") == packets(spoken, "subtitles")
    with av.open(str(made.path)) as container:
        assert container.streams.subtitles[0].metadata["language"] == "fre"
    with pytest.raises(UsageError, match=r"does not hold the clip's subtitle \(srt\)"):
        make(spoken, tmp_path / "made.mp4")
