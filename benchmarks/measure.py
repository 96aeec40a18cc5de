"""What the benchmarks share: repetitions that take turns, tables, promises.

Times are only compared within one run, and what is compared takes turns, so that a busy minute of the
machine falls on everything alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Row = Sequence[str | float]

GIB = 2**30
# macOS counts the peak in bytes, Linux in KiB.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Promise:
    """A number that must not be below (`at_least`) or above its bound."""

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def sentence(self) -> str:
        rule = "at least" if self.at_least else "at most"
        return f"{'kept' if self.kept else 'MISSED'}: {self.name} {self.value:.3g}, {rule} {self.bound:g}"


def in_turns(
    works: Mapping[str, Callable[[], object]], repetitions: int, *, warm: int = 1
) -> dict[str, list[float]]:
    """Seconds of each work, by name, in every repetition; the works take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repetition in range(-warm, repetitions):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


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


def machine() -> str:
    """One line on what was measured: processor, threads, versions."""
    import torch

    cores = f"{torch.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"{_processor()}, {cores}, torch {torch.__version__}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def arguments(text: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(text or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--threads", type=int, help="CPU threads; else as many as torch chooses")
    return parser


def set_threads(options: argparse.Namespace) -> None:
    """Apply `--threads`."""
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)


def report(
    title: str, head: Sequence[str], rows: Sequence[Row], promises: Sequence[Promise], *, as_json: bool
) -> int:
    """Print the findings; 1 when a promise is missed, else 0."""
    kept = all(promise.kept for promise in promises)
    if as_json:
        facts: dict[str, Any] = {"title": title, "machine": machine(), "kept": kept}
        facts["rows"] = [dict(zip(head, row, strict=True)) for row in rows]
        facts["promises"] = [asdict(promise) | {"kept": promise.kept} for promise in promises]
        print(json.dumps(facts, indent=2))
    else:
        print(f"{title}\n{machine()}\n\n{table(head, rows)}\n")
        print("\n".join(promise.sentence() for promise in promises))
    return 0 if kept else 1


def table(head: Sequence[str], rows: Sequence[Row]) -> str:
    """Columns of plain text; numbers with four digits, to the right."""
    lines = [list(head), *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    numbers = [not isinstance(cell, str) for cell in rows[0]]
    drawn = (
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numbers, strict=True)
        )
        for line in lines
    )
    return "\n".join(line.rstrip() for line in drawn)


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
