"""The flicker of clips by methods: each frame alone, and held steady by the motion.

    python benchmarks/flicker.py CLIP... --style PAINTING --methods adain nnst_d

Flicker is the warping error over visible pixels (Lai et al. 2018, eq. 5), in units of the clip's own. With
`--strips FOLDER`, frames at equal distances are written side by side: the clip, each frame alone, steady.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path

import numpy as np

from atelier import Picture, Stylizer, images
from atelier.video.motion import Motion
from atelier.video.run import STEADY
from atelier.video.source import Pixels, open_clip
from atelier.video.steady import Painter, State

_COLUMNS = 5


def frames(path: Path, size: int, most: int) -> list[Pixels]:
    """The first frames of a clip at a long side of `size`."""
    shots = islice(open_clip(path).shots(), most)
    return [np.asarray(Picture.of(shot.pixels).resized(size).pil()) for shot in shots]


def painted(clip: list[Pixels], stylizer: Stylizer, steady: float) -> tuple[list[Pixels], State, float]:
    """The results, the state after the last frame, and the seconds per frame."""
    painter, last, results = Painter(stylizer, steady), None, []
    start = time.monotonic()
    for now, following in zip(clip, [*clip[1:], clip[-1]], strict=True):
        _, state = painter.paint(now, last, None)
        last = state, Motion.between(now, following)
        results.append(state.result)
    return results, state, (time.monotonic() - start) / len(clip)


def strip(rows: list[list[Pixels]], path: Path) -> None:
    """A sheet of frames at equal distances, one row for each list."""
    places = np.linspace(0, len(rows[0]) - 1, _COLUMNS).round().astype(int)
    sheet = np.concatenate([np.concatenate([row[place] for place in places], 1) for row in rows])
    images.write(Picture.of(sheet), path, overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--style", required=True)
    parser.add_argument("--methods", nargs="+", default=["adain", "nnst_d"])
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--steady", type=float, default=STEADY)
    parser.add_argument("--strips", type=Path, help="folder for contact sheets")
    wanted = parser.parse_args()
    print("clip                 method     alone  steady  ratio  scenes  s/frame")
    for path in wanted.clips:
        clip = frames(path, wanted.size, wanted.frames)
        for method in wanted.methods:
            stylizer = Stylizer(wanted.style, method=method, size=max(clip[0].shape), receipt="none")
            alone, plain, _ = painted(clip, stylizer, 0.0)
            steady, held, seconds = painted(clip, stylizer, wanted.steady)
            first, second = plain.flicker.facts["ratio"], held.flicker.facts["ratio"]
            print(
                f"{path.name:20} {method:9} {first:6.2f} {second:7.2f} {second / first:6.2f} "
                f"{held.scenes:7} {seconds:8.2f}",
                flush=True,
            )
            if wanted.strips:
                wanted.strips.mkdir(exist_ok=True)
                strip([clip, alone, steady], wanted.strips / f"{path.stem}-{method}.png")


if __name__ == "__main__":
    main()
