"""Whole `atelier stylize` commands: seconds and the peak of memory, start of Python included.

python benchmarks/gatys_time.py [--size 512] [--qualities draft good] [--encoder FILE]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Promise, arguments, report

from atelier import examples
from atelier.images import Picture, write

#: The most seconds that a quality may take on two cores.
SECONDS = {"draft": 12.0, "good": 60.0}
GIB = 2**30
# macOS counts the peak in bytes, Linux in KiB.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def timed(command: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and the peak in GiB of a command; its errors end the benchmark."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(command)}\nended with {process.returncode}:\n{errors.read().decode()}")
    seconds = time.perf_counter() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * RSS_UNIT / GIB


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=512, help="long side of the result in pixels")
    parser.add_argument("--qualities", nargs="+", default=list(SECONDS), help="whose times to take")
    parser.add_argument("--encoder", help="another encoder than the bundled one")
    parser.add_argument("--repetitions", type=int, default=1, help="runs of each; the fastest counts")
    parser.add_argument("--memory", type=float, default=1.5, help="the most GiB")
    options = parser.parse_args()
    rows: list[tuple[str | float, ...]] = []
    promises = []
    with tempfile.TemporaryDirectory() as folder:
        photo, style, out = (Path(folder) / name for name in ("photo.png", "style.png", "out.png"))
        write(Picture.of(examples.photo("astronaut")), photo)
        write(Picture.of(examples.style("stained_glass", size=options.size)), style)
        command = [
            sys.executable,
            "-m",
            "atelier",
            "stylize",
            "--method=gatys",
            str(photo),
            "--style",
            str(style),
            "-o",
            str(out),
        ]
        command += ["--overwrite", "--size", str(options.size)]
        command += ["--encoder", options.encoder] if options.encoder else []
        command += ["--threads", str(options.threads)] if options.threads else []
        for quality in options.qualities:
            runs = [timed([*command, "--quality", quality]) for _ in range(options.repetitions)]
            seconds, processor, _ = min(runs)
            memory = max(run[2] for run in runs)
            rows.append((quality, seconds, processor, memory))
            if quality in SECONDS:
                promises.append(Promise(f"seconds for {quality}", seconds, SECONDS[quality]))
            promises.append(Promise(f"GiB for {quality}", memory, options.memory))
    head = ("quality", "seconds", "processor seconds", "peak GiB")
    return report(f"atelier stylize at {options.size} px", head, rows, promises, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
