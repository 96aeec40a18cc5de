"""A video made again from the recipe inside it, and what of the facts and figures can be checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atelier.apps import cli
from atelier.core.errors import InputError
from atelier.images import Picture, write
from atelier.metrics.video import warping_error
from atelier.video.motion import Motion
from atelier.video.replay import recipe_of, replay_video
from atelier.video.run import stylize_video

from .conftest import TIMES, packets, scene, shown, write_clip


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", scene(len(TIMES), (47, 63)), TIMES, sound=True)


@pytest.fixture
def made(clip: Path, boiling: Path, tmp_path: Path) -> Path:
    """Of a size that is rounded down to even sides, with other settings than usual."""
    stylize_video(
        clip, output=tmp_path / "made.mp4", method="boiling", size=33, steady=0.7, crf=9, seed=5, threads=1
    )
    return tmp_path / "made.mp4"


def test_the_same_frames_come_again(clip: Path, made: Path, tmp_path: Path) -> None:
    again = replay_video(made, tmp_path / "again.mp4")
    assert (again.size, again.recipe) == (
        (32, 24),
        {k: v for k, v in recipe_of(made).items() if k != "flicker"},
    )
    assert packets(again.path, "video") == packets(made, "video")
    assert packets(again.path, "audio") == packets(made, "audio")
    silent = stylize_video(clip, output=tmp_path / "silent.mkv", method="identity", sound=False, threads=1)
    replayed = replay_video(silent.path, tmp_path / "silent-again.mkv")
    assert packets(replayed.path, "video") == packets(silent.path, "video")
    assert not _has(replayed.path, "audio")


def test_the_command_replays_a_video(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.parent)
    assert not cli.main(["replay", "made.mp4"])
    for one, other in zip(shown(made), shown(made.parent / "made-replay.mp4"), strict=True):
        assert np.array_equal(one, other)


def test_a_folder_of_frames_and_a_gif_come_again(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, pixels in enumerate(scene(3)):
        write(Picture.of(pixels), frames / f"{number}.png")
    first = stylize_video(frames, output=tmp_path / "made.mp4", method="identity", rate="25", threads=1)
    again = replay_video(first.path, tmp_path / "again.mp4")
    assert packets(again.path, "video") == packets(first.path, "video")
    gif = stylize_video(frames, output=tmp_path / "made.gif", method="identity", rate="20", threads=1)
    assert replay_video(gif.path, tmp_path / "again.gif").path.read_bytes() == gif.path.read_bytes()


def test_a_clip_that_is_gone_or_changed_gets_a_sentence(clip: Path, made: Path, tmp_path: Path) -> None:
    clip.rename(tmp_path / "moved.mp4")
    with pytest.raises(InputError, match=r"the clip '.*clip.mp4' from which .* is missing: .*--content"):
        replay_video(made, tmp_path / "again.mp4")
    again = replay_video(made, tmp_path / "again.mp4", clip=tmp_path / "moved.mp4")
    assert packets(again.path, "video") == packets(made, "video")
    other = write_clip(tmp_path / "other.mp4", scene(3))
    with pytest.raises(InputError, match=r"other.mp4' is not the clip that was used \(its hash differs\)"):
        replay_video(made, tmp_path / "third.mp4", clip=other)
    with pytest.raises(InputError, match="carries no recipe of a video"):
        replay_video(other, tmp_path / "third.mp4")
    assert not (tmp_path / "third.mp4").exists()


def test_flicker_is_the_warping_error_of_the_metrics() -> None:
    before, now = scene(2, (96, 128))
    motion = Motion.between(before, now)
    flow, seen = motion.tensors
    pair = [Picture.of(one).tensor() for one in (before, now)]
    assert motion.error == pytest.approx(warping_error(pair, [flow], [seen]), rel=0.01)
    results = [255 - before, np.flipud(now)]
    found = warping_error([Picture.of(one).tensor() for one in results], [flow], [seen])
    assert motion.warping_error(*results) == pytest.approx(found, rel=0.01)


def _has(path: Path, kind: str) -> bool:
    import av

    with av.open(str(path)) as container:
        return bool(getattr(container.streams, kind))
