"""Trainings: `atelier train` in processes of their own, followed through the files that they write.

A training outlives the page and the server: its folder holds everything (`studio.json`: what was asked for
and which process does it; `log.jsonl`, `sheet-*.jpg`, checkpoints and the network are written by the
command). The next studio in the same folder finds it again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core.atomic import atomic
from atelier.core.errors import AtelierError, ResourceError, TrainingError
from atelier.studio.datasets import Datasets
from atelier.studio.jobs import FINAL, Note, State
from atelier.studio.limits import NotHereError, WeightsFolder, display_name, own_folder
from atelier.studio.pictures import Pictures
from atelier.studio.sources import Sources

if TYPE_CHECKING:
    from atelier.methods.base import Method
    from atelier.training.settings import MethodSettings

_ID = re.compile(r"train-[0-9a-f]{12}")
_POLL = 0.5


class TrainingJob:
    """A training: the interface of a `Job`, and pause, resume, stop, the curve and the samples.

    `state` is "waiting" (another training runs), "running", "paused", "done", "stopped" or "failed".
    `method`, `settings` (as asked for) and `name` say what it is.
    """

    kind = "train"
    group = ""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder, self._facts = folder, facts
        self.id: str = facts["id"]
        self.name: str = facts["name"]
        self.method: str = facts["method"]
        self.settings: dict[str, Any] = facts["settings"]
        self.created: float = facts["created"]
        self.made: list[Any] = []
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._last = Note(0, self.state)

    @property
    def title(self) -> str:
        """A line for lists."""
        return f"{self.name} · {self.method}"

    @property
    def state(self) -> State:
        """What it is doing."""
        state: State = self._facts["state"]
        return state

    @property
    def error(self) -> str:
        """The sentence of a failed training."""
        return str(self._facts.get("error", ""))

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in FINAL

    # what it has reached

    @property
    def now(self) -> Note:
        """The step, the total, seconds of training so far and those left."""
        with self._lock:
            line = (self.curve()[-1:] or [{}])[0]
            step, total = int(line.get("step", 0)), int(self._facts["steps"])
            seconds = float(line.get("seconds", 0.0))
            left = round(seconds / step * (total - step), 1) if step and not self.finished else None
            note = replace(
                self._last,
                state=self.state,
                stage="training",
                done=step,
                total=total,
                seconds=seconds,
                left=left,
                preview=len(self.samples()),
                error=self.error,
            )
            if note != self._last:
                self._last = replace(note, number=self._last.number + 1)
            return self._last

    def notes(self, after: int = -1) -> list[Note]:
        """The newest event, where it is newer than `after`."""
        return [note for note in [self.now] if note.number > after]

    def wait(self, timeout: float | None = None, *, after: int | None = None) -> bool:
        """As `Job.wait`."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self.finished and (after is None or self.now.number <= after):
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(_POLL / 2)
        return True

    def facts(self) -> dict[str, Any]:
        """The training as JSON."""
        return {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "created": self.created,
            **vars(self.now),
            "made": [],
            "name": self.name,
            "method": self.method,
            "settings": self.settings,
            "samples": self.samples(),
            "result": self.result is not None,
        }

    def curve(self) -> list[dict[str, float]]:
        """The log: a line for every 20th step with `step`, `seconds`, `loss` and the terms, in order."""
        lines: dict[int, dict[str, float]] = {}
        with contextlib.suppress(OSError):
            for text in (self.folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that is being written
                    line = json.loads(text)
                    lines[int(line["step"])] = line  # steps since the last checkpoint come again
        return [lines[step] for step in sorted(lines)]

    def samples(self) -> list[int]:
        """The steps at which sample pictures were written."""
        found = (re.fullmatch(r"sheet-(\d+)\.jpg", path.name) for path in self.folder.glob("sheet-*.jpg"))
        return sorted(int(match[1]) for match in found if match)

    def sample(self, step: int) -> bytes:
        """The sample pictures of a step, a JPEG. Raises NotHereError."""
        if step not in self.samples():
            raise NotHereError(f"there are no sample pictures of step {step}")
        return (self.folder / f"sheet-{step:07d}.jpg").read_bytes()

    @property
    def result(self) -> Path | None:
        """The trained network, a safetensors file, when it is finished."""
        path = self.folder / f"{self.method}.safetensors"
        return path if path.is_file() else None

    @property
    def output(self) -> list[str]:
        """What the command said: networks, memory and data first."""
        try:
            text = (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-200:]

    # what can be done with it

    def pause(self) -> None:
        """Write a checkpoint and end the process; `resume` continues to the bit. Raises TrainingError."""
        self._ask("pause", ("running", "waiting"))

    def resume(self) -> None:
        """Continue a paused, stopped or failed training from its last checkpoint. Raises TrainingError."""
        with self._lock:
            if self.state not in ("paused", "stopped", "failed"):
                raise TrainingError(f"'{self.name}' is {self.state}: only one that is paused can be resumed")
            self.save(state="waiting", wanted="run", error="", steps=self._facts["asked"])

    def stop(self) -> None:
        """End it at the step reached, and write the network as it is. Raises TrainingError."""
        self._ask("stop", ("running", "waiting", "paused"))

    def cancel(self) -> None:
        """As `stop`; does nothing to a training that has ended."""
        with contextlib.suppress(TrainingError):
            self.stop()

    def _ask(self, wanted: str, states: Sequence[str]) -> None:
        with self._lock:
            if self.state not in states:
                raise TrainingError(f"'{self.name}' is {self.state}: there is nothing to {wanted}")
            self.save(wanted=wanted)
            self.advance(may_start=False)
            if self.state == "running":
                with contextlib.suppress(OSError):
                    os.kill(int(self._facts["pid"]), signal.SIGTERM)

    # how; called by `Trainings`

    def save(self, **changed: Any) -> None:
        """Change the facts, in the file too."""
        with self._lock:
            self._facts.update(changed)
            with atomic(self.folder / "studio.json") as beside:
                beside.write_text(json.dumps(self._facts, indent=1), encoding="utf-8")

    def leave(self) -> None:
        """Let the process go on without this one."""
        if self._process is not None and self._process.poll() is None:
            self._process.returncode = 0  # Python warns of a process that nobody has waited for

    def advance(self, *, may_start: bool) -> None:
        """Look at the process, and go to the next state; start it where it waits and may."""
        with self._lock:
            if self.state == "running" and not self._alive():
                self._ended()
            elif self.state in ("waiting", "paused") and self._facts["wanted"] == "stop":
                self._stop_at(self._reached())
            elif self.state == "waiting" and self._facts["wanted"] == "pause":
                self.save(state="paused")
            if self.state == "waiting" and may_start:
                self._start()

    def _ended(self) -> None:
        wanted = self._facts["wanted"]
        if self.result is not None:
            self.save(state="stopped" if self._facts["steps"] != self._facts["asked"] else "done")
        elif wanted == "pause":
            self.save(state="paused")
        elif wanted == "stop":
            self._stop_at(self._reached())
        else:
            said = next((line for line in reversed(self.output) if line.startswith("atelier: ")), "")
            error = said.removeprefix("atelier: ") or "the training ended without a word: resume it"
            self.save(state="failed", error=error)

    def _stop_at(self, step: int) -> None:
        """Run the command to the step reached: it trains no further, and writes the network."""
        if not step or self._facts["steps"] == step:
            self.save(state="stopped")
        else:
            self.save(state="waiting", wanted="run", steps=step)

    def _reached(self) -> int:
        """The step of the newest checkpoint."""
        found = (re.fullmatch(r"checkpoint-(\d+)\.safetensors", path.name) for path in self.folder.iterdir())
        return max((int(match[1]) for match in found if match), default=0)

    def _start(self) -> None:
        import psutil

        settings = {**self._facts["resolved"], "steps": self._facts["steps"]}
        command = [sys.executable, "-P", "-m", "atelier", "train", self.method.replace("_", "-")]
        command += ["--out", str(self.folder), *flags(settings)]
        with (self.folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it goes on when the server ends, and Ctrl-C does not reach it
            )
        try:
            born = psutil.Process(self._process.pid).create_time()
        except psutil.Error:
            born = 0.0
        self.save(state="running", pid=self._process.pid, born=born)

    def _alive(self) -> bool:
        import psutil

        if self._process is not None:
            return self._process.poll() is None
        try:
            process = psutil.Process(int(self._facts["pid"]))
            same = bool(abs(process.create_time() - self._facts["born"]) < 1)  # a number may come again
            return same and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False


class Trainings:
    """All trainings in the studio's folder. One runs at a time; the others wait in order."""

    def __init__(self, folder: Path, pictures: Pictures, weights: WeightsFolder) -> None:
        self.folder, self.pictures, self.weights = own_folder(folder / "trainings"), pictures, weights
        self.data = Datasets(folder, pictures.limits)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._runs = {run.id: run for run in map(_found, sorted(self.folder.iterdir())) if run}
        self._watcher = threading.Thread(target=self._watch, name="studio-trainings", daemon=True)
        self._watcher.start()

    def start(self, method: str, settings: Mapping[str, Any], *, name: str = "") -> TrainingJob:
        """Train `method` with `settings`, those of `atelier train METHOD --help`.

        Settings that name pictures (photos, paintings, pictures, sheet, ...) take `data:ID` of a set in
        `data`, or ids of pictures; domains are "NAME=data:ID". Weights are names, or files of the weights
        folder. Raises UsageError, NotHereError, ResourceError where a package is missing, and TrainingError
        for a method that is not trained.
        """
        id = f"train-{secrets.token_hex(6)}"
        folder = self.folder / id
        try:
            kind, resolved, parsed = self._parsed(method, settings, folder)
            own_folder(folder)
            steps = int(parsed.steps)
            run = TrainingJob(
                folder,
                {
                    "id": id,
                    "name": display_name(name or method),
                    "method": kind.name,
                    "settings": dict(settings),
                    "resolved": {name: value for name, value in resolved.items() if name != "steps"},
                    "steps": steps,
                    "asked": steps,
                    "created": time.time(),
                    "state": "waiting",
                    "wanted": "run",
                },
            )
            run.save()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:
            self._runs[id] = run
            self._advance()
        return run

    def check(self, method: str, settings: Mapping[str, Any], folder: Path) -> Any:
        """The settings of a training as the loop takes them, without starting it; copies go to `folder`.

        Raises what `start` raises.
        """
        return self._parsed(method, settings, folder)[2]

    def _parsed(
        self, method: str, settings: Mapping[str, Any], folder: Path
    ) -> tuple[type[Method], dict[str, Any], MethodSettings]:
        """The method, its settings with ids as paths, and the same checked."""
        from atelier.core.extras import is_installed
        from atelier.core.knobs import parse
        from atelier.methods import registry
        from atelier.training.settings import settings_of

        kind = registry.find(method)
        if not is_installed("accelerate"):
            raise ResourceError("training needs Accelerate: pip install 'atelier[train]'")
        resolved = Sources(self.pictures, self.data, self.weights).resolved(kind.data, settings, folder)
        return kind, resolved, parse(settings_of(kind), resolved, what="setting")

    def all(self) -> list[TrainingJob]:
        """All trainings, newest first."""
        with self._lock:
            return sorted(self._runs.values(), key=lambda one: one.created, reverse=True)

    def find(self, id: str) -> TrainingJob | None:
        """The training with this id, or None."""
        with self._lock:
            return self._runs.get(id)

    def networks(self, method: str = "") -> dict[str, Path]:
        """The networks of finished trainings, of one method or of all, by names for knobs; newest first."""
        runs = [run for run in self.all() if method in ("", run.method)]
        return {self.name_of(run): run.result for run in runs if run.result and self.name_of(run)}

    def name_of(self, run: TrainingJob) -> str:
        """The name of a training's network for knobs; empty while it is not finished."""
        return f"{run.name}-{run.id[-4:]}.safetensors" if run.result and run.finished else ""

    def delete(self, id: str) -> None:
        """Delete a training that has ended, with everything in its folder. Raises TrainingError."""
        run = self.find(id)
        if run is None:
            raise NotHereError(f"there is no training '{id[:40]}'")
        if run.state in ("running", "waiting"):
            raise TrainingError(f"'{run.name}' is {run.state}: stop it first")
        with self._lock:
            del self._runs[id]
        shutil.rmtree(run.folder, ignore_errors=True)

    def close(self) -> None:
        """Stop watching; the processes go on."""
        self._closed.set()
        self._watcher.join(5)
        for run in self._runs.values():
            run.leave()

    def _watch(self) -> None:
        while not self._closed.wait(_POLL):
            with self._lock, contextlib.suppress(AtelierError, OSError):  # a full disk: the next look may do
                self._advance()

    def _advance(self) -> None:
        for run in self._runs.values():
            run.advance(may_start=False)
        if not any(run.state == "running" for run in self._runs.values()):
            waiting = [run for run in self._runs.values() if run.state == "waiting"]
            if waiting:
                min(waiting, key=lambda run: run.created).advance(may_start=True)


def flags(settings: Mapping[str, Any]) -> list[str]:
    """The settings as flags of the command, each in one word.

    >>> flags({"batch": 4, "half": False, "photos": ["a", "b"]})
    ['--batch=4', '--no-half', '--photos=a', '--photos=b']
    """
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list | tuple):
            words += [f"--{flag}={one}" for one in value]
        elif value is not None:
            words.append(f"--{flag}={value}")
    return words


def _environment() -> dict[str, str]:
    """The environment of the command, which starts in another folder."""
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = os.pathsep.join(str(Path(place).absolute()) for place in places if place)
    return {**os.environ, "PYTHONPATH": absolute}


def _found(folder: Path) -> TrainingJob | None:
    """The training in a folder, as an earlier studio left it."""
    if not _ID.fullmatch(folder.name):
        return None
    try:
        facts = json.loads((folder / "studio.json").read_text(encoding="utf-8"))
        return TrainingJob(folder, facts)
    except (OSError, ValueError, KeyError, TypeError):
        return None
