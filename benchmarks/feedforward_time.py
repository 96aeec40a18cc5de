"""The feed-forward methods with the bundled weights: seconds in a warm process, whole commands, big pictures.

A convolution's rate on the machine stands beside the times, for they follow it: nearly all of the work is
3x3 convolutions in bfloat16.

    python benchmarks/feedforward_time.py [--size 512] [--repetitions 5] [--large 2048 [8192]]
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from measure import Promise, arguments, in_turns, report, set_threads, timed

from atelier import api, examples
from atelier.apps.doctor import convolution_rate
from atelier.core import device as devices
from atelier.core.allocator import keep_freed_memory
from atelier.images import Picture, write
from atelier.store import cache

#: The most seconds at 512 px on two cores: with a new style, and with one that was seen before.
SECONDS = {"nnst_d": (1.2, 0.9), "adain": (0.2, 0.2), "cap_vstnet": (1.0, 1.0)}
COLD = 4.0
#: Long side: the most seconds (none: no promise) and GiB of a square picture by nnst_d.
LARGE = {2048: (15.0, 2.5), 8192: (None, 4.0)}


def pictures(size: int) -> tuple[Picture, Picture]:
    """A photo of exactly `size` x `size`, and a style as large, up to 2048 px."""
    return (
        Picture.of(examples.photo("astronaut")).resized((size, size)),
        Picture.of(examples.style("stained_glass", size=min(size, 2048))),
    )


def fresh(work: Callable[[], object]) -> object:
    """Work in which no style has been seen before."""
    before, cache.LIMIT = cache.LIMIT, 0
    try:
        return work()
    finally:
        cache.LIMIT = before


def warm(size: int, repetitions: int) -> tuple[list[tuple[str | float, ...]], list[Promise]]:
    """Rows and promises of the methods in this process, which take turns."""
    photo, style = pictures(size)
    works: dict[str, Callable[[], object]] = {}
    for name in SECONDS:
        once = partial(api.stylize, photo, style, method=name, size=size)
        works[name], works[f"{name}, style seen"] = partial(fresh, once), once
    rows: list[tuple[str | float, ...]] = []
    promises = []
    for name, seconds in in_turns(works, repetitions, warm=2).items():
        rows.append((name, median(seconds), min(seconds), "-"))
        bound = SECONDS[name.split(",")[0]]["seen" in name]
        promises.append(Promise(f"seconds of {name}", median(seconds), bound))
    return rows, promises


def commands(
    size: int, large: list[int], folder: Path
) -> tuple[list[tuple[str | float, ...]], list[Promise]]:
    """Rows and promises of whole commands: the default at `size`, and at each of the `large` sizes."""
    rows: list[tuple[str | float, ...]] = []
    promises = []
    command = [sys.executable, "-m", "atelier", "stylize", "--method=nnst_d", "--overwrite"]
    for side in (size, *large):
        photo, style, out = (folder / f"{name}-{side}.png" for name in ("photo", "style", "out"))
        for picture, path in zip(pictures(side), (photo, style), strict=True):
            write(picture, path)
        runs = [
            str(photo),
            "--style",
            str(style),
            "-o",
            str(out),
            "--size",
            str(side),
            "--max-pixels",
            str(10**9),
        ]
        seconds, _, memory = timed([*command, *runs])
        rows.append((f"atelier stylize at {side} px", seconds, seconds, f"{memory:.2f}"))
        bound, most = (COLD, None) if side == size else LARGE.get(side, (None, None))
        if bound is not None:
            promises.append(Promise(f"seconds of a command at {side} px", seconds, bound))
        if most is not None:
            promises.append(Promise(f"GiB of a command at {side} px", memory, most))
    return rows, promises


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the square picture in pixels")
    parser.add_argument("--repetitions", type=int, default=5, help="rounds in the warm process")
    parser.add_argument("--large", type=int, nargs="*", default=[2048], help="sizes of whole commands")
    options = parser.parse_args()
    set_threads(options)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ATELIER_HOME"] = folder
        rows, promises = warm(options.size, options.repetitions)
        more, others = commands(options.size, options.large, Path(folder))
    cpu = torch.device("cpu")
    rate = convolution_rate(cpu, devices.compute_dtype(cpu)) / 1e12
    title = f"feed-forward at {options.size} px; a convolution reaches {rate:.2f} TFLOP/s"
    return report(
        title, ("work", "median s", "least s", "GiB"), rows + more, promises + others, as_json=options.json
    )


if __name__ == "__main__":
    sys.exit(main())
