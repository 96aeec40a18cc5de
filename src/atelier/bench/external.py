"""Programs of others as methods of a grid: a command that reads two pictures and writes one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from atelier import images
from atelier.bench.memory import peak_of
from atelier.bench.protocol import ExternalEntry
from atelier.core.errors import InputError, ResourceError
from atelier.images import Picture

#: Seconds between two looks whether the program has ended.
_LOOK = 0.01


@dataclass(frozen=True)
class Made:
    """The picture of a program, its seconds by the clock and by the processor, its peak of memory in MiB."""

    picture: Picture
    seconds: float
    cpu: float
    peak: float


def run(entry: ExternalEntry, content: Picture, style: Picture, size: int) -> Made:
    """Run the command on a content and a style, both at `size`; the result gets the content's size.

    The time is that of the whole command, reading and writing included. Raises ResourceError for a program
    that is missing, fails or takes too long, and InputError where it writes no picture.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.png" for name in ("content", "style", "output")}
        for name, picture in (("content", content), ("style", style)):
            images.write(picture, files[name], receipt=False)
        known = {name: str(path) for name, path in files.items()} | {"size": str(size)}
        words = [_filled(word, known) for word in entry.command]
        start = time.perf_counter()
        cpu, peak = _finished(words, entry, Path(folder))
        seconds = time.perf_counter() - start
        if not files["output"].is_file():
            raise InputError(f"{entry.name} wrote no picture to {{output}}: check its command")
        made = Picture.open(files["output"]).resized(content.shape)
    return Made(made, seconds, cpu, peak)


def _filled(word: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _finished(words: list[str], entry: ExternalEntry, folder: Path) -> tuple[float, float]:
    """Run a command to its end; its processor seconds and its peak of memory in MiB."""
    with (folder / "log").open("wb") as log:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        except OSError as error:
            raise ResourceError(
                f"the program '{words[0]}' of {entry.name} cannot be started ({error.strerror}): install it"
            ) from error
        code, cpu, peak = _waited(process, entry.seconds)
    if code is None:
        raise ResourceError(f"{entry.name} took longer than {entry.seconds:g} seconds and was ended")
    if code:
        last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
        raise ResourceError(f"{entry.name} ended with code {code}: {' '.join(last) or 'it says nothing'}")
    return cpu, peak


def _waited(process: subprocess.Popen[bytes], seconds: float) -> tuple[int | None, float, float]:
    """The exit code (None: it was ended after `seconds`), processor seconds, peak of memory in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    end, late, peak = time.monotonic() + seconds, False, 0.0
    while True:
        # Linux counts what this process holds into the program's own figure.
        peak = max(peak, peak_of(process.pid))
        number, status, usage = os.wait4(process.pid, os.WNOHANG)
        if number:
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu = usage.ru_utime + usage.ru_stime
            return (None if late else process.returncode), cpu, peak or usage.ru_maxrss / unit
        if time.monotonic() > end and not late:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(_LOOK)
