"""Whole commands of the methods that iterate: seconds and peak of memory, the start of Python included.

    python benchmarks/optimise_time.py [--size 512] [--works gatys:draft nnst ...] [--large 1024]

A work is a method, or method:quality. The large runs show what memory a method needs at that size; they are
drafts, for memory does not grow with the number of steps.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measure import Promise, Row, arguments, report, timed

from atelier import examples
from atelier.images import Picture, write

#: The most seconds and GiB of a work at 512 px on two cores.
SECONDS = {"gatys:draft": 12.0, "gatys": 60.0, "nnst": 20.0}
OTHERS = 180.0
MEMORY, LARGE = 2.5, 6.0
WORKS = ("gatys:draft", "gatys", "mmd", "mrf", "deep_analogy", "nnst", "strotss", "texture")


def command_at(size: int, folder: Path, extra: list[str]) -> list[str]:
    """The command that paints a square photo of `size` px, but for the method."""
    photo, style, out = (folder / f"{name}-{size}.png" for name in ("photo", "style", "out"))
    write(Picture.of(examples.photo("astronaut")).resized((size, size)), photo, overwrite=True)
    write(Picture.of(examples.style("stained_glass", size=size)), style, overwrite=True)
    files = [str(photo), "--style", str(style), "-o", str(out), "--overwrite", "--size", str(size)]
    return [sys.executable, "-m", "atelier", "stylize", *files, *extra]


def chosen(work: str, quality: str = "good") -> list[str]:
    """The options of a work."""
    method, _, own = work.partition(":")
    return ["--method", method, "--quality", own or quality]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of the square result in pixels")
    parser.add_argument("--works", nargs="+", default=list(WORKS), help="methods, or method:quality")
    parser.add_argument("--large", type=int, default=1024, help="side of the runs for memory; 0 for none")
    parser.add_argument("--encoder", help="another encoder than the bundled one")
    parser.add_argument("--repetitions", type=int, default=1, help="runs of each; the fastest counts")
    options = parser.parse_args()
    extra = ["--encoder", options.encoder] if options.encoder else []
    extra += ["--threads", str(options.threads)] if options.threads else []
    rows: list[Row] = []
    promises = []
    with tempfile.TemporaryDirectory() as folder:
        command = command_at(options.size, Path(folder), extra)
        for work in options.works:
            runs = [timed([*command, *chosen(work)]) for _ in range(options.repetitions)]
            seconds, processor, _ = min(runs)
            memory = max(run[2] for run in runs)
            rows.append((f"{work} at {options.size} px", seconds, processor, memory))
            promises.append(Promise(f"seconds of {work}", seconds, SECONDS.get(work, OTHERS)))
            promises.append(Promise(f"GiB of {work}", memory, MEMORY))
        if options.large:
            command = command_at(options.large, Path(folder), extra)
            for method in dict.fromkeys(work.split(":")[0] for work in options.works):
                seconds, processor, memory = timed([*command, *chosen(method, "draft")])
                rows.append((f"{method}:draft at {options.large} px", seconds, processor, memory))
                promises.append(Promise(f"GiB of {method} at {options.large} px", memory, LARGE))
    head = ("work", "seconds", "processor seconds", "peak GiB")
    return report("atelier stylize, methods that iterate", head, rows, promises, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
