"""How long a command takes before it does anything: `atelier --help` and `import atelier`.

python benchmarks/startup.py [--repetitions 10] [--require 0.3]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

from measure import Promise, arguments, report

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import atelier": ["-c", "import atelier"],
    "atelier --help": ["-m", "atelier", "--help"],
    "atelier methods": ["-m", "atelier", "methods"],
}
PROMISED = ("import atelier", "atelier --help")


def timed(arguments: list[str]) -> tuple[float, float]:
    """Wall seconds and processor seconds of one command."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--require", type=float, default=0.3, help="the most seconds (median)")
    options = parser.parse_args()
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for repetition in range(-1, options.repetitions):
        for name, command in COMMANDS.items():
            run = timed(command)
            # The first round warms the disk.
            if repetition >= 0:
                runs[name].append(run)
    rows = []
    for name, pairs in runs.items():
        wall, processor = zip(*pairs, strict=True)
        rows.append((name, min(wall), median(wall), min(processor), median(processor)))
    head = ("command", "wall min", "wall median", "processor min", "processor median")
    promises = [
        Promise(f"seconds of {row[0]}", row[2], options.require) for row in rows if row[0] in PROMISED
    ]
    return report("Start-up, in seconds", head, rows, promises, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
