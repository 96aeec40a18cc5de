"""The styles of the shelf, drawn ahead in a process of its own that gives way to everything else.

A style is drawn by code when it is first used, which takes from half a second to six. As soon as a studio is
warm, `Ahead` draws those that are missing, so that the first draft in a style takes no longer than the next.
What is asked for meanwhile is drawn at once by the studio itself.

    python -m atelier.studio.ahead FOLDER style:nocturne style:ink
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from atelier.studio.pictures import Pictures, draw_example

#: The style that the page shows first.
_FIRST = "style:nocturne"


class Ahead:
    """The process that draws; it ends by itself when all is drawn, or by `close`."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures, self._closed = pictures, False
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to draw what is missing."""
        missing = sorted(self._pictures.undrawn(), key=_FIRST.__ne__)
        command = [sys.executable, "-P", "-m", "atelier.studio.ahead", str(self._pictures.drawn), *missing]
        # Without the process, styles are drawn when they are needed.
        with self._lock, contextlib.suppress(OSError):
            if self._closed or self._process is not None or not missing:
                return
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C ends it by `close`, without a traceback
            )

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.terminate()
                self._process.wait()


def draw(folder: Path, ids: Sequence[str]) -> None:
    """Draw these styles into the folder, except for those that are there already."""
    for id in ids:
        path = folder / f"{id.replace(':', '-')}.png"
        if not path.is_file():
            draw_example(path)


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(19)
    draw(Path(sys.argv[1]), sys.argv[2:])
